//! The choices: what should happen, given what is known.
//!
//! [`step`] is pure: no clock, no randomness, no input or output, no hash-map
//! iteration. The driver saves what it returns before it answers anybody or
//! sends an effect.
//!
//! What an agent must hold to, so that effects may be lost and repeated:
//! - `Prepare`, `Start` and `Stop` of what is done already change nothing; a
//!   later `Stop` can only bring the deadline nearer.
//! - Every `Stop` is answered with `Ended` in the end, also when the attempt
//!   has ended before or was never heard of; a `Start` after that is refused.
//! - `Recall` gives back what has not begun, for good: a `Start` after that is
//!   refused. It is passed over for anything else.
//! - An attempt is in `live` from the moment its assignment was taken until
//!   `Forget`; what still runs is not forgotten.
//! - Reports of one session arrive in order, and before the beats that were
//!   sent after them; an unacknowledged one is sent again in the next session.

mod ahead;
pub mod backfill;
mod cancel;
mod checkpoint;
mod cordon;
mod fence;
mod files;
mod index;
pub mod input;
#[cfg(any(test, feature = "check"))]
pub mod invariants;
mod keep;
mod limit;
mod mutation;
mod order;
pub mod phase;
pub mod place;
pub mod reason;
mod report;
mod restart;
mod retry;
mod room;
mod schedule;
mod session;
mod settle;
mod silence;
mod slots;
mod spare;
mod step;
mod submit;
mod text;
mod why;
pub mod world;

pub use ahead::Ahead;
pub use files::{Files, written};
pub use input::{
    AboutCheckpoint, CheckpointRefusal, Effect, Input, Keep, Reply, Report, Restart, RestartRefusal, Step, Why, Write,
};
pub use mutation::Mutation;
pub use phase::{JobPhase, StagePhase, TaskPhase};
pub use reason::Reason;
pub use step::{conclude, step, take};
pub use why::{explain, job_reason, stage_reason, task_reason};
pub use world::{NodeView, Policy, World};
