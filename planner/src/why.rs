//! Why something waits, failed or was stopped.

use model::{Attempt, AttemptState, Drain, Job, JobId, NodeId, Outcome, Seat, SeatState, Stage, Task, TaskState};

use crate::ahead;
use crate::index::Load;
use crate::phase::{self, JobPhase, StagePhase};
use crate::reason::{Reason, Spot, Word};
use crate::retry;
use crate::room;
use crate::schedule;
use crate::step::is_prepared;
use crate::world::World;

/// Explains a job: its phase, then a line for each stage that is under way,
/// waits or failed. One line if there is no such job.
#[must_use]
pub fn explain(world: &World, id: &JobId) -> String {
    let Some(job) = world.jobs.get(id) else { return format!("there is no job `{id}`") };
    let phase = phase::job(world, job).name();
    let mut lines = vec![sentence(&format!("job `{}` is {phase}", job.name), job_reason(world, job))];
    for stage in &job.stages {
        let phase = phase::stage(world, job, stage).name();
        lines.push(sentence(&format!("stage `{}` is {phase}", stage.name), stage_reason(world, job, stage)));
    }
    lines.join("\n")
}

fn sentence(what: &str, why: Option<Reason>) -> String {
    why.map_or_else(|| what.to_owned(), |why| format!("{what}: {why}"))
}

/// Why a job is not done; `None` where there is nothing to say.
#[must_use]
pub fn job_reason(world: &World, job: &Job) -> Option<Reason> {
    let of = |wanted: StagePhase| job.stages.iter().find(|stage| phase::stage(world, job, stage) == wanted);
    let told = |stage: Option<&Stage>| {
        let stage = stage?;
        let why = stage_reason(world, job, stage).map(Box::new)?;
        Some(Reason::InStage { stage: stage.name.clone(), why })
    };
    match phase::job(world, job) {
        JobPhase::Succeeded => None,
        JobPhase::Failed => told(of(StagePhase::Failed)),
        JobPhase::Cancelled | JobPhase::Cancelling => cancelled(job),
        JobPhase::Pending => told(of(StagePhase::Pending)),
        JobPhase::Running => {
            told(of(StagePhase::Failed).or_else(|| of(StagePhase::Running)).or_else(|| of(StagePhase::Pending)))
        }
    }
}

/// Why a stage is not done: the reason of its first task that says one.
#[must_use]
pub fn stage_reason(world: &World, job: &Job, stage: &Stage) -> Option<Reason> {
    let first = |wanted: fn(&TaskState) -> bool| {
        let task = stage.tasks.iter().find(|task| wanted(&task.state))?;
        task_reason(world, job, stage, task)
    };
    match phase::stage(world, job, stage) {
        StagePhase::Succeeded => None,
        StagePhase::Reused => stage.reused.clone().map(Reason::TakenOver),
        StagePhase::Failed => first(|state| matches!(state, TaskState::Failed { .. })),
        StagePhase::Cancelled => first(|state| matches!(state, TaskState::Cancelled { .. })),
        StagePhase::Skipped => Some(Reason::FailedElsewhere),
        StagePhase::Pending => first(|state| matches!(state, TaskState::Waiting { .. })),
        StagePhase::Running => first(|state| matches!(state, TaskState::Active(_)))
            .or_else(|| first(|state| matches!(state, TaskState::Waiting { .. }))),
    }
}

/// Why a task is where it is; `None` for one that is done.
#[must_use]
pub fn task_reason(world: &World, job: &Job, stage: &Stage, task: &Task) -> Option<Reason> {
    match &task.state {
        TaskState::Waiting { .. } => Some(waiting(world, job, stage, task)),
        TaskState::Active(attempt) => Some(active(world, job, task, attempt)),
        TaskState::Done { .. } => None,
        TaskState::Failed { failure, at } => {
            Some(Reason::Failed { failure: Box::new(failure.clone()), spent: retry::spent(job, task, *at) })
        }
        TaskState::Cancelled { .. } if job.cancel.is_some() => cancelled(job),
        TaskState::Cancelled { .. } | TaskState::Skipped => Some(Reason::FailedElsewhere),
    }
}

