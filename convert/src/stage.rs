//! Outputs that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, FlockOperation, RenameFlags};

use crate::digest;
use crate::error::{Error, Result};
use crate::progress::{Report, Stop};
use crate::zip::write::Sink;

/// Bytes collected before a write: small enough for the second-level cache.
const BUFFER: usize = 512 << 10;

/// One finished output file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where it lies.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// `blake3:` and 64 hexadecimal digits.
    pub digest: String,
}

/// A file under construction: hashed, counted, and removed unless kept.
pub struct Output<'a> {
    file: File,
    path: PathBuf,
    hash: blake3::Hasher,
    buffer: Vec<u8>,
    written: u64,
    report: &'a dyn Report,
    stop: &'a Stop,
    kept: bool,
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("path", &self.path).field("written", &self.written).finish_non_exhaustive()
    }
}

impl<'a> Output<'a> {
    /// Creates a new file and reserves `size` bytes for it.
    ///
    /// # Errors
    ///
    /// If it exists, cannot be created, or there is no room for `size` bytes.
    pub fn create(path: &Path, size: u64, report: &'a dyn Report, stop: &'a Stop) -> Result<Self> {
        refuse_beyond_limit(path, size)?;
        let file =
            OpenOptions::new().write(true).create_new(true).open(path).map_err(|e| Error::io("create", path, e))?;
        // So that a later run can tell whether its owner is gone; where there are no locks, it stays.
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        let output = Self {
            file,
            path: path.to_owned(),
            hash: blake3::Hasher::new(),
            buffer: Vec::with_capacity(BUFFER),
            written: 0,
            report,
            stop,
            kept: false,
        };
        output.reserve(size)?;
        Ok(output)
    }

    /// A full disk is found before the work, not after it.
    fn reserve(&self, size: u64) -> Result<()> {
        if size == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, size) {
            Err(e)
                if e == rustix::io::Errno::NOSPC || e == rustix::io::Errno::DQUOT || e == rustix::io::Errno::FBIG =>
            {
                Err(Error::io("reserve room for", &self.path, e.into()))
            }
            // Some file systems cannot reserve; the writes themselves will tell.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Makes the file durable and gives its facts; its path is that of creation.
    ///
    /// # Errors
    ///
    /// If writing or syncing fails.
    pub fn finish(mut self) -> Result<Written> {
        self.flush()?;
        self.file.sync_all().map_err(|e| Error::io("sync", &self.path, e))?;
        self.kept = true;
        Ok(Written { path: self.path.clone(), size: self.written, digest: digest::render(&self.hash) })
    }

    fn flush(&mut self) -> Result<()> {
        let full = std::mem::take(&mut self.buffer);
        let result = self.write_through(&full);
        self.buffer = full;
        self.buffer.clear();
        result
    }

    fn write_through(&mut self, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(BUFFER) {
            self.stop.check()?;
            self.hash.update(chunk);
            self.file.write_all(chunk).map_err(|e| Error::io("write", &self.path, e))?;
            self.written += chunk.len() as u64;
            self.report.advance(chunk.len() as u64);
        }
        Ok(())
    }
}

impl Sink for Output<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() >= BUFFER {
            self.flush()?;
            return self.write_through(bytes);
        }
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // The failure that brought us here is what the user hears of.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The kernel would end the process with SIGXFSZ, half-way through.
fn refuse_beyond_limit(path: &Path, size: u64) -> Result<()> {
    match rustix::process::getrlimit(rustix::process::Resource::Fsize).current {
        Some(limit) if size > limit => Err(Error::io(
            "write",
            path,
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{size} bytes are beyond this process's limit of {limit}"),
            ),
        )),
        _ => Ok(()),
    }
}

/// A name beside `path` that no other process uses.
#[must_use]
pub fn partial_name(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let (process, number) = (std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    path.with_file_name(format!(".{name}.partial-{process}-{number}-{nanos:08x}"))
}

/// Makes a directory's entries durable.
///
/// # Errors
///
/// If the directory cannot be opened or synced.
pub fn sync_directory(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let dir = File::open(path).map_err(|e| Error::io("open", path, e))?;
    dir.sync_all().map_err(|e| Error::io("sync", path, e))
}

/// The directory that holds `path`.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether both paths lead to one file or directory that is there.
#[must_use]
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Renames `from` to `to` and makes that durable.
///
/// # Errors
///
/// If renaming or syncing fails.
pub fn publish_file(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io("rename into place", to, e))?;
    sync_directory(parent(to))
}

/// Writes a small file whole, durable, by rename.
///
/// # Errors
///
/// If any step fails; then the old file, if any, is as it was.
pub fn write_small(path: &Path, bytes: &[u8]) -> Result<()> {
    remove_abandoned(path);
    let partial = partial_name(path);
    let stop = Stop::default();
    let mut output = Output::create(&partial, bytes.len() as u64, &crate::progress::Silent, &stop)?;
    output.put(bytes)?;
    let written = output.finish()?;
    publish_file(&written.path, path).inspect_err(|_| {
        let _ = fs::remove_file(&partial);
    })
}

