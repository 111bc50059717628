//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

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

/// A file in the making, beside its final place.
///
/// It has no name at all where the file system allows that: then nothing is
/// left behind, however the process ends. Elsewhere it has a temporary name,
/// removed again if it is dropped before [`Temp::publish`].
#[derive(Debug)]
pub(crate) struct Temp {
    file: File,
    /// Whether `temporary` exists.
    named: bool,
    temporary: PathBuf,
    wanted: PathBuf,
}

impl Temp {
    /// Creates the file for `wanted`, readable and writable.
    pub(crate) fn create(wanted: &Path) -> Result<Self, Error> {
        // Two writers of one process must not share a name either.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = wanted.file_name().unwrap_or_default().to_string_lossy();
        let temporary = wanted.with_file_name(format!(".{name}.tmp-{}-{serial}", std::process::id()));
        let wanted = wanted.to_owned();
        match unnamed(&directory(&wanted)) {
            Some(file) => Ok(Self { file, named: false, temporary, wanted }),
            None => Self::named(temporary, wanted),
        }
    }

    /// The way for file systems that know no unnamed files.
    fn named(temporary: PathBuf, wanted: PathBuf) -> Result<Self, Error> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(Error::io("create", &temporary))?;
        Ok(Self { file, named: true, temporary, wanted })
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
        if !self.named {
            let link = rustix::fs::linkat(CWD, handle_path(&self.file), CWD, &self.wanted, AtFlags::SYMLINK_FOLLOW);
            match link {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(Error::io("name", &self.wanted)(errno.into())),
            }
            // A link cannot replace a file, a rename can.
            rustix::fs::linkat(CWD, handle_path(&self.file), CWD, &self.temporary, AtFlags::SYMLINK_FOLLOW)
                .map_err(|errno| Error::io("name", &self.temporary)(errno.into()))?;
            self.named = true;
        }
        fs::rename(&self.temporary, &self.wanted).map_err(Error::io("rename to", &self.wanted))?;
        self.named = false;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if self.named {
            // Best effort: the error that led here is the one worth reporting.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// A file without a name in `directory`, where that is possible.
fn unnamed(directory: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(directory, flags, Mode::from_raw_mode(0o666)).ok()?);
    // Its name is given through /proc later.
    handle_path(&file).exists().then_some(file)
}

fn handle_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn both_ways(directory: &Path) -> Vec<Temp> {
        let wanted = directory.join("result");
        let named = Temp::named(directory.join(".result.tmp"), wanted.clone()).unwrap();
        vec![Temp::create(&wanted).unwrap(), named]
    }

    fn names(directory: &Path) -> Vec<String> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_published_file_replaces_an_older_one_and_leaves_no_other_name() {
        let place = tempfile::tempdir().unwrap();
        for (way, mut temp) in both_ways(place.path()).into_iter().enumerate() {
            let content = format!("written {way}");
            temp.write_all(content.as_bytes()).unwrap();
            temp.sync().unwrap();
            temp.publish().unwrap();
            drop(temp);
            assert_eq!(fs::read_to_string(place.path().join("result")).unwrap(), content);
        }
        assert_eq!(names(place.path()), ["result"]);
    }

    #[test]
    fn an_unpublished_file_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        for mut temp in both_ways(place.path()) {
            temp.write_all(b"half").unwrap();
        }
        assert_eq!(names(place.path()), Vec::<String>::new());
    }
}
