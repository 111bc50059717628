//! Nodes, events, checkpoints, plans and log lines in the JSON contract.

use std::collections::BTreeMap;

use proto::v1;
use serde::Serialize;

use super::npu::Npus;
use super::{given, known};

/// A node.
#[derive(Debug, Serialize)]
pub(crate) struct Node {
    id: String,
    hostname: String,
    address: String,
    /// unheard, ready, suspect, lost
    phase: String,
    version: String,
    /// ascend, cpu
    device: &'static str,
    slots: u32,
    slots_used: u32,
    /// per slot the number of its group, where groups are known
    slot_groups: Vec<u32>,
    labels: BTreeMap<String, String>,
    spare: bool,
    cpus: u32,
    memory: u64,
    memory_free: Option<u64>,
    disk_free: Option<u64>,
    last_heard_ms: Option<u64>,
    clock_ahead_ms: Option<i64>,
    attempts: Vec<String>,
    quarantined: Vec<String>,
    cordon: Option<Cordon>,
    fence: Option<Fence>,
    npus: Option<Npus>,
}

/// Why a node gets no new work.
#[derive(Debug, Serialize)]
struct Cordon {
    reason: Option<String>,
    by: String,
    at_ms: Option<u64>,
    draining: bool,
    deadline_ms: Option<u64>,
    empty: bool,
}

/// Who says that a host does not run any more.
#[derive(Debug, Serialize)]
struct Fence {
    reason: Option<String>,
    by: String,
    at_ms: Option<u64>,
}

/// What a node's slots stand for.
pub(crate) fn device(node: &v1::NodeView) -> &'static str {
    match node.device() {
        v1::DeviceKind::Ascend => "ascend",
        v1::DeviceKind::Cpu => "cpu",
        v1::DeviceKind::Unspecified => "unknown",
    }
}

impl From<v1::NodeView> for Node {
    fn from(node: v1::NodeView) -> Self {
        Self {
            device: device(&node),
            id: node.id,
            hostname: node.hostname,
            address: node.address,
            phase: node.phase,
            version: node.version,
            slots: node.slots,
            slots_used: node.slots_used,
            slot_groups: node.slot_groups,
            labels: node.labels.into_iter().collect(),
            spare: node.spare,
            cpus: node.cpus,
            memory: node.memory,
            memory_free: node.health.as_ref().map(|health| health.memory_free),
            disk_free: node.health.as_ref().map(|health| health.disk_free),
            last_heard_ms: known(node.last_heard_ms),
            clock_ahead_ms: node.clock_ahead_ms,
            attempts: node.attempts,
            quarantined: node.quarantined,
            npus: node.npus.map(Into::into),
            cordon: node.cordon.map(Into::into),
            fence: node.fence.map(|fence| Fence {
                reason: given(fence.reason),
                by: fence.by,
                at_ms: known(fence.at_ms),
            }),
        }
    }
}

impl From<v1::CordonView> for Cordon {
    fn from(view: v1::CordonView) -> Self {
        Self {
            reason: given(view.reason),
            by: view.by,
            at_ms: known(view.at_ms),
            draining: view.draining,
            deadline_ms: known(view.deadline_ms),
            empty: view.empty,
        }
    }
}

/// An event, one record of a stream.
#[derive(Debug, Serialize)]
pub(crate) struct Event {
    job: String,
    seq: u64,
    at_ms: u64,
    /// info, warn, error
    level: String,
    kind: String,
    stage: Option<String>,
    node: Option<String>,
    rank: Option<u32>,
    message: String,
    evidence: Vec<String>,
}

impl From<v1::EventView> for Event {
    fn from(event: v1::EventView) -> Self {
        Self {
            job: event.job,
            seq: event.seq,
            at_ms: event.at_ms,
            level: event.level,
            kind: event.kind,
            stage: given(event.stage),
            node: given(event.node),
            rank: event.rank,
            message: event.message,
            evidence: event.evidence,
        }
    }
}

/// A checkpoint.
#[derive(Debug, Serialize)]
pub(crate) struct Checkpoint {
    job: String,
    stage: String,
    iteration: u64,
    complete: bool,
    completed_ms: Option<u64>,
    shards: u32,
    shards_expected: u32,
    bytes: u64,
    directory: String,
    pinned: bool,
    broken: bool,
    removing: bool,
}

impl From<v1::CheckpointView> for Checkpoint {
    fn from(view: v1::CheckpointView) -> Self {
        Self {
            job: view.job,
            stage: view.stage,
            iteration: view.iteration,
            complete: view.complete,
            completed_ms: known(view.completed_ms),
            shards: view.shards,
            shards_expected: view.shards_expected,
            bytes: view.bytes,
            directory: view.directory,
            pinned: view.pinned,
            broken: view.broken,
            removing: view.removing,
        }
    }
}

/// What a submission would do.
#[derive(Debug, Serialize)]
pub(crate) struct Plan {
    name: String,
    stages: Vec<PlannedStage>,
    warnings: Vec<String>,
    unseen: Vec<String>,
    corrections: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PlannedStage {
    name: String,
    kind: String,
    after: Vec<String>,
    reused_from: Option<String>,
    tasks: Vec<PlannedTask>,
}

#[derive(Debug, Serialize)]
struct PlannedTask {
    label: String,
    nodes: u32,
    ranks_per_node: u32,
    placement: Vec<String>,
    commands: Vec<Command>,
}

#[derive(Debug, Serialize)]
struct Command {
    process: String,
    argv: Vec<String>,
}

impl From<v1::PlanReply> for Plan {
    fn from(plan: v1::PlanReply) -> Self {
        let command = |line: v1::CommandLine| Command { process: line.process, argv: line.argv };
        let task = |task: v1::PlannedTask| PlannedTask {
            label: task.label,
            nodes: task.nodes,
            ranks_per_node: task.ranks_per_node,
            placement: task.placement,
            commands: task.commands.into_iter().map(command).collect(),
        };
        let stage = |stage: v1::PlannedStage| PlannedStage {
            name: stage.name,
            kind: stage.kind,
            after: stage.after,
            reused_from: given(stage.reused_from),
            tasks: stage.tasks.into_iter().map(task).collect(),
        };
        Self {
            name: plan.name,
            stages: plan.stages.into_iter().map(stage).collect(),
            warnings: plan.warnings,
            unseen: plan.unseen,
            corrections: plan.corrections,
        }
    }
}

/// A line of a log, one record of a stream.
#[derive(Debug, Serialize)]
pub(crate) struct LogLine<'a> {
    pub(crate) stage: &'a str,
    pub(crate) attempt: &'a str,
    pub(crate) node: &'a str,
    /// scheduler, worker_<rank>, stdout, stderr
    pub(crate) source: &'a str,
    /// Byte at which the line begins.
    pub(crate) offset: u64,
    /// When it arrived at the controller, to the second.
    pub(crate) at_ms: Option<u64>,
    pub(crate) text: std::borrow::Cow<'a, str>,
}
