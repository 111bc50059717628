//! The JSON contract: names that programs may rely on.
//!
//! Times are milliseconds since 1970 by the controller's clock and `null` while
//! unknown; sizes are bytes. Fields are added, never renamed or taken away.

#[cfg(test)]
mod contract;
mod job;
mod npu;
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

#[cfg(test)]
mod tests {
    use proto::v1;
    use serde_json::json;

    use super::*;

    /// Every name of the contract, in its place; taking one away must fail here.
    #[test]
    fn a_job_has_the_agreed_names() {
        let failure =
            v1::Failure { node: "n1".into(), rank: Some(3), cause: "exit".into(), code: 1, ..Default::default() };
        let failure = v1::FailureView { stage: "train".into(), attempt: "j1.train.0.1".into(), failure: Some(failure) };
        let task = v1::TaskView {
            label: "all".into(),
            seats: vec![v1::SeatView { node: "n1".into(), first_rank: 2, ranks: 2, phase: "running".into() }],
            history: vec![v1::AttemptView { number: 1, outcome: "failed".into(), ..Default::default() }],
            ..Default::default()
        };
        let stage = v1::StageView {
            name: "train".into(),
            started_ms: 5,
            train: Some(v1::TrainProgress { iteration: 2, iterations: 9, ..Default::default() }),
            task_views: vec![task],
            ..Default::default()
        };
        let job = v1::JobView { id: "j1".into(), stages: vec![stage], failure: Some(failure), ..Default::default() };
        let failed = json!({
            "stage": "train", "attempt": "j1.train.0.1", "node": "n1", "rank": 3, "cause": "exit", "code": 1,
            "at_ms": null, "message": "", "hint": null, "evidence": [],
        });
        let task = json!({
            "label": "all", "phase": "", "reason": null, "attempt": null, "summary": null, "files": [], "failure": null,
            "seats": [{ "node": "n1", "first_rank": 2, "ranks": 2, "phase": "running" }],
            "history": [{
                "number": 1, "outcome": "failed", "placed_ms": null, "ended_ms": null, "nodes": [], "failure": null,
            }],
        });
        let stage = json!({
            "name": "train", "kind": "", "phase": "", "reason": null, "after": [], "reused_from": null, "started_ms": 5,
            "ended_ms": null, "tasks_total": 0, "tasks_done": 0, "tasks_running": 0, "progress": null,
            "train": {
                "iteration": 2, "iterations": 9, "consumed_samples": 0, "loss": 0.0, "grad_norm": 0.0,
                "learning_rate": 0.0, "step_ms": 0.0,
            },
            "tokens_per_step": null, "tasks": [task],
        });
        let wanted = json!({
            "api_version": "qctl/v1", "id": "j1", "name": "", "owner": "", "priority": 0, "phase": "", "reason": null,
            "submitted_ms": null, "ended_ms": null, "workdir": "", "stages": [stage], "failure": failed, "spec": "",
        });
        assert_eq!(serde_json::to_value(Document::new(Job::from(job))).unwrap(), wanted);
    }
}
