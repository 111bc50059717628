//! What people see of the world.

mod engine;
mod job;
mod stage;
mod task;

use model::{Cordon, JobId, Liveness, NodeId, Purpose};
use planner::World;
use proto::v1;

pub(crate) use job::{Detail, job, list};

use crate::sessions::Progress;

/// All nodes, by id.
pub(crate) fn nodes(world: &World, progress: &Progress) -> Vec<v1::NodeView> {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let one = |view: &planner::NodeView| {
        let record = &view.record;
        let phase = match view.liveness {
            Liveness::Unheard => "unheard",
            Liveness::Ready => "ready",
            Liveness::Suspect => "suspect",
            Liveness::Lost => "lost",
        };
        let quarantined = world.quarantined.iter().filter(|(node, _)| *node == record.id);
        v1::NodeView {
            id: record.id.to_string(),
            hostname: record.hostname.clone(),
            address: record.address.clone(),
            phase: phase.to_owned(),
            version: record.version.clone(),
            device: v1::DeviceKind::from(record.device).into(),
            slots: record.slots,
            slots_used: count(world.slots_taken(&record.id).len()),
            cpus: record.cpus,
            memory: record.memory,
            last_heard_ms: view.last_heard.0,
            health: progress.health(&record.id),
            npus: progress.npus(&record.id),
            clock_ahead_ms: progress.clock(&record.id),
            attempts: world.seats_on(&record.id).map(|attempt| attempt.to_string()).collect(),
            quarantined: quarantined.map(|(_, attempt)| attempt.to_string()).collect(),
            labels: record.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            spare: record.is_spare(),
            slot_groups: record.groups.clone(),
            fence: record.fence.as_ref().map(|fence| v1::FenceView {
                reason: fence.reason.clone(),
                by: fence.by.clone(),
                at_ms: fence.at.0,
            }),
            cordon: record.cordon.as_ref().map(|cordon| self::cordon(world, &record.id, cordon)),
        }
    };
    world.nodes.values().map(one).collect()
}

fn cordon(world: &World, node: &NodeId, cordon: &Cordon) -> v1::CordonView {
    let (draining, deadline) = match cordon.purpose {
        Purpose::Keep => (false, None),
        Purpose::Empty { deadline } => (true, deadline),
    };
    v1::CordonView {
        reason: cordon.reason.clone(),
        by: cordon.by.clone(),
        at_ms: cordon.at.0,
        draining,
        deadline_ms: deadline.map_or(0, |at| at.0),
        empty: world.seats_on(node).next().is_none(),
    }
}

/// Checkpoints of one job or all, by job, stage and iteration.
pub(crate) fn checkpoints(world: &World, wanted: Option<&JobId>) -> Vec<v1::CheckpointView> {
    let jobs = world.jobs.values().filter(|job| wanted.is_none_or(|id| job.id == *id));
    let stages = jobs.flat_map(|job| job.stages.iter().map(move |stage| (job, stage)));
    let mut views = Vec::new();
    for (job, stage) in stages {
        let train = stage.tasks.iter().find_map(|task| match &task.body {
            model::Body::Train(train) => Some(train),
            model::Body::Preflight(_) | model::Body::Engine(_) | model::Body::Run { .. } => None,
        });
        for (iteration, checkpoint) in &stage.checkpoints {
            views.push(v1::CheckpointView {
                job: job.id.to_string(),
                stage: stage.name.to_string(),
                iteration: *iteration,
                complete: checkpoint.is_usable(),
                pinned: checkpoint.pinned,
                broken: checkpoint.broken,
                removing: checkpoint.removing,
                completed_ms: checkpoint.complete.map_or(0, |at| at.0),
                shards: u32::try_from(checkpoint.shards.len()).unwrap_or(u32::MAX),
                shards_expected: train.map_or(0, |train| u32::try_from(train.parallel.shards()).unwrap_or(u32::MAX)),
                bytes: checkpoint.shards.values().map(|shard| shard.size).sum(),
                directory: train.map(|train| format!("{}/iter_{iteration:07}", train.save_dir)).unwrap_or_default(),
            });
        }
    }
    views
}
