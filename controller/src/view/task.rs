//! Tasks and their attempts, as people see them.

use model::{
    Attempt, AttemptId, AttemptSummary, Failure, Job, NodeId, Outcome, Output, Seat, SeatState, Stage, Task, TaskId,
    TaskState, Timestamp,
};
use planner::{World, phase};
use proto::v1;

use super::engine;
use crate::sessions::Progress;

/// The task at `position` of `stage`.
pub(super) fn task(world: &World, from: &Progress, job: &Job, stage: &Stage, position: usize) -> v1::TaskView {
    let task = &stage.tasks[position];
    let index = u32::try_from(position).unwrap_or(u32::MAX);
    let id = newest(task)
        .map(|number| AttemptId { task: TaskId { job: job.id.clone(), stage: stage.name.clone(), index }, number });
    let (engine, train) = id.as_ref().map(|id| progress(from, task, id)).unwrap_or_default();
    let output = output(&task.state);
    let named = id.as_ref().map(ToString::to_string).unwrap_or_default();
    v1::TaskView {
        label: task.label.clone(),
        phase: phase::task(task).name().to_owned(),
        reason: planner::task_reason(world, job, stage, task).map(|why| why.to_string()).unwrap_or_default(),
        attempt: named.clone(),
        seats: active(&task.state).map(|attempt| attempt.seats.iter().map(seat).collect()).unwrap_or_default(),
        progress: engine,
        train,
        summary: output.map(|output| output.summary.clone()).unwrap_or_default(),
        files: output.map(|output| output.files.iter().map(Into::into).collect()).unwrap_or_default(),
        history: task.history.iter().map(|past| summary(stage, index, job, past)).collect(),
        failure: failure(task).map(|failure| view(stage, named, failure)),
    }
}

/// Number of the present or last attempt.
pub(super) fn newest(task: &Task) -> Option<u32> {
    active(&task.state).map(|attempt| attempt.number).or_else(|| task.history.iter().map(|past| past.number).max())
}

/// What is known of an attempt's progress: work added up over its nodes, the
/// furthest word of a trainer.
pub(super) fn progress(
    from: &Progress,
    task: &Task,
    id: &AttemptId,
) -> (Option<v1::EngineProgress>, Option<v1::TrainProgress>) {
    let now = active(&task.state).filter(|attempt| attempt.number == id.number);
    let nodes: Vec<&NodeId> = match now {
        Some(attempt) => attempt.seats.iter().map(|seat| &seat.node).collect(),
        None => task.history.iter().filter(|past| past.number == id.number).flat_map(|past| &past.nodes).collect(),
    };
    let latest = from.of(id, nodes);
    let words = latest.values().filter_map(|word| word.engine.clone());
    let words = words.map(|word| engine::Word { progress: Some(word), active: now.is_some(), closing: false });
    let engine = engine::sum(&words.collect::<Vec<_>>());
    let train = latest.values().filter_map(|word| word.train).max_by_key(|train| train.iteration);
    (engine, train)
}

pub(super) fn active(state: &TaskState) -> Option<&Attempt> {
    match state {
        TaskState::Active(attempt) => Some(attempt),
        TaskState::Waiting { .. }
        | TaskState::Done { .. }
        | TaskState::Failed { .. }
        | TaskState::Cancelled { .. }
        | TaskState::Skipped => None,
    }
}

pub(super) fn ended(state: &TaskState) -> Option<Timestamp> {
    match state {
        TaskState::Done { at, .. } | TaskState::Failed { at, .. } | TaskState::Cancelled { at } => Some(*at),
        TaskState::Waiting { .. } | TaskState::Active(_) | TaskState::Skipped => None,
    }
}

fn output(state: &TaskState) -> Option<&Output> {
    match state {
        TaskState::Done { output, .. } => Some(output),
        TaskState::Waiting { .. }
        | TaskState::Active(_)
        | TaskState::Failed { .. }
        | TaskState::Cancelled { .. }
        | TaskState::Skipped => None,
    }
}

fn failure(task: &Task) -> Option<&Failure> {
    match &task.state {
        TaskState::Failed { failure, .. } => Some(failure),
        TaskState::Active(attempt) => attempt.first_failure.as_ref(),
        TaskState::Waiting { .. } | TaskState::Done { .. } | TaskState::Cancelled { .. } | TaskState::Skipped => None,
    }
}

fn view(stage: &Stage, attempt: String, failure: &Failure) -> v1::FailureView {
    v1::FailureView { stage: stage.name.to_string(), attempt, failure: Some(failure.into()) }
}

fn seat(seat: &Seat) -> v1::SeatView {
    let phase = match &seat.state {
        SeatState::Assigned => "assigned",
        SeatState::Prepared { .. } => "prepared",
        SeatState::Running => "running",
        SeatState::Ended(_) => "ended",
        SeatState::GivenUp => "given-up",
    };
    v1::SeatView {
        node: seat.node.to_string(),
        first_rank: seat.first_rank,
        ranks: seat.ranks,
        phase: phase.to_owned(),
    }
}

fn summary(stage: &Stage, index: u32, job: &Job, past: &AttemptSummary) -> v1::AttemptView {
    let (outcome, failure) = match &past.outcome {
        Outcome::Succeeded => ("succeeded", None),
        Outcome::Failed(failure) => ("failed", Some(failure)),
        Outcome::Cancelled => ("cancelled", None),
        Outcome::Requeued => ("requeued", None),
    };
    let task = TaskId { job: job.id.clone(), stage: stage.name.clone(), index };
    let id = AttemptId { task, number: past.number };
    v1::AttemptView {
        number: past.number,
        placed_ms: past.placed.0,
        ended_ms: past.ended.0,
        outcome: outcome.to_owned(),
        nodes: past.nodes.iter().map(ToString::to_string).collect(),
        failure: failure.map(|failure| view(stage, id.to_string(), failure)),
    }
}
