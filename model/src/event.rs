//! What happened to a job, kept for people.

use crate::Timestamp;
use crate::ids::{JobId, NodeId, StageName};

/// One line of a job's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The job.
    pub job: JobId,
    /// 1, 2, 3, … within the job.
    pub seq: u64,
    /// When, by the controller's clock.
    pub at: Timestamp,
    /// How bad.
    pub level: Level,
    /// What kind of thing happened.
    pub kind: Kind,
    /// Stage, if it is about one.
    pub stage: Option<StageName>,
    /// Node, if it is about one.
    pub node: Option<NodeId>,
    /// Rank, if it is about one.
    pub rank: Option<u32>,
    /// One sentence.
    pub message: String,
    /// Lines that prove it; at most 20.
    pub evidence: Vec<String>,
}

/// How bad an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// As expected.
    Info,
    /// Worth a look.
    Warn,
    /// Something failed.
    Error,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The job was accepted.
    Submitted,
    /// A stage was taken over from an earlier job.
    StageReused,
    /// An attempt was placed.
    AttemptPlaced,
    /// All seats of an attempt run.
    AttemptStarted,
    /// An attempt adopted after its agent restarted.
    AttemptAdopted,
    /// The first failure in an attempt.
    AttemptFailed,
    /// A task will be tried again.
    TaskRetried,
    /// A stage ended well.
    StageSucceeded,
    /// A stage failed.
    StageFailed,
    /// A checkpoint is complete.
    CheckpointCompleted,
    /// Somebody wants a checkpoint kept.
    CheckpointPinned,
    /// A checkpoint may be removed again.
    CheckpointUnpinned,
    /// A checkpoint was read to its last byte and is whole.
    CheckpointVerified,
    /// A checkpoint was read and is broken.
    CheckpointBroken,
    /// A checkpoint is removed.
    CheckpointRemoved,
    /// Something looks wrong.
    Warning,
    /// Somebody asked to cancel.
    CancelAsked,
    /// The job ended well.
    JobSucceeded,
    /// The job failed.
    JobFailed,
    /// The job was cancelled.
    JobCancelled,
    /// A node of the job fell silent.
    NodeSuspected,
    /// A node of the job was lost.
    NodeLost,
    /// A node came back.
    NodeReturned,
    /// A node of the job gets no new work.
    NodeCordoned,
    /// A node of the job is being emptied.
    NodeDraining,
    /// A node of the job does not run any more, by an operator's word.
    NodeFenced,
    /// A node of the job is kept for replacements from now on.
    NodeSpared,
    /// A node of the job gets new work again.
    NodeUncordoned,
    /// An attempt is stopped so that its task can run again.
    AttemptRequeued,
    /// Somebody restarted the job.
    Restarted,
}

impl Kind {
    /// All kinds, in declaration order.
    pub const ALL: [Self; 30] = [
        Self::Submitted,
        Self::StageReused,
        Self::AttemptPlaced,
        Self::AttemptStarted,
        Self::AttemptAdopted,
        Self::AttemptFailed,
        Self::TaskRetried,
        Self::StageSucceeded,
        Self::StageFailed,
        Self::CheckpointCompleted,
        Self::CheckpointPinned,
        Self::CheckpointUnpinned,
        Self::CheckpointVerified,
        Self::CheckpointBroken,
        Self::CheckpointRemoved,
        Self::Warning,
        Self::CancelAsked,
        Self::JobSucceeded,
        Self::JobFailed,
        Self::JobCancelled,
        Self::NodeSuspected,
        Self::NodeLost,
        Self::NodeReturned,
        Self::NodeCordoned,
        Self::NodeDraining,
        Self::NodeFenced,
        Self::NodeSpared,
        Self::NodeUncordoned,
        Self::AttemptRequeued,
        Self::Restarted,
    ];

    /// The stable name that listings and the wire use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::StageReused => "stage-reused",
            Self::AttemptPlaced => "attempt-placed",
            Self::AttemptStarted => "attempt-started",
            Self::AttemptAdopted => "attempt-adopted",
            Self::AttemptFailed => "attempt-failed",
            Self::TaskRetried => "task-retried",
            Self::StageSucceeded => "stage-succeeded",
            Self::StageFailed => "stage-failed",
            Self::CheckpointCompleted => "checkpoint-completed",
            Self::CheckpointPinned => "checkpoint-pinned",
            Self::CheckpointUnpinned => "checkpoint-unpinned",
            Self::CheckpointVerified => "checkpoint-verified",
            Self::CheckpointBroken => "checkpoint-broken",
            Self::CheckpointRemoved => "checkpoint-removed",
            Self::Warning => "warning",
            Self::CancelAsked => "cancel-asked",
            Self::JobSucceeded => "job-succeeded",
            Self::JobFailed => "job-failed",
            Self::JobCancelled => "job-cancelled",
            Self::NodeSuspected => "node-suspected",
            Self::NodeLost => "node-lost",
            Self::NodeReturned => "node-returned",
            Self::NodeCordoned => "node-cordoned",
            Self::NodeDraining => "node-draining",
            Self::NodeFenced => "node-fenced",
            Self::NodeSpared => "node-spared",
            Self::NodeUncordoned => "node-uncordoned",
            Self::AttemptRequeued => "attempt-requeued",
            Self::Restarted => "restarted",
        }
    }
}
