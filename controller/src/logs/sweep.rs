//! Files of jobs that nobody knows any more.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, SystemTime};

use model::JobId;

use super::Logs;

/// How long a job's files stay once it is unknown: the store may be the wrong one, or an older one that was put back.
const STAY: Duration = Duration::from_secs(24 * 3600);
/// Lies in a job's directory since the job was found to be unknown.
const UNKNOWN: &str = "unknown";

impl Logs {
    /// Removes the files of jobs that `known` has not held for a day, by the wall clock's `now`.
    ///
    /// # Errors
    ///
    /// Whatever the file system says first; the rest is tried all the same.
    pub fn sweep(&self, known: impl Fn(&JobId) -> bool, now: SystemTime) -> io::Result<()> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut outcome = Ok(());
        for entry in entries {
            let entry = entry?;
            let Ok(job) = JobId::new(entry.file_name().to_string_lossy()) else { continue };
            let swept = if known(&job) { keep(&entry.path()) } else { let_go(&entry.path(), now) };
            outcome = outcome.and(swept);
        }
        outcome
    }
}

fn keep(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(UNKNOWN)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn let_go(dir: &Path, now: SystemTime) -> io::Result<()> {
    let mark = dir.join(UNKNOWN);
    if !mark.try_exists()? {
        return File::create(mark).map(drop);
    }
    // A clock that was set back makes it stay.
    if now.duration_since(newest(dir)?).is_ok_and(|untouched| untouched >= STAY) {
        return fs::remove_dir_all(dir);
    }
    Ok(())
}

/// When a file below `dir` was written to last.
fn newest(dir: &Path) -> io::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let written =
            if entry.file_type()?.is_dir() { self::newest(&entry.path())? } else { entry.metadata()?.modified()? };
        newest = newest.max(written);
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(hours: u64) -> SystemTime {
        SystemTime::now() + Duration::from_secs(hours * 3600)
    }

    #[test]
    fn files_go_once_their_job_is_unknown_and_they_were_left_alone_for_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned());
        let node = dir.path().join("j1/j1.run.0.1/n1");
        fs::create_dir_all(&node).unwrap();
        let log = node.join("stdout.log");
        let write = |at: SystemTime| File::create(&log).unwrap().set_modified(at).unwrap();
        let sweep = |known: bool, at: SystemTime| {
            logs.sweep(|_| known, at).unwrap();
            log.exists()
        };
        fs::create_dir(dir.path().join("no job's")).unwrap();
        // However old they are when a store that does not know them is met.
        write(SystemTime::UNIX_EPOCH);
        assert!(sweep(false, later(0)) && sweep(false, later(23)));
        // The right store again.
        assert!(sweep(true, later(24)) && sweep(false, later(48)));
        // Something that nobody knows goes on writing.
        write(later(20));
        assert!(sweep(false, later(25)) && sweep(false, later(43)));
        assert!(!sweep(false, later(45)));
        assert!(!dir.path().join("j1").exists());
        assert!(dir.path().join("no job's").exists());
    }
}
