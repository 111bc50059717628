//! What must be true of the cluster, seen from outside the planner.

use std::collections::BTreeMap;

use model::{
    Attempt, AttemptId, AttemptState, Cause, Event, Job, NodeId, SeatState, Stage, Task, TaskId, TaskState, Timestamp,
    event::Kind,
};
use planner::{Input, World};

use super::Truth;
use super::agent::Agent;
use super::driver::{Driver, policy};
use super::store::Saved;

type Agents = BTreeMap<NodeId, Agent>;

/// A process starts only where a saved seat says so, and on slots of its own.
pub(crate) fn may_start(driver: &Driver, agents: &Agents, id: &AttemptId, node: &NodeId) -> Result<(), String> {
    if !driver.seated(id, node) {
        return Err(format!("{node} is told to start {id}, of which nothing is saved"));
    }
    let effect = |seat| planner::Effect::Start { node: node.clone(), attempt: id.clone(), seat };
    let attempt = saved_task(&driver.saved, id).and_then(active);
    let seat = attempt.and_then(|attempt| attempt.seats.iter().position(|seat| seat.node == *node));
    let Some(seat) = seat else { return Ok(()) };
    let (slots, ..) = driver.told(&effect(seat));
    for (other, held) in agents[node].running() {
        if let Some(slot) = held.slots.iter().find(|slot| slots.contains(slot)) {
            return Err(format!("{node}: slot {slot} of {id} is still held by {other}"));
        }
    }
    Ok(())
}

/// A node that comes back from a reboot runs nothing that it does not say.
pub(crate) fn after_input(world: &World, input: &Input, agents: &Agents) -> Result<(), String> {
    let Input::Hello { node, session, live } = input else { return Ok(()) };
    let agent = &agents[&node.id];
    if agent.session != Some(*session) || world.nodes.get(&node.id).is_none_or(|view| view.session != Some(*session)) {
        return Ok(());
    }
    for job in world.jobs.values() {
        for stage in &job.stages {
            for (index, task) in stage.tasks.iter().enumerate() {
                let Some(attempt) = active(task) else { continue };
                let id = name(job, stage, index, attempt.number);
                let runs = attempt.seats.iter().any(|seat| seat.node == node.id && seat.state == SeatState::Running);
                if runs && !live.contains(&id) {
                    return Err(format!("{} does not hold {id}, whose seat there still counts as running", node.id));
                }
            }
        }
    }
    Ok(())
}

/// A node is given up only after a whole window of silence, or by its own word.
pub(crate) fn failures(
    world: &World,
    events: &[Event],
    agents: &Agents,
    contact: &BTreeMap<NodeId, Timestamp>,
    now: Timestamp,
) -> Result<(), String> {
    for event in events.iter().filter(|event| event.kind == Kind::AttemptFailed) {
        let Some(job) = world.jobs.get(&event.job) else { continue };
        for stage in job.stages.iter().filter(|stage| Some(&stage.name) == event.stage.as_ref()) {
            for (index, task) in stage.tasks.iter().enumerate() {
                let Some(attempt) = active(task) else { continue };
                let Some(failure) = &attempt.first_failure else { continue };
                if failure.cause != Cause::NodeLost || !failure.message.contains("silent") || failure.at != now {
                    continue;
                }
                let id = name(job, stage, index, attempt.number);
                if let Some((node, _)) = agents.iter().find(|(node, agent)| {
                    agent.holds_running(&id) && !silent_for(contact, node, now, policy().lost_after_ms)
                }) {
                    return Err(format!("{id} is ended for a silent node while {node} runs it and speaks"));
                }
            }
        }
    }
    Ok(())
}

/// What was placed has its place: labels, spares, and slots that are near to
/// each other where there were such.
pub(crate) fn placed(world: &World, events: &[Event], now: Timestamp) -> Result<(), String> {
    for event in events.iter().filter(|event| event.kind == Kind::AttemptPlaced) {
        let job = &world.jobs[&event.job];
        for stage in job.stages.iter().filter(|stage| Some(&stage.name) == event.stage.as_ref()) {
            for (index, task) in stage.tasks.iter().enumerate() {
                let Some(attempt) = active(task).filter(|attempt| attempt.placed == now) else { continue };
                let id = name(job, stage, index, attempt.number);
                seated(world, job, task, attempt).map_err(|rule| format!("{id}: {rule}"))?;
            }
        }
    }
    Ok(())
}

