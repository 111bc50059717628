//! Why something waits, failed or was stopped: one sentence each.

use model::{
    Attempt, AttemptState, DeviceKind, Drain, Job, JobId, Liveness, Outcome, Purpose, Seat, SeatState, Stage, Task,
    TaskState,
};

use crate::phase::{self, JobPhase, StagePhase};
use crate::place;
use crate::retry;
use crate::schedule;
use crate::step::is_prepared;
use crate::text;
use crate::world::{NodeView, World};

/// Explains a job: its phase, then a line for each stage that is under way,
/// waits or failed. One line if there is no such job.
#[must_use]
pub fn explain(world: &World, id: &JobId) -> String {
    let Some(job) = world.jobs.get(id) else { return format!("there is no job `{id}`") };
    let mut lines =
        vec![sentence(&format!("job `{}` is {}", job.name, phase::job(world, job).name()), &job_reason(world, job))];
    for stage in &job.stages {
        let phase = phase::stage(world, job, stage);
        lines.push(sentence(&format!("stage `{}` is {}", stage.name, phase.name()), &stage_reason(world, job, stage)));
    }
    lines.join("\n")
}

fn sentence(what: &str, why: &str) -> String {
    if why.is_empty() { what.to_owned() } else { format!("{what}: {why}") }
}

