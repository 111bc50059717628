//! What the shim reads and writes in a seat's directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The processes to start; written by the agent.
pub const LAUNCH: &str = "launch.json";
/// Who the shim is; linked into place before it starts anything, so that a
/// second shim on the same seat finds it and starts nothing.
pub const SHIM: &str = "shim.json";
/// Who its children are; written once all have been started.
pub const STARTED: &str = "started.json";
/// One JSON line for each process that another one of the seat started.
pub const NESTED: &str = "nested";
/// One JSON line for each child that ended.
pub const EXITS: &str = "exits";
/// The last word; renamed into place when nothing is left.
pub const ENDED: &str = "ended.json";
/// How to stop; written by the agent before it signals the shim.
pub const STOP: &str = "stop.json";
/// The shim's own complaints.
pub const SHIM_LOG: &str = "shim.log";

/// Largest record file that is read.
const LARGEST: u64 = 64 << 20;

/// What a shim starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The attempt, for people who look at the directory.
    pub attempt: String,
    /// Started in this order.
    pub processes: Vec<Process>,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Source name of its log: `scheduler`, `worker_<rank>`, `msrun` or `stdout`.
    pub name: String,
    /// Global rank; `None` for a scheduler or a launcher.
    pub rank: Option<u32>,
    /// Whether an earlier process of the list starts it, and not the shim.
    #[serde(default)]
    pub nested: bool,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// The whole environment; of a nested process, what it is recognised by.
    pub env: BTreeMap<String, String>,
    /// Where its stdout is appended.
    pub stdout: PathBuf,
    /// Where its stderr is appended; may be the same file.
    pub stderr: PathBuf,
}

/// A process that cannot be confused with a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcId {
    /// Process number.
    pub pid: i32,
    /// Start time in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start: u64,
}

/// Who holds a seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shim {
    /// The shim; also the session of its children, unless they leave it.
    pub id: ProcId,
    /// The boot that it belongs to.
    pub boot_id: String,
    /// The cgroup that its children are in, if one could be made.
    pub cgroup: Option<PathBuf>,
}

/// The children that were started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// In launch order; shorter than the launch list if one could not be started.
    pub children: Vec<Child>,
}

/// A process of the launch list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Position in the launch list.
    pub index: usize,
    /// Who it is; also its process group.
    pub id: ProcId,
}

/// How a child ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Position in the launch list.
    pub index: usize,
    /// Exit code, if it returned.
    pub code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
    /// Why it could not be started.
    pub error: Option<String>,
    /// Whether it ended after the shim began to stop it.
    pub stopping: bool,
    /// Microseconds of the host's monotonic clock when it was reaped.
    pub mono_us: u64,
    /// Milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

impl Exit {
    /// Whether it returned 0.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.code == Some(0)
    }

    /// An end that is seen at this moment.
    #[must_use]
    pub fn at_present() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let mono_us = now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000;
        Self { mono_us, wall_ms: runtime::clock::now_ms(), ..Self::default() }
    }
}

/// The end of a seat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Whether it was told to stop.
    pub stopped: bool,
    /// Descendants that had to be killed.
    pub killed: u32,
    /// Why the shim gave up, if it did.
    pub error: Option<String>,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Milliseconds between SIGTERM and SIGKILL.
    pub grace_ms: u64,
}

/// Reads one JSON record; `None` if the file is not there.
///
/// # Errors
///
/// Whatever the file system says; `InvalidData` for a malformed record.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() > LARGEST => return Err(io::Error::new(io::ErrorKind::InvalidData, "record too large")),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let bytes = fs::read(path)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Writes one JSON record durably, by rename.
///
/// # Errors
///
/// Whatever the file system says.
pub fn write<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    runtime::files::write_durably(path, &serde_json::to_vec(record)?)
}

/// Writes one JSON record by rename: whole or absent as long as the kernel
/// lives, which is as long as what it says about processes can matter.
///
/// # Errors
///
/// Whatever the file system says.
pub fn write_plainly<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let temp = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temp, serde_json::to_vec(record)?)?;
    fs::rename(&temp, path)
}

/// Writes one JSON record unless the file exists; `false` if it does.
///
/// # Errors
///
/// Whatever the file system says.
pub fn write_new<T: Serialize>(path: &Path, record: &T) -> io::Result<bool> {
    let temp = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = fs::File::create(&temp)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    let linked = fs::hard_link(&temp, path);
    fs::remove_file(&temp)?;
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Appends one exit record and makes it durable.
///
/// # Errors
///
/// Whatever the file system says.
pub fn append_exit(dir: &Path, exit: &Exit) -> io::Result<()> {
    append(&dir.join(EXITS), exit)
}

/// Reads all whole exit records; a torn last line is left out.
///
/// # Errors
///
/// Whatever the file system says.
pub fn exits(dir: &Path) -> io::Result<Vec<Exit>> {
    lines(&dir.join(EXITS))
}

/// Notes a process that another one of the seat started.
///
/// # Errors
///
/// Whatever the file system says.
pub fn append_nested(dir: &Path, child: &Child) -> io::Result<()> {
    append(&dir.join(NESTED), child)
}

/// Reads who was started by another process of the seat.
///
/// # Errors
///
/// Whatever the file system says.
pub fn nested(dir: &Path) -> io::Result<Vec<Child>> {
    lines(&dir.join(NESTED))
}

fn append<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(&line)?;
    file.sync_data()
}

fn lines<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(bytes
        .split_inclusive(|b| *b == b'\n')
        .filter(|line| line.ends_with(b"\n"))
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_exit_record_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        append_exit(dir.path(), &Exit { index: 1, signal: Some(9), ..Exit::default() }).unwrap();
        fs::OpenOptions::new().append(true).open(dir.path().join(EXITS)).unwrap().write_all(b"{\"index\":2,").unwrap();
        let read = exits(dir.path()).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].index, read[0].signal), (1, Some(9)));
        assert!(exits(&dir.path().join("missing")).unwrap().is_empty());
    }

    #[test]
    fn only_the_first_shim_takes_a_seat() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SHIM);
        let shim = Shim { id: ProcId { pid: 1, start: 2 }, boot_id: "b".into(), cgroup: None };
        assert!(write_new(&path, &shim).unwrap());
        assert!(!write_new(&path, &Shim { boot_id: "other".into(), ..shim.clone() }).unwrap());
        assert_eq!(read::<Shim>(&path).unwrap(), Some(shim));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
