//! One attempt of a pool, as the agent knows it.

use std::path::Path;
use std::time::Instant;

use proto::v1::{Ended, Failure, Output, Returned, report::What};

use crate::launch::rank_log;
use crate::seat::failure;
use crate::shim::pool::log_path;
use crate::shim::record::{Exit, ProcId, Process};

/// One attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempt {
    pub(super) stage: Stage,
    /// Grace of the stop that was asked for, in milliseconds.
    pub(super) stop: Option<u64>,
    /// Number of its log, once it has one of its own.
    pub(super) log: Option<u64>,
    /// Whether its start was reported.
    pub(super) told: bool,
    /// For how long its process ran, in milliseconds, once it has ended.
    pub(super) ran_ms: Option<u64>,
}

/// How far an attempt is.
#[derive(Clone, Debug, Default)]
pub(super) enum Stage {
    /// Ordered; no shim has begun it.
    #[default]
    Ordered,
    /// A shim was about to start it.
    Begun,
    /// It runs.
    Running {
        /// Its process.
        id: ProcId,
        /// Since when the agent knows.
        since: Instant,
        /// The log that it was given.
        given: Option<u64>,
    },
    /// It has ended, which was reported.
    Over(Exit),
    /// It was given back before it began, which was reported.
    Returned,
    /// It could not be started at all, which was reported.
    Refused(Box<Failure>),
}

impl Attempt {
    pub(super) fn is_over(&self) -> bool {
        match self.stage {
            Stage::Over(_) | Stage::Returned | Stage::Refused(_) => true,
            Stage::Ordered | Stage::Begun | Stage::Running { .. } => false,
        }
    }

    /// The last word about it; `None` before its end.
    pub(super) fn last_word(&self, node: &str, dir: &Path) -> Option<What> {
        let output = Some(Output::default());
        let exit = match &self.stage {
            Stage::Over(exit) => exit,
            Stage::Returned => return Some(What::Returned(Returned {})),
            Stage::Refused(failure) => {
                let failure = Some((**failure).clone());
                return Some(What::Ended(Ended { output, failure, ..Ended::default() }));
            }
            Stage::Ordered | Stage::Begun | Stage::Running { .. } => return None,
        };
        // One that left because it was told to may be far from done.
        let ok = exit.clean() && !(self.stop.is_some() && exit.stopping);
        // After a stop that was asked for, an unfinished attempt is no failure.
        let failure = (!ok && self.stop.is_none()).then(|| failure::of_process(node, &self.process(dir), exit));
        Some(What::Ended(Ended { ok, output, failure, logs: None, ran_ms: self.ran_ms }))
    }

    fn process(&self, dir: &Path) -> Process {
        let log = self.log.map(|log| log_path(dir, log)).unwrap_or_default();
        Process { name: rank_log(0), rank: Some(0), stdout: log.clone(), stderr: log, ..Process::default() }
    }
}