fn cancelled(job: &Job) -> Option<Reason> {
    let cancel = job.cancel.as_ref()?;
    Some(Reason::Cancelled(Word { by: cancel.by.clone(), reason: cancel.reason.clone() }))
}

fn restarted(job: &Job) -> Option<Reason> {
    let restart = job.restarts.last()?;
    Some(Reason::Restarted(Word { by: restart.by.clone(), reason: restart.reason.clone() }))
}

fn waiting(world: &World, job: &Job, stage: &Stage, task: &Task) -> Reason {
    let before = stage.after.iter().filter(|before| !phase::succeeded(world, job, **before));
    let before: Vec<_> = before.filter_map(|before| job.stages.get(*before)).map(|stage| stage.name.clone()).collect();
    if !before.is_empty() {
        return Reason::Stages(before);
    }
    if task.closing {
        let open = stage.tasks.iter().filter(|other| !other.closing && !other.state.is_over()).count();
        if open > 0 {
            return Reason::Closing(open);
        }
    }
    if let TaskState::Waiting { not_before: Some(at) } = task.state
        && at > world.stepped
    {
        let last = task.history.iter().rev().find_map(|past| match &past.outcome {
            Outcome::Failed(failure) => Some(Box::new(failure.clone())),
            Outcome::Succeeded | Outcome::Cancelled | Outcome::Requeued => None,
        });
        let which = retry::next(job, task, world.stepped);
        return Reason::Backoff { wait_ms: at.since(world.stepped), which, last };
    }
    checkpoint(world, job, stage, task).unwrap_or_else(|| room::none(world, job, task))
}

/// The node that a task waits for because its checkpoint lies there.
fn checkpoint(world: &World, job: &Job, stage: &Stage, task: &Task) -> Option<Reason> {
    let (iteration, nodes) = schedule::anchors(world, job, stage, task)?;
    let views = nodes.iter().filter_map(|node| world.nodes.get(node));
    let (node, lack) =
        views.filter_map(|view| Some((view.record.id.clone(), room::lack(world, view, &task.shape)?))).next()?;
    Some(Reason::Checkpoint { iteration, node, lack })
}

fn active(world: &World, job: &Job, task: &Task, attempt: &Attempt) -> Reason {
    let seats = |wanted: fn(&Seat) -> bool| -> Vec<Spot> {
        attempt.seats.iter().filter(|seat| wanted(seat)).map(|seat| spot(world, seat)).collect()
    };
    match attempt.state {
        AttemptState::Preparing => Reason::Preparing(seats(|seat| !is_prepared(&seat.state))),
        AttemptState::Running => {
            let starting = seats(|seat| matches!(seat.state, SeatState::Assigned | SeatState::Prepared { .. }));
            let limit = world.policy.engine_tasks_per_node;
            let full = |node: &NodeId| world.index.load(node).is_some_and(|load: &Load| load.engines() > limit);
            match starting.as_slice() {
                [] => Reason::Running(seats(|_| true)),
                [only] if ahead::is_queued(task) && full(&only.node) => Reason::Queued(only.clone(), limit),
                [..] => Reason::Starting(starting),
            }
        }
        AttemptState::Draining(drain) => {
            let why = match (&attempt.first_failure, drain) {
                (Some(failure), _) => Some(Reason::Failed { failure: Box::new(failure.clone()), spent: None }),
                (None, Drain::Cancelled) => cancelled(job),
                (None, Drain::Failed | Drain::NodeLost) => None,
                (None, Drain::Moved { .. }) => Some(Reason::Moved),
                (None, Drain::Restarted { .. }) => restarted(job),
            };
            let why = Box::new(why.unwrap_or(Reason::FailedElsewhere));
            Reason::Stopping { why, waits: seats(|seat| !seat.state.is_over()) }
        }
    }
}

fn spot(world: &World, seat: &Seat) -> Spot {
    Spot { node: seat.node.clone(), liveness: world.nodes.get(&seat.node).map(|view| view.liveness) }
}
