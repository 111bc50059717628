//! Jobs made for tests.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use model::{
    Body, DeviceKind, History, Job, JobId, JobName, Retries, Runtime, Stage, StageKind, StageName, Task, TaskShape,
    TaskState, Timestamp,
};

/// A job of one `run` task on any CPU node.
pub(crate) fn job(id: &str, name: &str, submitted: u64) -> Job {
    let task = Task {
        label: "run".into(),
        closing: false,
        shape: TaskShape { nodes: 1, ranks_per_node: 1, slots_per_rank: 0, pinned: None },
        body: Body::Run { argv: vec!["true".into()] },
        retries: Retries::new(0),
        limit_ms: None,
        state: TaskState::Waiting { not_before: None },
        history: History::default(),
    };
    Job {
        id: JobId::new(id).unwrap(),
        name: JobName::new(name).unwrap(),
        owner: "ada".into(),
        priority: 0,
        submitted: Timestamp(submitted),
        ended: None,
        idempotency_key: None,
        spec_text: String::new(),
        runtime: Runtime { workdir: "/".into(), device: DeviceKind::Cpu, ..Runtime::default() },
        placement: Default::default(),
        stages: vec![Stage {
            name: StageName::new("run").unwrap(),
            kind: StageKind::Run,
            after: Vec::new(),
            digest: None,
            reused: None,
            tasks: vec![task],
            checkpoints: BTreeMap::new(),
        }],
        cancel: None,
        restarts: Vec::new(),
        last_event: 0,
    }
}
