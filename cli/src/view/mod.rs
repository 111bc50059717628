//! The JSON contract: names that programs may rely on.
//!
//! Times are milliseconds since 1970 by the controller's clock and `null` while
//! unknown; sizes are bytes. Fields are added, never renamed or taken away.

mod job;
mod other;

pub(crate) use job::{Failed, Job, JobLine};
pub(crate) use other::{Checkpoint, Event, LogLine, Node, Plan, device};

use serde::Serialize;

/// Version of the contract.
pub(crate) const VERSION: &str = "qctl/v1";

/// A document: the contract's version, then its fields.
#[derive(Debug, Serialize)]
pub(crate) struct Document<T> {
    api_version: &'static str,
    #[serde(flatten)]
    body: T,
}

impl<T> Document<T> {
    pub(crate) fn new(body: T) -> Self {
        Self { api_version: VERSION, body }
    }
}

/// A document of jobs.
#[derive(Debug, Serialize)]
pub(crate) struct Jobs {
    pub(crate) jobs: Vec<JobLine>,
}

/// A document of nodes.
#[derive(Debug, Serialize)]
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Node>,
}

/// A document of checkpoints.
#[derive(Debug, Serialize)]
pub(crate) struct Checkpoints {
    pub(crate) checkpoints: Vec<Checkpoint>,
}

fn known(ms: u64) -> Option<u64> {
    Some(ms).filter(|ms| *ms > 0)
}

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
