//! What all seats of a node share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use proto::v1::{Progress, progress};

use crate::probe::Probe;
use crate::push::Logs;
use crate::spool::Spool;

/// What all seats of a node share.
#[derive(Debug)]
pub struct Host {
    /// The node's id.
    pub node: String,
    /// Address at which other nodes reach this one.
    pub address: String,
    /// Where the engines' programs and the shim are.
    pub bin_dir: PathBuf,
    /// Directory of the seats' directories.
    pub attempts: PathBuf,
    /// Where agents of one host remember the ports that they handed out.
    pub ports: PathBuf,
    /// Reports that must arrive.
    pub spool: Spool,
    /// Progress, of which only the newest matters.
    pub progress: Board,
    /// Logs to push.
    pub logs: Logs,
    /// The node's NPUs.
    pub probe: Probe,
}

/// The newest progress of each seat that was not sent yet.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<String, progress::What>>);

impl Board {
    /// Replaces what is known of `attempt`.
    pub fn post(&self, attempt: &str, what: progress::What) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt.to_owned(), what);
    }

    /// Takes all that was posted since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Progress> {
        let taken = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        taken.into_iter().map(|(attempt, what)| Progress { attempt, what: Some(what) }).collect()
    }
}
