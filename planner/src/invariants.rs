//! What holds between steps, whatever happened.

use std::collections::BTreeMap;

use model::{AttemptState, Drain, Job, NodeId, Stage, Task, TaskState};

use crate::index::Index;
use crate::world::World;

/// Every rule that `world` breaks, one sentence each; empty if all hold.
#[must_use]
pub fn invariants(world: &World) -> Vec<String> {
    let mut broken = Vec::new();
    let mut held: BTreeMap<(NodeId, u32), String> = BTreeMap::new();
    for job in world.jobs.values() {
        of_job(job, &mut broken);
        for stage in &job.stages {
            for (at, checkpoint) in &stage.checkpoints {
                if checkpoint.removing && (checkpoint.pinned || checkpoint.is_usable()) {
                    broken.push(format!(
                        "{}.{}: iteration {at} is removed, though it is pinned or in use",
                        job.id, stage.name
                    ));
                }
            }
            for (index, task) in stage.tasks.iter().enumerate() {
                let name = format!("{}.{}.{index}", job.id, stage.name);
                of_task(world, job, stage, task, &name, &mut broken);
                of_slots(task, &name, &mut held, &mut broken);
            }
        }
    }
    if world.index != Index::of(world.jobs.values()) {
        broken.push("the look-up tables differ from the jobs".to_owned());
    }
    of_queues(world, &mut broken);
    for place in world.fences.keys() {
        if world.attempt_id(place).is_none() {
            broken.push(format!("a fence stands for {place:?}, which has no attempt"));
        }
    }
    broken
}

fn of_job(job: &Job, broken: &mut Vec<String>) {
    let over = job.stages.iter().flat_map(|stage| &stage.tasks).all(|task| task.state.is_over());
    if over != job.ended.is_some() {
        broken.push(format!("job {}: ended is {:?}, but all tasks over is {over}", job.id, job.ended));
    }
    if job.last_event == 0 {
        broken.push(format!("job {} has no event", job.id));
    }
}

fn of_task(world: &World, job: &Job, stage: &Stage, task: &Task, name: &str, broken: &mut Vec<String>) {
    let numbers: Vec<u32> = task.history.iter().map(|past| past.number).collect();
    if !numbers.is_sorted_by(|a, b| a < b) || numbers.first() == Some(&0) {
        broken.push(format!("{name}: attempt numbers do not grow: {numbers:?}"));
    }
    match &task.state {
        TaskState::Active(attempt) => {
            if numbers.last().is_some_and(|last| *last >= attempt.number) {
                broken.push(format!("{name}: attempt {} is no newer than {numbers:?}", attempt.number));
            }
            if attempt.seats.is_empty() || attempt.seats.iter().all(|seat| seat.state.is_over()) {
                broken.push(format!("{name}: attempt {} is active without an open seat", attempt.number));
            }
            of_attempt(world, job, task, attempt, name, broken);
        }
        TaskState::Done { attempt, .. } => {
            if stage.reused.is_none() && numbers.last() != Some(attempt) {
                broken.push(format!("{name}: done by attempt {attempt}, but the last is {:?}", numbers.last()));
            }
        }
        TaskState::Failed { .. } => {
            if numbers.is_empty() {
                broken.push(format!("{name}: failed without an attempt"));
            }
        }
        TaskState::Skipped => {
            if stage.reused.is_none() && !numbers.is_empty() {
                broken.push(format!("{name}: skipped after attempts {numbers:?}"));
            }
        }
        TaskState::Waiting { .. } | TaskState::Cancelled { .. } => {}
    }
}

