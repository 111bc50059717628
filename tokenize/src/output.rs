//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;

/// One finished file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
    /// `blake3:<hex>`, when digests were asked for.
    pub digest: Option<String>,
}

/// A file under a temporary name beside its final one.
///
/// Dropped before [`Temp::publish`], it is removed again.
#[derive(Debug)]
pub(crate) struct Temp {
    file: File,
    temporary: PathBuf,
    wanted: PathBuf,
    published: bool,
}

impl Temp {
    /// Creates the temporary file for `wanted`, readable and writable.
    pub(crate) fn create(wanted: &Path) -> Result<Self, Error> {
        // Two writers of one process must not share a name either.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = wanted.file_name().unwrap_or_default().to_string_lossy();
        let temporary = wanted.with_file_name(format!(".{name}.tmp-{}-{serial}", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(Error::io("create", &temporary))?;
        Ok(Self { file, temporary, wanted: wanted.to_owned(), published: false })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The name it will have.
    pub(crate) fn wanted(&self) -> &Path {
        &self.wanted
    }

    /// Wraps an I/O error on this file.
    pub(crate) fn fault(&self, doing: &'static str) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = self.wanted.clone();
        move |source| Error::Io { doing, path, source }
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.wanted))
    }

    /// Pushes the content to the disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io("flush", &self.wanted))
    }

    /// Gives the synced file its final name.
    pub(crate) fn publish(&mut self) -> Result<(), Error> {
        fs::rename(&self.temporary, &self.wanted).map_err(Error::io("rename to", &self.wanted))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: the error that led here is the one worth reporting.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// The directory that holds `path`, `.` for a bare name.
pub(crate) fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes renames inside `directory` durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), Error> {
    File::open(directory).and_then(|handle| handle.sync_all()).map_err(Error::io("flush the directory", directory))
}

/// Removes `path` if it is there.
pub(crate) fn remove_if_present(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::io("remove", path)(source)),
    }
}

/// Hashes a whole file: `blake3:<hex>`.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be read.
pub fn digest_file(path: &Path) -> Result<String, Error> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if count == 0 {
            return Ok(format!("blake3:{}", hasher.finalize().to_hex()));
        }
        hasher.update(&buffer[..count]);
    }
}
