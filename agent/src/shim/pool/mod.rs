//! One shim for all one-rank commands of a job on a node.
//!
//! Agent and shim talk through two append-only files in the pool's directory,
//! each with one writer: the agent's `orders` and the shim's `records`. Either
//! may die at any moment; whoever comes next reads both from the beginning. A
//! named pipe in each direction only says that there is something to read.
//!
//! Nothing here is synced: what the files describe are processes, which end
//! with the kernel that would have to lose the files. What must survive that,
//! an attempt's result, goes through the agent's spool, which is synced.

mod hold;
mod journal;
mod running;
pub mod strays;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::record::{Exit, ProcId};

pub use hold::hold;
pub use journal::{Reader, Writer};

/// First argument of a pooled shim.
pub const FLAG: &str = "--pool";
/// First argument of the process that stays.
pub const HOLD: &str = "--hold-pool";
/// What the agent orders; [`Order`]s.
pub const ORDERS: &str = "orders";
/// What the shim did; [`Record`]s.
pub const RECORDS: &str = "records";
/// Locked by the shim while it lives.
pub const LOCK: &str = "lock";
/// Named pipe: there are orders.
pub const WAKE: &str = "wake";
/// Named pipe: there are records.
pub const NEWS: &str = "news";
/// Directory of the tasks' output.
pub const LOGS: &str = "logs";
/// The variable by which a task's processes are recognised; see [`mark`].
pub const MARK: &str = "QCTL_TASK";

/// What the agent wants. Each attempt is started at most once, by whichever shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// What following tasks share.
    Share(Shared),
    /// Start it when there is room.
    Start(Task),
    /// End it: SIGTERM, and SIGKILL after the grace.
    Stop {
        /// Which attempt.
        attempt: String,
        /// Milliseconds between the two.
        grace_ms: u64,
    },
    /// Give it back, unless it has begun.
    Recall {
        /// Which attempt.
        attempt: String,
    },
    /// Its start was reported. The shim passes over this.
    Told {
        /// Which attempt.
        attempt: String,
    },
    /// The controller needs it no more. The shim passes over this.
    Forget {
        /// Which attempt.
        attempt: String,
    },
    /// It has ended, and no shim will say so. The shim does not begin it.
    Lost {
        /// Which attempt.
        attempt: String,
        /// As far as it is known.
        exit: Exit,
    },
    /// Nothing will follow: end when nothing is left.
    Close,
}

/// What the tasks of a job have in common, written once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Environment but for the task's own variables.
    pub env: BTreeMap<String, String>,
}

/// One command to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Which attempt.
    pub attempt: String,
    /// Position of what it shares among the [`Order::Share`]s.
    pub shared: usize,
    /// Its own variables.
    pub env: BTreeMap<String, String>,
    /// It waits while so many others of the pool run; 0 = it waits for none.
    pub at_once: u32,
}

/// What the shim says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A shim has taken the pool: what was begun before is without one.
    Took(ProcId),
    /// These are about to be started: no other shim may.
    Begun(Vec<String>),
    /// It runs.
    Started {
        /// Which attempt.
        attempt: String,
        /// Its process; also its process group.
        id: ProcId,
        /// Number of its log.
        log: u64,
    },
    /// It has written something: its log is its own from here on.
    Spoke {
        /// Which attempt.
        attempt: String,
    },
    /// It was given back: no shim begins it.
    Returned {
        /// Which attempt.
        attempt: String,
    },
    /// It has ended, and nothing of it is left.
    Exited {
        /// Which attempt.
        attempt: String,
        /// How.
        exit: Exit,
        /// Its log, unless that is empty.
        log: Option<u64>,
        /// For how long its process ran, in milliseconds.
        #[serde(default)]
        ran_ms: Option<u64>,
    },
}

/// What no other task on this host carries: attempts of two clusters may have one name.
#[must_use]
pub fn mark(dir: &Path, attempt: &str) -> String {
    dir.join(attempt).to_string_lossy().into_owned()
}

/// Where a log lies in a pool's directory.
#[must_use]
pub fn log_path(dir: &Path, log: u64) -> PathBuf {
    dir.join(LOGS).join(log.to_string())
}
