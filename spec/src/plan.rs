//! From a spec and what agents saw to stages and tasks.
//!
//! Plain data for the planner: what is run, how wide, after what, and a digest
//! by which an unchanged stage is recognised.

mod compile;
mod digest;
mod outline;
mod pipeline;
mod shards;
mod survey;
mod weights;

pub use compile::compile;
pub use outline::{Outline, outline};
pub use pipeline::{Body, Kind, Pipeline, PreflightBody, StagePlan, TaskPlan, TrainBody};
pub use survey::{
    DataFormat, DatasetSurvey, FileSurvey, ModelSurvey, RowGroup, Survey, TokenizerSurvey, Wanted, wanted,
};