/// What is placed on nodes kept for an earlier task is surely over before that counts on them.
fn backfilled(world: &World, job: &Job, task: &Task, attempt: &Attempt) -> Result<(), String> {
    let Some(head) = world.head().filter(|head| head.job != job.id) else { return Ok(()) };
    let turn = |job: &Job| (std::cmp::Reverse(job.priority), job.submitted, job.id.clone());
    let kept = attempt.seats.iter().any(|seat| !seat.slots.is_empty() && head.nodes.contains(&seat.node));
    if !kept || turn(job) < turn(&world.jobs[&head.job]) {
        return Ok(());
    }
    let grace = match &task.body {
        model::Body::Train(train) => train.grace_ms,
        model::Body::Preflight(_) | model::Body::Engine(_) | model::Body::Run { .. } => policy().stop_grace_ms,
    };
    let over = task.limit_ms.map(|limit| attempt.placed.after_ms(limit + grace));
    if over.is_none_or(|over| head.at.is_none_or(|at| over > at)) {
        return Err(format!("it may run until {over:?} on a node that {} counts on at {:?}", head.job, head.at));
    }
    Ok(())
}

fn seated(world: &World, job: &Job, task: &Task, attempt: &Attempt) -> Result<(), String> {
    backfilled(world, job, task, attempt)?;
    let mut spares = 0;
    for seat in &attempt.seats {
        let view = &world.nodes[&seat.node];
        if !view.record.labels.have(&job.placement.labels) {
            return Err(format!("{} is not what the job asks for", seat.node));
        }
        spares += usize::from(view.record.is_spare());
        let unit = match &task.body {
            model::Body::Train(train) => (train.parallel.tp() * task.shape.slots_per_rank) as usize,
            model::Body::Preflight(_) | model::Body::Engine(_) | model::Body::Run { .. } => seat.slots.len(),
        };
        let group = |slot: &u32| view.record.groups.get(*slot as usize).copied().unwrap_or(0);
        let taken = world.slots_taken(&seat.node);
        let was_free = |slot: &u32| seat.slots.contains(slot) || !taken.contains(slot) && !view.unfit.contains(slot);
        let mut room: BTreeMap<u32, usize> = BTreeMap::new();
        (0..view.record.slots).filter(was_free).for_each(|slot| *room.entry(group(&slot)).or_default() += 1);
        let units: Vec<&[u32]> = seat.slots.chunks(unit.max(1)).collect();
        let torn = units.iter().filter(|unit| unit.iter().any(|slot| group(slot) != group(&unit[0]))).count();
        let whole: usize = room.values().map(|free| free / unit.max(1)).sum();
        if torn > units.len().saturating_sub(whole) {
            return Err(format!("slots {:?} of {} lie apart, and {room:?} were free", seat.slots, seat.node));
        }
    }
    let gone = task.history.last().map_or(0, |last| last.nodes.len());
    if spares > gone && task.shape.pinned.is_none() {
        return Err(format!("{spares} spares take it, and {gone} nodes could be gone"));
    }
    Ok(())
}

/// Only a silent node is fenced.
pub(crate) fn fenced(node: &NodeId, contact: &BTreeMap<NodeId, Timestamp>, now: Timestamp) -> Result<(), String> {
    let silent = silent_for(contact, node, now, policy().suspect_after_ms);
    if silent { Ok(()) } else { Err(format!("{node} was fenced, and spoke lately")) }
}

/// An attempt is over only when no node runs it, but for nodes silent long enough.
pub(crate) fn overs(driver: &Driver, agents: &Agents, truth: &mut Truth, now: Timestamp) -> Result<(), String> {
    for (id, task, nodes, gang) in ended_attempts(&driver.world, &driver.saved) {
        for node in &nodes {
            let Some(agent) = agents.get(node) else { continue };
            if !agent.may_run(&id) {
                continue;
            }
            let window = policy().lost_after_ms;
            let fenced = driver.given_up.contains(&(id.clone(), node.clone()));
            if !fenced && !silent_for(&driver.contact, node, now, window) {
                if !agent.holds_running(&id) {
                    continue;
                }
                return Err(format!("{id} is over while {node} runs it and spoke lately (gang {gang})"));
            }
            truth.abandoned.insert((id.clone(), node.clone()));
        }
        if let TaskState::Done { attempt, .. } = &task.state
            && *attempt == id.number
            && let Some(node) = nodes.iter().find(|node| !truth.finished.contains(&(id.clone(), (*node).clone())))
        {
            return Err(format!("{id} counts as done, but {node} never finished it"));
        }
    }
    Ok(())
}

