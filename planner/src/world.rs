//! Everything the planner knows.

use std::collections::{BTreeMap, BTreeSet};

use model::{AttemptId, DeviceKind, Job, JobId, Liveness, Node, NodeId, Timestamp};

/// How long things may take, and where ports come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Silence after which a node gets no new work, in milliseconds.
    pub suspect_after_ms: u64,
    /// Silence after which a node's one-rank work may run elsewhere, and a
    /// gang's silent seat may be given up once no reachable seat runs.
    pub lost_after_ms: u64,
    /// Extra time a silent seat keeps after its reachable peers stopped, for a
    /// save in flight.
    pub fence_margin_ms: u64,
    /// First back-off of a retried task; doubles up to 60 s.
    pub retry_backoff_ms: u64,
    /// Grace of a stop after a rank's death.
    pub failure_grace_ms: u64,
    /// One-rank processor-only tasks that one node runs at once.
    pub engine_tasks_per_node: u32,
    /// Ended jobs kept in memory and in listings.
    pub keep_ended_jobs: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            suspect_after_ms: 5_000,
            lost_after_ms: 60_000,
            fence_margin_ms: 60_000,
            retry_backoff_ms: 1_000,
            failure_grace_ms: 1_000,
            engine_tasks_per_node: 2,
            keep_ended_jobs: 1_000,
        }
    }
}

/// All jobs and nodes. Domain state with one owner: the driver.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// How long things may take.
    pub policy: Policy,
    /// Nodes by id; records are stored, the rest is this leader's own view.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Jobs by id, ended ones included.
    pub jobs: BTreeMap<JobId, Job>,
    /// Attempts that agents run and this controller does not know: shown,
    /// never stopped.
    pub quarantined: BTreeSet<(NodeId, AttemptId)>,
    /// When this leader began; deadlines about silence start here.
    pub since: Timestamp,
}

/// A node, and what this leader has seen of it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// The stored record.
    pub record: Node,
    /// How far it is trusted to answer.
    pub liveness: Liveness,
    /// When it last spoke, or when this leader began.
    pub last_heard: Timestamp,
    /// Number of its present session, larger for later ones; `None` without one.
    pub session: Option<u64>,
    /// Attempts that its last beat or hello said it runs.
    pub live: BTreeSet<AttemptId>,
}

impl World {
    /// An empty world whose leader began at `since`.
    #[must_use]
    pub fn new(policy: Policy, since: Timestamp) -> Self {
        Self { policy, since, ..Self::default() }
    }

    /// Adds a stored node that this leader has not heard yet.
    pub fn restore_node(&mut self, record: Node) {
        let since = self.since;
        self.nodes.insert(
            record.id.clone(),
            NodeView { record, liveness: Liveness::Unheard, last_heard: since, session: None, live: BTreeSet::new() },
        );
    }

    /// Adds a stored job.
    pub fn restore_job(&mut self, job: Job) {
        self.jobs.insert(job.id.clone(), job);
    }

    /// Nodes that may get new work of `device` kind, in id order.
    pub fn ready(&self, device: DeviceKind) -> impl Iterator<Item = &NodeView> {
        self.nodes.values().filter(move |n| n.liveness == Liveness::Ready && n.record.device == device)
    }
}
