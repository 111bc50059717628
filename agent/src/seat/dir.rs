//! A seat's directory: all that is needed to take it over.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use model::AttemptId;
use prost::Message as _;
use proto::v1::Assignment;
use serde::{Deserialize, Serialize};

use crate::shim::{proc, record, within};

const ASSIGNMENT: &str = "assignment.pb";
const NOTE: &str = "seat.json";
const MARKS: &str = "reported";
/// Everything but the logs.
const CONTROL: [&str; 11] = [
    ASSIGNMENT,
    record::LAUNCH,
    record::SHIM,
    record::STARTED,
    record::NESTED,
    record::EXITS,
    record::ENDED,
    record::STOP,
    record::SHIM_LOG,
    MARKS,
    "manifest.json",
];

/// What an agent notes about a seat for its next life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The boot in which the seat was taken.
    pub boot_id: String,
    /// What was last asked for.
    pub wanted: Wanted,
    /// When it was told to start, in milliseconds since the Unix epoch; 0 before.
    pub started_ms: u64,
    /// Whether the controller has told it to stop.
    pub stopped: bool,
    /// Whether the controller needs it no more: only its logs are left.
    pub forgotten: bool,
}

/// What the controller asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// Nothing to run: only a stop was ever heard of.
    #[default]
    Nothing,
    /// Checks, and a port.
    Prepare,
    /// Its processes.
    Start,
}

/// The directory of one seat.
#[derive(Clone, Debug)]
pub struct SeatDir {
    path: PathBuf,
    attempt: AttemptId,
}

impl SeatDir {
    /// The directory of `attempt` below `attempts`.
    #[must_use]
    pub fn new(attempts: &Path, attempt: &AttemptId) -> Self {
        Self { path: attempts.join(attempt.to_string()), attempt: attempt.clone() }
    }

    /// All seats below `attempts`.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn all(attempts: &Path) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(attempts)? {
            if let Some(attempt) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) {
                found.push(Self::new(attempts, &attempt));
            }
        }
        found.sort_by(|a, b| a.attempt.cmp(&b.attempt));
        Ok(found)
    }

    /// Makes the directory, if it is not there.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn create(&self) -> io::Result<()> {
        fs::create_dir_all(self.path.join("logs"))?;
        runtime::files::sync_parent(&self.path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    #[must_use]
    pub fn attempt(&self) -> &AttemptId {
        &self.attempt
    }

    /// Saves what the controller asked for, durably.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn save_assignment(&self, assignment: &Assignment) -> io::Result<()> {
        runtime::files::write_durably(&self.path.join(ASSIGNMENT), &assignment.encode_to_vec())
    }

    /// What the controller asked for; `None` if it never did.
    ///
    /// # Errors
    ///
    /// Whatever the file system says; `InvalidData` for a malformed file.
    pub fn assignment(&self) -> io::Result<Option<Assignment>> {
        match fs::read(self.path.join(ASSIGNMENT)) {
            Ok(bytes) => Assignment::decode(bytes.as_slice())
                .map(Some)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What an earlier life noted.
    ///
    /// # Errors
    ///
    /// Whatever the file system says; `InvalidData` for a malformed file.
    pub fn note(&self) -> io::Result<Note> {
        Ok(record::read(&self.path.join(NOTE))?.unwrap_or_default())
    }

    /// Whether nothing was ever accepted for it: neither an assignment nor a stop.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        let untouched = |note: Note| note.wanted == Wanted::Nothing && !note.stopped && !note.forgotten;
        self.note().is_ok_and(untouched) && !self.path.join(record::LAUNCH).exists()
    }

    /// Notes something, durably.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn save_note(&self, note: &Note) -> io::Result<()> {
        record::write(&self.path.join(NOTE), note)
    }

    /// A note for a seat that is taken in this boot.
    #[must_use]
    pub fn fresh_note() -> Note {
        Note { boot_id: proc::boot_id(), ..Note::default() }
    }

    /// What has been put into the spool.
    #[must_use]
    pub fn marks(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(self.path.join(MARKS)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Notes that something was put into the spool. Losing this costs a
    /// repeated report, so it is not synced.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn mark(&self, what: &str) -> io::Result<()> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path.join(MARKS))?
            .write_all(format!("{what}\n").as_bytes())
    }

    /// Sources of its logs.
    #[must_use]
    pub fn sources(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path.join("logs")).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".log")?.to_owned())).collect();
        names.sort();
        names
    }

    /// Removes all but the logs and the note.
    pub fn clear_control(&self) {
        for name in CONTROL {
            // One that is not there is as good as removed.
            let _ = fs::remove_file(self.path.join(name));
        }
        let _ = fs::remove_dir_all(self.path.join(within::BIN));
    }

    /// Removes everything.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_reads_back_and_strangers_are_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let attempt: AttemptId = "j.train.0.1".parse().unwrap();
        let dir = SeatDir::new(root.path(), &attempt);
        dir.create().unwrap();
        fs::create_dir(root.path().join("lost+found")).unwrap();
        assert_eq!(dir.note().unwrap(), Note::default());
        assert_eq!(dir.assignment().unwrap(), None);
        dir.save_assignment(&Assignment { attempt: attempt.to_string(), ..Assignment::default() }).unwrap();
        dir.save_note(&SeatDir::fresh_note()).unwrap();
        assert!(dir.is_untouched(), "an assignment without a note was not accepted");
        dir.save_note(&Note { stopped: true, ..SeatDir::fresh_note() }).unwrap();
        assert!(!dir.is_untouched());
        dir.save_note(&Note { wanted: Wanted::Start, ..SeatDir::fresh_note() }).unwrap();
        assert!(!dir.is_untouched());
        dir.mark("started").unwrap();
        dir.mark("shard 5 0 1").unwrap();
        fs::write(dir.path().join("logs/worker_0.log"), "x").unwrap();
        let all = SeatDir::all(root.path()).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].assignment().unwrap().unwrap().attempt, "j.train.0.1");
        assert_eq!(all[0].note().unwrap().wanted, Wanted::Start);
        assert_eq!(all[0].marks().into_iter().collect::<Vec<_>>(), ["shard 5 0 1", "started"]);
        dir.clear_control();
        assert_eq!(dir.sources(), ["worker_0"]);
        assert!(dir.marks().is_empty() && dir.assignment().unwrap().is_none());
        dir.remove().unwrap();
        assert!(SeatDir::all(root.path()).unwrap().is_empty());
    }
}