/// Why a job is not done: empty where there is nothing to say.
#[must_use]
pub fn job_reason(world: &World, job: &Job) -> String {
    let of = |wanted: StagePhase| job.stages.iter().find(|stage| phase::stage(world, job, stage) == wanted);
    let told = |stage: Option<&Stage>| {
        stage
            .map(|stage| sentence(&format!("stage `{}`", stage.name), &stage_reason(world, job, stage)))
            .unwrap_or_default()
    };
    match phase::job(world, job) {
        JobPhase::Succeeded => String::new(),
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
pub fn stage_reason(world: &World, job: &Job, stage: &Stage) -> String {
    let first = |wanted: fn(&TaskState) -> bool| {
        stage
            .tasks
            .iter()
            .find(|task| wanted(&task.state))
            .map(|task| task_reason(world, job, stage, task))
            .unwrap_or_default()
    };
    match phase::stage(world, job, stage) {
        StagePhase::Succeeded => String::new(),
        StagePhase::Reused => {
            stage.reused.as_ref().map(|from| format!("taken over from job {from}")).unwrap_or_default()
        }
        StagePhase::Failed => first(|state| matches!(state, TaskState::Failed { .. })),
        StagePhase::Cancelled => first(|state| matches!(state, TaskState::Cancelled { .. })),
        StagePhase::Skipped => "another part of the job failed".to_owned(),
        StagePhase::Pending => first(|state| matches!(state, TaskState::Waiting { .. })),
        StagePhase::Running => {
            let active = first(|state| matches!(state, TaskState::Active(_)));
            if active.is_empty() { first(|state| matches!(state, TaskState::Waiting { .. })) } else { active }
        }
    }
}

/// Why a task is where it is; empty for one that is done.
#[must_use]
pub fn task_reason(world: &World, job: &Job, stage: &Stage, task: &Task) -> String {
    match &task.state {
        TaskState::Waiting { .. } => waiting(world, job, stage, task),
        TaskState::Active(attempt) => active(world, job, attempt),
        TaskState::Done { .. } => String::new(),
        TaskState::Failed { failure, at } => {
            let spent = retry::spent(job, task, *at).map(|spent| format!("; {spent}")).unwrap_or_default();
            hinted(format!("{}{spent}", text::failure(failure)), &failure.hint)
        }
        TaskState::Cancelled { .. } if job.cancel.is_some() => cancelled(job),
        TaskState::Cancelled { .. } | TaskState::Skipped => "another part of the job failed".to_owned(),
    }
}

fn hinted(what: String, hint: &str) -> String {
    if hint.is_empty() { what } else { format!("{what} (hint: {hint})") }
}

fn cancelled(job: &Job) -> String {
    let Some(cancel) = &job.cancel else { return String::new() };
    sentence(&format!("`{}` asked to cancel it", cancel.by), &cancel.reason)
}

fn restarted(job: &Job) -> String {
    let Some(restart) = job.restarts.last() else { return String::new() };
    sentence(&format!("`{}` asked to begin it again", restart.by), &restart.reason)
}

fn waiting(world: &World, job: &Job, stage: &Stage, task: &Task) -> String {
    let before: Vec<String> = stage
        .after
        .iter()
        .filter(|before| !phase::succeeded(world, job, **before))
        .filter_map(|before| job.stages.get(*before))
        .map(|before| format!("`{}`", before.name))
        .collect();
    if !before.is_empty() {
        return format!("waits for {}", text::join(&before));
    }
    if task.closing {
        let open = stage.tasks.iter().filter(|other| !other.closing && !other.state.is_over()).count();
        if open > 0 {
            return format!("closes the stage, and waits for its other tasks ({open} open)");
        }
    }
    let again = task.history.iter().rev().find_map(|past| match &past.outcome {
        Outcome::Failed(failure) => Some(text::failure(failure)),
        Outcome::Succeeded | Outcome::Cancelled | Outcome::Requeued => None,
    });
    if let TaskState::Waiting { not_before: Some(at) } = task.state
        && at > world.stepped
    {
        let wait = text::span(at.since(world.stepped));
        let which = retry::next(job, task, world.stepped);
        return sentence(&format!("is tried again in {wait} ({which})"), &again.unwrap_or_default());
    }
    away(world, job, stage, task).unwrap_or_else(|| no_room(world, job, task))
}

/// The node that a task waits for because its checkpoint lies there.
fn away(world: &World, job: &Job, stage: &Stage, task: &Task) -> Option<String> {
    let (iteration, nodes) = schedule::anchors(world, job, stage, task)?;
    let view = nodes.iter().filter_map(|node| world.nodes.get(node)).find(|view| !view.takes_work())?;
    let node = &view.record.id;
    Some(format!("its checkpoint of iteration {iteration} lies on node `{node}`, which {}", silent(view)))
}

/// Why no set of nodes takes the task now.
fn no_room(world: &World, job: &Job, task: &Task) -> String {
    let shape = &task.shape;
    let device = job.runtime.device;
    let per_node = shape.ranks_per_node.max(1).saturating_mul(shape.slots_per_rank);
    if let Some(pinned) = &shape.pinned {
        match world.nodes.get(pinned) {
            None => return format!("must run on node `{pinned}`, which has not joined"),
            Some(view) if per_node > 0 && view.record.device != device => {
                return format!("must run on node `{pinned}`, which has no {} slots", kind(device));
            }
            Some(view) if !view.takes_work() => return format!("must run on node `{pinned}`, which {}", silent(view)),
            Some(_) => {}
        }
    }
    let fit: Vec<&NodeView> = world
        .nodes
        .values()
        // What takes no slot needs only processors, and those every node has.
        .filter(|view| per_node == 0 || view.record.device == device && view.record.slots >= per_node)
        .filter(|view| shape.pinned.as_ref().is_none_or(|pinned| *pinned == view.record.id))
        .collect();
    let needs = needs(shape.nodes.max(1), per_node, device);
    let wanted = usize::try_from(shape.nodes.max(1)).unwrap_or(usize::MAX);
    if fit.len() < wanted {
        let joined = world.nodes.values().filter(|view| per_node == 0 || view.record.device == device).count();
        if per_node == 0 {
            return format!("needs {needs}; {joined} have joined");
        }
        return format!("needs {needs}; {} of {joined} joined nodes of this kind are large enough", fit.len());
    }
    let set_aside: Vec<&&NodeView> = fit.iter().filter(|view| view.record.cordon.is_some()).collect();
    if fit.len() - set_aside.len() < wanted {
        let named: Vec<String> =
            set_aside.iter().map(|view| format!("`{}` {}", view.record.id, silent(view))).collect();
        let have = fit.len() - set_aside.len();
        let verb = match (per_node, have) {
            (0, 1) => "takes work",
            (0, _) => "take work",
            (_, 1) => "has them",
            (_, _) => "have them",
        };
        return format!("needs {needs}; {have} of {} joined nodes {verb}; node {}", fit.len(), named.join(", node "));
    }
    let reachable = fit.iter().filter(|view| view.takes_work()).count();
    if reachable < wanted {
        let missing = fit.iter().find(|view| !view.takes_work());
        let named = missing.map(|view| format!("; node `{}` {}", view.record.id, silent(view))).unwrap_or_default();
        return format!("needs {needs}; {reachable} can be reached{named}");
    }
    if per_node == 0 {
        let limit = world.policy.engine_tasks_per_node;
        return format!("every node runs {limit} such tasks, which is its limit");
    }
    if let Some(ahead) = ahead(world, job) {
        return format!("needs {needs}; job `{}` is ahead in the queue", ahead.name);
    }
    let strangers = fit.iter().filter(|view| !place::slots_are_known(world, view)).count();
    if strangers > 0 {
        return format!("needs {needs}; what still runs on {strangers} of them was replaced, or is unknown here");
    }
    let unfit = fit.iter().filter(|view| !view.unfit.is_empty()).map(|view| {
        let slots: Vec<String> = view.unfit.iter().map(u32::to_string).collect();
        format!("{} of `{}`", slots.join(", "), view.record.id)
    });
    let unfit: Vec<String> = unfit.collect();
    if !unfit.is_empty() {
        return format!(
            "needs {needs}; other tasks take the slots, or their devices are in alarm: slot {}",
            unfit.join("; slot ")
        );
    }
    format!("needs {needs}; the slots are taken by other tasks")
}

fn needs(nodes: u32, per_node: u32, device: DeviceKind) -> String {
    match (nodes, per_node) {
        (1, 0) => "a node".to_owned(),
        (nodes, 0) => format!("{nodes} nodes"),
        (1, 1) => format!("a free {} slot", kind(device)),
        (1, slots) => format!("{slots} free {} slots on one node", kind(device)),
        (nodes, 1) => format!("{nodes} nodes with a free {} slot each", kind(device)),
        (nodes, slots) => format!("{nodes} nodes with {slots} free {} slots each", kind(device)),
    }
}

fn kind(device: DeviceKind) -> &'static str {
    match device {
        DeviceKind::Ascend => "ascend",
        DeviceKind::Cpu => "cpu",
    }
}

/// Why a node gets no new work.
fn silent(view: &NodeView) -> String {
    if let Some(cordon) = &view.record.cordon {
        let what = match cordon.purpose {
            Purpose::Keep => "cordoned",
            Purpose::Empty { .. } => "being drained",
        };
        return sentence(&format!("is {what} by {}", cordon.by), &cordon.reason);
    }
    let why = match view.liveness {
        Liveness::Unheard => "has not spoken since this controller took over",
        Liveness::Ready => "is between two sessions",
        Liveness::Suspect => "is silent",
        Liveness::Lost => "is lost",
    };
    why.to_owned()
}

/// An earlier job in the queue that waits for slots of the same kind.
fn ahead<'a>(world: &'a World, job: &Job) -> Option<&'a Job> {
    let earlier = world.index.queue.iter().take_while(|(_, _, id)| *id != job.id);
    earlier.filter_map(|(_, _, id)| world.jobs.get(id)).find(|other| {
        other.runtime.device == job.runtime.device
            && other.cancel.is_none()
            && other.stages.iter().enumerate().any(|(position, stage)| {
                let first = world.index.tally(&other.id, position).and_then(|tally| tally.waiting.first().copied());
                let first = first.and_then(|first| stage.tasks.get(usize::try_from(first).ok()?));
                first.is_some_and(|task| task.shape.slots_per_rank > 0) && phase::may_start(world, other, position)
            })
    })
}

