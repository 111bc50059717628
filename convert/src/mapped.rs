//! A file mapped read-only into memory.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap};

use crate::error::{Error, Result};

/// The bytes of one regular file.
///
/// Pages come from the page cache, so they do not count as anonymous memory.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    map: Option<Mmap>,
}

impl Mapped {
    /// Maps the whole of `path`.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened or mapped, or is no regular file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let meta = file.metadata().map_err(|e| Error::io("read", path, e))?;
        if !meta.is_file() {
            return Err(Error::bad(path, "is not a regular file"));
        }
        if meta.len() == 0 {
            return Ok(Self { path: path.to_owned(), map: None });
        }
        // SAFETY: the map is read-only and private to this process. Should another process shorten
        // the file, the kernel ends this one with SIGBUS before anything is renamed into place.
        #[expect(unsafe_code, reason = "mapping a file has no safe interface")]
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io("map", path, e))?;
        // Advice only speeds up cold reads: where it is refused, the result is the same.
        let _ = map.advise(Advice::Sequential);
        Ok(Self { path: path.to_owned(), map: Some(map) })
    }

    /// All bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