/// A directory under construction, put into place whole.
///
/// It lies beside its goal under a hidden name and is locked; a later run
/// removes those whose owner is gone.
#[derive(Debug)]
pub struct StagedDir {
    path: PathBuf,
    goal: PathBuf,
    lock: Option<File>,
    done: bool,
}

impl StagedDir {
    /// Makes an empty directory beside `goal`, whose parents are made too.
    ///
    /// # Errors
    ///
    /// If a directory or the lock cannot be made.
    pub fn create(goal: &Path) -> Result<Self> {
        let home = parent(goal);
        fs::create_dir_all(home).map_err(|e| Error::io("create", home, e))?;
        remove_abandoned(goal);
        let path = partial_name(goal);
        fs::create_dir(&path).map_err(|e| Error::io("create", &path, e))?;
        let mut staged = Self { path, goal: goal.to_owned(), lock: None, done: false };
        // The directory itself: a lock file would be missing for a moment, and a kill can hit any moment.
        let lock = File::open(&staged.path).map_err(|e| Error::io("open", &staged.path, e))?;
        // Network file systems may lack locks; then abandoned directories stay until removed by hand.
        let _ = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
        staged.lock = Some(lock);
        Ok(staged)
    }

    /// Where files are to be made.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where `path`, made inside, will lie after [`StagedDir::publish`].
    #[must_use]
    pub fn goal_of(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.path).map_or_else(|_| path.to_owned(), |rest| self.goal.join(rest))
    }

    /// Puts the directory into place, in exchange for an older one.
    ///
    /// # Errors
    ///
    /// If syncing or renaming fails; then nothing has changed.
    pub fn publish(mut self) -> Result<()> {
        sync_directory(&self.path)?;
        let replaced = self.goal.symlink_metadata().is_ok();
        let rename = |flags| rustix::fs::renameat_with(rustix::fs::CWD, &self.path, rustix::fs::CWD, &self.goal, flags);
        if !replaced {
            fs::rename(&self.path, &self.goal).map_err(|e| Error::io("rename into place", &self.goal, e))?;
        } else if rename(RenameFlags::EXCHANGE).is_err() {
            // No exchange on this file system: the older one leaves first.
            let old = partial_name(&self.goal);
            fs::rename(&self.goal, &old).map_err(|e| Error::io("move aside", &self.goal, e))?;
            fs::rename(&self.path, &self.goal).map_err(|e| Error::io("rename into place", &self.goal, e))?;
            let _ = fs::remove_dir_all(&old);
        }
        self.done = !replaced || !self.path.exists();
        // After an exchange the older directory lies under our name; dropping removes it.
        sync_directory(parent(&self.goal))
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes what killed runs left beside `goal`: partial files and directories that nobody locks.
pub(crate) fn remove_abandoned(goal: &Path) {
    let Some(name) = goal.file_name() else { return };
    let prefix = format!(".{}.partial-", name.to_string_lossy());
    let Ok(entries) = fs::read_dir(parent(goal)) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        let Ok(lock) = File::open(&path) else { continue };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn an_output_that_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let stop = Stop::default();
        let mut output = Output::create(&dir.path().join("a"), 10, &Silent, &stop).unwrap();
        output.put(b"abc").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn small_and_large_pieces_come_out_in_order_and_hashed() {
        let dir = tempfile::tempdir().unwrap();
        let stop = Stop::default();
        let mut output = Output::create(&dir.path().join("a"), 0, &Silent, &stop).unwrap();
        let large = vec![9u8; 3 * BUFFER + 5];
        for piece in [&b"abc"[..], &large, b"de", &large[..BUFFER - 1], b"f"] {
            output.put(piece).unwrap();
        }
        let written = output.finish().unwrap();
        let bytes = fs::read(&written.path).unwrap();
        let expected = [&b"abc"[..], &large, b"de", &large[..BUFFER - 1], b"f"].concat();
        assert_eq!(bytes, expected);
        assert_eq!(written.digest, format!("blake3:{}", blake3::hash(&expected).to_hex()));
    }

    #[test]
    fn a_staged_directory_replaces_the_older_one_and_abandoned_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let goal = dir.path().join("goal");
        for round in ["one", "two"] {
            let staged = StagedDir::create(&goal).unwrap();
            fs::write(staged.path().join(round), round).unwrap();
            staged.publish().unwrap();
            let names: Vec<_> = fs::read_dir(&goal).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(names, [round]);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
        let abandoned = dir.path().join(".goal.partial-1-1-00000000");
        fs::create_dir(&abandoned).unwrap();
        fs::write(abandoned.join("half"), "").unwrap();
        let file = dir.path().join(".goal.partial-1-2-00000000");
        fs::write(&file, "half").unwrap();
        let live = StagedDir::create(&goal).unwrap();
        assert!(!abandoned.exists() && !file.exists());
        let other = StagedDir::create(&goal).unwrap();
        assert!(live.path().exists(), "a directory in use stays");
        drop((live, other));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
