//! Attempts: who sits where, and how each seat ended.

use crate::Timestamp;
use crate::ids::NodeId;

/// One try at a task, holding seats on nodes.
///
/// It is over only when every seat has said so, or its silent seats were
/// replaced; until then its slots stay taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The task's generation, from 1.
    pub number: u32,
    /// When it was placed.
    pub placed: Timestamp,
    /// Where it stands as a whole.
    pub state: AttemptState,
    /// In rank order; seat 0 hosts the scheduler.
    pub seats: Vec<Seat>,
    /// Iteration to resume from.
    pub resume: Option<u64>,
    /// Port of the gang's scheduler on seat 0's node, as that seat offered it;
    /// 0 before, and for work without one. Kept here because a seat's `Start`
    /// must be derivable after seat 0 has moved on.
    pub port: u16,
    /// The first failure that was reported, if any.
    pub first_failure: Option<Failure>,
}

/// Where an attempt stands as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptState {
    /// Seats check what they need; seat 0 offers a port for the scheduler.
    Preparing,
    /// Every seat has been told to start.
    Running,
    /// Every seat has been told to stop; waits for each to say it has.
    Draining(Drain),
}

/// Why an attempt is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// A seat failed (`first_failure` says which), or another task of the job
    /// did for good (`first_failure` is `None`).
    Failed,
    /// Somebody cancelled the job.
    Cancelled,
    /// A node with one of its seats was lost.
    NodeLost,
    /// A node with one of its seats is being emptied: the task runs again
    /// elsewhere, unless every seat finishes first.
    Moved {
        /// When SIGKILL follows SIGTERM.
        kill_at: Timestamp,
    },
    /// Somebody restarted its stage: the task runs again, whatever comes of
    /// this attempt.
    Restarted {
        /// When SIGKILL follows SIGTERM.
        kill_at: Timestamp,
    },
}

/// A share of an attempt on one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Seat {
    /// The node.
    pub node: NodeId,
    /// First global rank here; the ranks are consecutive.
    pub first_rank: u32,
    /// Number of ranks here.
    pub ranks: u32,
    /// Device slots taken here, `ranks x slots_per_rank` of them.
    pub slots: Vec<u32>,
    /// Where it stands.
    pub state: SeatState,
}

/// Where a seat stands, as far as the controller knows.
#[derive(Clone, Debug, PartialEq)]
pub enum SeatState {
    /// Placed; the node has not answered.
    Assigned,
    /// Checked; `port` is the scheduler's offer of seat 0, 0 elsewhere.
    Prepared {
        /// Free port for the gang's scheduler.
        port: u16,
    },
    /// Its processes run.
    Running,
    /// Its processes are gone, by the node's word.
    Ended(SeatEnd),
    /// Its node fell silent and was given up (or came back with a new boot id).
    GivenUp,
}

impl SeatState {
    /// Whether nothing of this seat runs any more, as far as anyone can know.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self {
            Self::Assigned | Self::Prepared { .. } | Self::Running => false,
            Self::Ended(_) | Self::GivenUp => true,
        }
    }
}

/// How a seat ended.
#[derive(Clone, Debug, PartialEq)]
pub struct SeatEnd {
    /// Whether every rank finished its work.
    pub ok: bool,
    /// What it made (one-rank tasks).
    pub output: Output,
}

/// What a task made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// The attempt-named path that was handed to the engine; empty if none.
    pub path: String,
    /// Files with sizes and digests.
    pub files: Vec<FileRecord>,
    /// One line for people.
    pub summary: String,
}

/// A file and its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Path on the node.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// `blake3:` + hex.
    pub digest: String,
}

/// Who failed, where, why, with proof.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The node.
    pub node: NodeId,
    /// Global rank; `None` for what is not a rank's (scheduler, preparation).
    pub rank: Option<u32>,
    /// What happened.
    pub cause: Cause,
    /// When, by the node's clock.
    pub at: Timestamp,
    /// One sentence.
    pub message: String,
    /// The next thing to try; may be empty.
    pub hint: String,
    /// Last lines that prove it, oldest first; at most 20.
    pub evidence: Vec<String>,
}

/// What happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It returned this code, not 0 (or 0 before its work was done).
    Exit(i32),
    /// This signal ended it.
    Signal(i32),
    /// It could not be started, or a check refused it.
    Refused,
    /// Its node was lost.
    NodeLost,
    /// It made no progress.
    Hang,
    /// It did not end within its time limit.
    Overrun,
}

impl Cause {
    /// Whether trying again with the same input may help.
    ///
    /// A refusal and an exit code of an engine are the user's to mend: one
    /// that refused its input will refuse it again. The planner knows more of
    /// training and of commands.
    #[must_use]
    pub fn is_transient(self) -> bool {
        match self {
            Self::Signal(_) | Self::NodeLost | Self::Hang => true,
            Self::Exit(_) | Self::Refused | Self::Overrun => false,
        }
    }
}

/// An attempt that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptSummary {
    /// Its number.
    pub number: u32,
    /// When it was placed.
    pub placed: Timestamp,
    /// When its last seat ended.
    pub ended: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// Its nodes in seat order.
    pub nodes: Vec<NodeId>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All seats finished their work.
    Succeeded,
    /// It failed.
    Failed(Failure),
    /// Somebody cancelled the job.
    Cancelled,
    /// It was stopped so that its task can run again; no failure.
    Requeued,
}
