//! The nouns of qctl, and what may happen to them.
//!
//! Knows no serialisation format, no clock, no network: plain data whose
//! invariants are checked where they are built.

pub mod access;
pub mod attempt;
pub mod checkpoint;
pub mod event;
pub mod history;
pub mod ids;
pub mod job;
mod labels;
pub mod layout;
pub mod node;
pub mod retries;
pub mod shape;
pub mod stages;

pub use access::{Certificate, Revocation, Token};
pub use attempt::{
    Attempt, AttemptState, AttemptSummary, Cause, Drain, Failure, FileRecord, Outcome, Output, Seat, SeatEnd, SeatState,
};
pub use checkpoint::{Checkpoint, ShardRecord};
pub use event::Event;
pub use history::History;
pub use ids::{AttemptId, Epoch, JobId, JobName, NameError, NodeId, StageName, TaskId};
pub use job::{
    Body, Cancel, DeviceKind, EngineBody, Job, Launcher, Placement, PreflightBody, Restart, Runtime, Stage, StageKind,
    Task, TaskShape, TaskState, Tool, TrainBody,
};
pub use labels::{LabelError, Labels};
pub use layout::{LayoutError, Parallel};
pub use node::{Cordon, Fence, Liveness, Node, Purpose};
pub use retries::Retries;
pub use shape::{Dtype, ModelShape};
pub use stages::{Deal, Stages};

/// Milliseconds since the Unix epoch, as the controller's clock reads them.
///
/// Only ever an argument: nothing in the core reads a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns this instant moved forward by `millis`.
    #[must_use]
    pub fn after_ms(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Returns the milliseconds from `earlier` to this instant, or 0.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