fn ended_attempts<'a>(world: &'a World, saved: &'a Saved) -> Vec<(AttemptId, &'a Task, Vec<NodeId>, bool)> {
    let mut out = Vec::new();
    for job in world.jobs.values() {
        for (s, stage) in job.stages.iter().enumerate() {
            for (index, task) in stage.tasks.iter().enumerate() {
                let before = saved.jobs.get(&job.id).and_then(|job| job.stages.get(s)?.tasks.get(index));
                let known = before.map_or(0, |task| task.history.len());
                for past in task.history.iter().skip(known) {
                    let task_id =
                        TaskId { job: job.id.clone(), stage: stage.name.clone(), index: u32::try_from(index).unwrap() };
                    let id = AttemptId { task: task_id, number: past.number };
                    out.push((id, task, past.nodes.clone(), task.shape.nodes > 1));
                }
            }
        }
    }
    out
}

fn silent_for(contact: &BTreeMap<NodeId, Timestamp>, node: &NodeId, now: Timestamp, window: u64) -> bool {
    contact.get(node).is_none_or(|at| now.since(*at) >= window)
}

/// The named writes are all that changed.
pub(crate) fn saved_all(world: &World, saved: &Saved) -> Result<(), String> {
    let jobs = world.jobs.iter().find(|(id, job)| saved.jobs.get(*id) != Some(*job));
    if let Some((id, _)) = jobs {
        return Err(format!("job {id} changed without a write"));
    }
    let node = world.nodes.iter().find(|(id, view)| saved.nodes.get(*id) != Some(&view.record));
    if let Some((id, _)) = node {
        return Err(format!("node {id} changed without a write"));
    }
    for (id, events) in &saved.events {
        let gap = events.iter().zip(1..).find(|(event, seq)| event.seq != *seq);
        if gap.is_some() || saved.jobs[id].last_event != events.len() as u64 {
            return Err(format!("events of job {id} are not 1, 2, 3, …"));
        }
    }
    Ok(())
}

/// What was acknowledged stays; what has ended stays ended.
pub(crate) fn after_batch(driver: &Driver, agents: &Agents, truth: &Truth) -> Result<(), String> {
    for (node, cordon) in &driver.set_aside {
        if driver.saved.nodes[node].cordon != *cordon {
            return Err(format!("an operator's word about {node} is forgotten"));
        }
    }
    for (node, boot) in &driver.fenced {
        let saved = &driver.saved.nodes[node];
        if boot.as_ref().is_some_and(|boot| saved.boot_id == *boot) && saved.fence.is_none() {
            return Err(format!("{node} is fenced no more, and was not rebooted"));
        }
    }
    for id in &driver.promised {
        let kept = saved_task(&driver.saved, id).is_some_and(|task| {
            let succeeded = |past: &model::AttemptSummary| past.outcome == model::Outcome::Succeeded;
            task.history.iter().any(|past| past.number == id.number && succeeded(past))
        });
        if !kept {
            return Err(format!("the good end of {id} was acknowledged, and is not in its history"));
        }
        if driver.restarted.contains(&id.task.job) {
            continue;
        }
        let done = saved_task(&driver.saved, id)
            .is_some_and(|task| matches!(&task.state, TaskState::Done { attempt, .. } if *attempt == id.number));
        if !done {
            return Err(format!("the good end of {id} was acknowledged, and is not saved"));
        }
    }
    for (node, agent) in agents {
        for (id, _) in agent.running() {
            if !driver.seated(id, node) {
                return Err(format!("{node} runs {id}, of which nothing is saved"));
            }
            let Some(task) = saved_task(&driver.saved, id) else { continue };
            if let TaskState::Active(now) = &task.state
                && now.number == id.number
                && now.state == AttemptState::Preparing
            {
                return Err(format!("{node} runs {id}, which is still being prepared"));
            }
            let others = agents.iter().flat_map(|(other, agent)| agent.running().map(move |(id, _)| (other, id)));
            for (other, newer) in others.filter(|(_, newer)| newer.task == id.task && newer.number > id.number) {
                if !truth.abandoned.contains(&(id.clone(), node.clone())) {
                    return Err(format!("{node} runs {id} while {other} runs {newer}"));
                }
            }
        }
    }
    Ok(())
}

fn name(job: &Job, stage: &Stage, index: usize, number: u32) -> AttemptId {
    let index = u32::try_from(index).unwrap();
    AttemptId { task: TaskId { job: job.id.clone(), stage: stage.name.clone(), index }, number }
}

fn active(task: &Task) -> Option<&Attempt> {
    if let TaskState::Active(attempt) = &task.state { Some(attempt) } else { None }
}

fn saved_task<'a>(saved: &'a Saved, id: &AttemptId) -> Option<&'a Task> {
    let stage = saved.jobs.get(&id.task.job)?.stages.iter().find(|stage| stage.name == id.task.stage)?;
    stage.tasks.get(id.task.index as usize)
}
