//! A pool's directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::JobId;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde::{Deserialize, Serialize};

use crate::shim::pool::{LOGS, NEWS, ORDERS, RECORDS, WAKE};
use crate::shim::{proc, record};

const ABOUT: &str = "pool.json";

/// What the agent notes when it makes a pool.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    boot_id: String,
}

/// The directory of one pool: `<job>.<generation>`.
#[derive(Clone, Debug)]
pub(super) struct Place {
    path: PathBuf,
    job: JobId,
    generation: u64,
}

impl Place {
    /// All pools below `root`, older generations first.
    pub(super) fn all(root: &Path) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((job, generation)) = name.rsplit_once('.') else { continue };
            if let (Ok(job), Ok(generation)) = (JobId::new(job), generation.parse()) {
                found.push(Self { path: entry.path(), job, generation });
            }
        }
        found.sort_by(|a, b| (&a.job, a.generation).cmp(&(&b.job, b.generation)));
        Ok(found)
    }

    /// A place that is not there yet, of `generation` or later.
    pub(super) fn unused(root: &Path, job: &JobId, generation: u64) -> Self {
        let mut place = Self { path: PathBuf::new(), job: job.clone(), generation };
        loop {
            place.path = root.join(format!("{job}.{}", place.generation));
            if !place.path.exists() {
                return place;
            }
            place.generation += 1;
        }
    }

    /// Makes it, ready for both ends.
    pub(super) fn create(&self) -> io::Result<()> {
        fs::create_dir_all(self.path.join(LOGS))?;
        for name in [ORDERS, RECORDS] {
            fs::File::create(self.path.join(name))?;
        }
        for name in [WAKE, NEWS] {
            mknodat(CWD, self.path.join(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        }
        // Last: a directory without it was never used.
        record::write_plainly(&self.path.join(ABOUT), &About { boot_id: proc::boot_id() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn job(&self) -> &JobId {
        &self.job
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it was made to its end.
    pub(super) fn is_whole(&self) -> bool {
        matches!(record::read::<About>(&self.path.join(ABOUT)), Ok(Some(_)))
    }

    /// Whether its processes may still be there.
    pub(super) fn is_of_this_boot(&self) -> bool {
        let about: Option<About> = record::read(&self.path.join(ABOUT)).ok().flatten();
        about.is_some_and(|about| about.boot_id == proc::boot_id())
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_in_order_and_never_used_twice() {
        let root = tempfile::tempdir().unwrap();
        let job = JobId::new("j1").unwrap();
        for wanted in [0, 0, 0] {
            let place = Place::unused(root.path(), &job, wanted);
            assert!(!place.is_whole());
            place.create().unwrap();
            assert!(place.is_whole() && place.is_of_this_boot());
        }
        fs::create_dir(root.path().join("lost+found")).unwrap();
        let all = Place::all(root.path()).unwrap();
        assert_eq!(all.iter().map(Place::generation).collect::<Vec<_>>(), [0, 1, 2]);
        let about = r#"{"boot_id":"another"}"#;
        fs::write(all[1].path().join(ABOUT), about).unwrap();
        assert!(!all[1].is_of_this_boot());
        all[1].remove().unwrap();
        assert_eq!(Place::all(root.path()).unwrap().len(), 2);
    }
}
