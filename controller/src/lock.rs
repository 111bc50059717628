//! One controller a state directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Why the directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another controller holds it.
    #[error("another controller runs on `{}`", .0.display())]
    Held(PathBuf),
    /// The lock file cannot be used.
    #[error("`{}` could not be locked", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LockError {
    /// Returns the next thing to try, printed as `hint: …`.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Held(_) => Some("stop it, or choose another --state-dir".to_owned()),
            Self::Io { .. } => None,
        }
    }
}

/// Held until dropped; the kernel lets go of it when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks `state_dir`, which must be there.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] if another process has it.
    pub fn take(state_dir: &Path) -> Result<Self, LockError> {
        let path = state_dir.join("controller.lock");
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(|source| LockError::Io { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held(state_dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(LockError::Io { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_controller_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let refused = Lock::take(dir.path()).unwrap_err();
        assert!(matches!(refused, LockError::Held(_)) && refused.hint().is_some());
        drop(first);
        Lock::take(dir.path()).unwrap();
    }
}
