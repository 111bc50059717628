//! What lies in the state directory of `qctl dev`.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use runtime::files::write_durably;
use serde::{Deserialize, Serialize};

use super::process::Process;
use crate::context;
use crate::failure::Failure;

/// The state directory.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    root: PathBuf,
}

/// Held while `qctl dev` runs; ends with the process.
#[derive(Debug)]
pub(super) struct Held(#[allow(dead_code, reason = "the open file is the lock")] File);

/// What runs; replaced whole at each change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) supervisor: Process,
    /// Whether all agents were ready.
    pub(super) ready: bool,
    pub(super) agents: u32,
    pub(super) slots: u32,
    pub(super) device: String,
    pub(super) endpoint: String,
    pub(super) children: Vec<Child>,
}

/// A process that `qctl dev` started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Child {
    pub(super) name: String,
    pub(super) process: Process,
}

impl Place {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The controller's state directory.
    pub(super) fn controller(&self) -> PathBuf {
        self.root.join("controller")
    }

    /// An agent's directory.
    pub(super) fn agent(&self, node: &str) -> PathBuf {
        self.root.join("agents").join(node)
    }

    /// Where the controller writes the address that it listens on.
    pub(super) fn address(&self) -> PathBuf {
        self.root.join("controller.address")
    }

    /// A process's log.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// Opens a process's log for appending.
    pub(super) fn open_log(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(self.log(name))
    }

    /// The last lines of a process's log, at most `lines`.
    pub(super) fn log_tail(&self, name: &str, lines: usize) -> Vec<String> {
        let text = fs::read(self.log(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(16 << 10)..]).into_owned();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
    }

    /// Makes the directories; they are the owner's alone.
    pub(super) fn prepare(&self) -> Result<(), Failure> {
        for dir in [self.root.clone(), self.root.join("logs"), self.root.join("agents"), self.controller()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(|error| Failure::because(format!("`{}` could not be made", dir.display()), &error))?;
        }
        Ok(())
    }

    /// Takes the place; `None` if another process holds it.
    pub(super) fn hold(&self) -> Result<Option<Held>, Failure> {
        let path = self.root.join("dev.lock");
        let failed = |error: &io::Error| Failure::because(format!("`{}` could not be locked", path.display()), error);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = match opened {
            Ok(file) => file,
            // Nothing can run where nothing is.
            Err(error) => return Err(failed(&error)),
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Held(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(&error)),
        }
    }

    /// What runs or ran here last; `None` if nothing ever did.
    pub(super) fn record(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.root.join("dev.json")).ok()?).ok()
    }

    /// Replaces the record.
    pub(super) fn save(&self, record: &Record) -> io::Result<()> {
        write_durably(&self.root.join("dev.json"), &serde_json::to_vec_pretty(record)?)
    }

    /// Takes away what tells others where the controller is.
    pub(super) fn forget_controller(&self) -> Result<(), Failure> {
        for path in [context::path(&self.root), self.address()] {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Failure::because(format!("`{}` could not be removed", path.display()), &error));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_the_place_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path().join("dev"));
        place.prepare().unwrap();
        let held = place.hold().unwrap().unwrap();
        assert!(place.hold().unwrap().is_none());
        drop(held);
        assert!(place.hold().unwrap().is_some());
    }

    #[test]
    fn a_record_comes_back_and_a_broken_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path().to_owned());
        assert!(place.record().is_none());
        let record = Record { ready: true, endpoint: "https://127.0.0.1:1".into(), ..Record::default() };
        place.save(&record).unwrap();
        assert_eq!(place.record(), Some(record));
        fs::write(dir.path().join("dev.json"), "{").unwrap();
        assert!(place.record().is_none());
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path().to_owned());
        place.prepare().unwrap();
        fs::write(place.log("a"), "1\n2\n3\n").unwrap();
        assert_eq!(place.log_tail("a", 2), ["2", "3"]);
        assert_eq!(place.log_tail("none", 2), [""; 0]);
    }
}
