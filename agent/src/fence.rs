//! The newest controller that this agent has obeyed.

use std::io;
use std::path::{Path, PathBuf};

use model::Epoch;
use serde::{Deserialize, Serialize};

use crate::shim::record;

/// Remembers the highest epoch on disk, and refuses older ones.
#[derive(Debug)]
pub struct Fence {
    path: PathBuf,
    highest: Epoch,
}

#[derive(Default, Serialize, Deserialize)]
struct Kept {
    incarnation: u64,
    term: u64,
}

/// A controller that has been replaced.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// It is older than one that was obeyed.
    #[error("epoch {given} is older than {highest}, which this agent has obeyed")]
    Older {
        /// Its epoch.
        given: Epoch,
        /// The highest one.
        highest: Epoch,
    },
    /// The new epoch could not be remembered.
    #[error("the controller's epoch could not be saved")]
    Disk(#[source] io::Error),
}

impl Fence {
    /// Reads what an earlier life remembered.
    ///
    /// # Errors
    ///
    /// Whatever the file system says; `InvalidData` for a malformed file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let kept: Kept = record::read(path)?.unwrap_or_default();
        let highest = Epoch { incarnation: kept.incarnation, term: kept.term };
        Ok(Self { path: path.to_owned(), highest })
    }

    /// The highest epoch that was obeyed.
    #[must_use]
    pub fn highest(&self) -> Epoch {
        self.highest
    }

    /// Lets a controller's word in, or refuses an older one's.
    ///
    /// # Errors
    ///
    /// [`FenceError`] if it must not be obeyed.
    pub fn admit(&mut self, epoch: Epoch) -> Result<(), FenceError> {
        if epoch < self.highest {
            return Err(FenceError::Older { given: epoch, highest: self.highest });
        }
        if epoch > self.highest {
            let kept = Kept { incarnation: epoch.incarnation, term: epoch.term };
            record::write(&self.path, &kept).map_err(FenceError::Disk)?;
            self.highest = epoch;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_controller_is_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("epoch.json");
        let epoch = |incarnation, term| Epoch { incarnation, term };
        let mut fence = Fence::open(&path).unwrap();
        fence.admit(epoch(1, 7)).unwrap();
        fence.admit(epoch(1, 7)).unwrap();
        let mut fence = Fence::open(&path).unwrap();
        assert_eq!(fence.highest(), epoch(1, 7));
        assert!(matches!(fence.admit(epoch(1, 6)), Err(FenceError::Older { .. })));
        fence.admit(epoch(2, 1)).unwrap();
        assert!(fence.admit(epoch(1, 99)).is_err());
    }
}
