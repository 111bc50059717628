//! Agents' sessions: who is connected, and what they say.

mod decode;
mod errands;
mod progress;
mod registry;
mod service;
mod session;
mod survey;

pub use errands::{ErrandFailed, Errands};
pub use progress::{Latest, Progress};
pub use registry::Registry;
pub use service::Sessions;
pub use survey::{SurveyFailed, Surveys};