fn of_attempt(world: &World, job: &Job, task: &Task, attempt: &model::Attempt, name: &str, broken: &mut Vec<String>) {
    let mut rank = 0;
    let mut nodes: Vec<&NodeId> = attempt.seats.iter().map(|seat| &seat.node).collect();
    for seat in &attempt.seats {
        if seat.first_rank != rank || seat.ranks != task.shape.ranks_per_node {
            broken.push(format!("{name}: ranks of node {} do not follow the seat before", seat.node));
        }
        rank += seat.ranks;
        if seat.slots.len() as u64 != u64::from(seat.ranks) * u64::from(task.shape.slots_per_rank) {
            broken.push(format!("{name}: node {} gives {} slots", seat.node, seat.slots.len()));
        }
        let cordon = world.nodes.get(&seat.node).and_then(|view| view.record.cordon.as_ref());
        if cordon.is_some_and(|cordon| cordon.at < attempt.placed) {
            broken.push(format!("{name}: placed on node {} after it was cordoned", seat.node));
        }
        let fence = world.nodes.get(&seat.node).and_then(|view| view.record.fence.as_ref());
        if fence.is_some_and(|fence| fence.at < attempt.placed || !seat.state.is_over()) {
            broken.push(format!("{name}: node {} is fenced, and has or gets a seat of it", seat.node));
        }
        if !world.nodes.contains_key(&seat.node) {
            broken.push(format!("{name}: node {} is not known", seat.node));
        }
    }
    nodes.sort();
    nodes.dedup();
    if nodes.len() != attempt.seats.len() || rank != task.shape.ranks() {
        broken.push(format!("{name}: {} seats on {} nodes with {rank} ranks", attempt.seats.len(), nodes.len()));
    }
    let explained = match attempt.state {
        AttemptState::Preparing | AttemptState::Running => attempt.first_failure.is_none(),
        AttemptState::Draining(Drain::Cancelled) => job.cancel.is_some(),
        AttemptState::Draining(Drain::Failed) => attempt.first_failure.is_some() || has_failed(job),
        AttemptState::Draining(Drain::NodeLost) => attempt.first_failure.is_some(),
        AttemptState::Draining(Drain::Moved { .. }) => attempt.first_failure.is_none(),
        AttemptState::Draining(Drain::Restarted { .. }) => attempt.first_failure.is_none() && !job.restarts.is_empty(),
    };
    if !explained {
        broken.push(format!("{name}: attempt {} is {:?} without a reason", attempt.number, attempt.state));
    }
    if attempt.state == AttemptState::Preparing
        && attempt.seats.iter().any(|seat| seat.state == model::SeatState::Running)
    {
        broken.push(format!("{name}: a seat of attempt {} runs before all are prepared", attempt.number));
    }
    let unprepared = attempt.seats.iter().any(|seat| seat.state == model::SeatState::Assigned);
    if crate::step::is_gang(task) && attempt.state == AttemptState::Running && unprepared {
        broken.push(format!("{name}: gang attempt {} runs with a seat that is not prepared", attempt.number));
    }
}

fn has_failed(job: &Job) -> bool {
    job.stages.iter().flat_map(|stage| &stage.tasks).any(|task| matches!(task.state, TaskState::Failed { .. }))
}

/// What is sent ahead of a node's room is of one stage, whose tasks share a queue there.
fn of_queues(world: &World, broken: &mut Vec<String>) {
    let limit = world.policy.engine_tasks_per_node;
    for (node, load) in world.index.loads().filter(|(_, load)| load.engines() > limit) {
        let lone = world.index.places(node).find(|place| world.task(place).is_some_and(crate::ahead::is_queued));
        if !lone.is_some_and(|place| load.is_only(&place.stage_key())) {
            broken.push(format!("node {node} has {} tasks without slots, of several queues", load.engines()));
        }
        if load.engines() > limit.saturating_add(world.policy.most_ahead) {
            broken.push(format!("node {node} was sent {} tasks, more than its queue may hold", load.engines()));
        }
    }
}

fn of_slots(task: &Task, name: &str, held: &mut BTreeMap<(NodeId, u32), String>, broken: &mut Vec<String>) {
    let TaskState::Active(attempt) = &task.state else { return };
    for seat in attempt.seats.iter().filter(|seat| !seat.state.is_over()) {
        for slot in &seat.slots {
            if let Some(other) = held.insert((seat.node.clone(), *slot), name.to_owned()) {
                broken.push(format!("slot {slot} of {} is held by {other} and {name}", seat.node));
            }
        }
    }
}