fn active(world: &World, job: &Job, attempt: &Attempt) -> String {
    let waits = |wanted: fn(&Seat) -> bool| {
        let nodes: Vec<String> =
            attempt.seats.iter().filter(|seat| wanted(seat)).map(|seat| node(world, seat)).collect();
        text::join(&nodes)
    };
    match attempt.state {
        AttemptState::Preparing => format!("waits for {} to be prepared", waits(|seat| !is_prepared(&seat.state))),
        AttemptState::Running => {
            let starting = waits(|seat| matches!(seat.state, SeatState::Assigned | SeatState::Prepared { .. }));
            if starting.is_empty() { format!("runs on {}", waits(|_| true)) } else { format!("starts on {starting}") }
        }
        AttemptState::Draining(drain) => {
            let why = match (&attempt.first_failure, drain) {
                (Some(failure), _) => hinted(text::failure(failure), &failure.hint),
                (None, Drain::Cancelled) => cancelled(job),
                (None, Drain::Failed | Drain::NodeLost) => "another part of the job failed".to_owned(),
                (None, Drain::Moved { .. }) => "a node of it is being drained, and it runs again elsewhere".to_owned(),
                (None, Drain::Restarted { .. }) => restarted(job),
            };
            format!("{why}; waits for {} to confirm the stop", waits(|seat| !seat.state.is_over()))
        }
    }
}

fn node(world: &World, seat: &Seat) -> String {
    let view = world.nodes.get(&seat.node);
    match view.map(|view| view.liveness) {
        Some(Liveness::Ready) => format!("`{}`", seat.node),
        Some(Liveness::Unheard | Liveness::Suspect) => format!("`{}` (silent)", seat.node),
        Some(Liveness::Lost) | None => format!("`{}` (lost)", seat.node),
    }
}
