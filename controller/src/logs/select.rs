//! Which attempts a reader asked for.

use model::{AttemptId, Job, JobId, NodeId, Stage, StageName, Task, TaskId, TaskState};
use planner::{World, phase};

/// The attempts to read, in the order of stages and tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Stage, as the reader knows it, and attempt.
    pub attempts: Vec<(StageName, AttemptId)>,
    /// Nodes with a seat in each of them.
    pub nodes: Vec<Vec<NodeId>>,
    /// Whether none of them will grow, nor others join them.
    pub over: bool,
}

/// Why nothing can be selected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unselectable {
    /// The job was forgotten meanwhile.
    #[error("job `{0}` is gone")]
    Gone(JobId),
    /// The job has no such stage.
    #[error("the job has no stage `{stage}`; it has {have}")]
    NoStage {
        /// What was asked for.
        stage: String,
        /// What there is.
        have: String,
    },
}

/// Which attempt of each task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// The one that runs, or ran last.
    #[default]
    Newest,
    /// The one before the newest.
    Previous,
    /// The one with this number.
    Number(u32),
}

/// Selects attempts of `job`, of one stage or all. Of a stage that was taken over,
/// those of its origin.
///
/// # Errors
///
/// [`Unselectable`] if the job or the stage is not there.
pub fn select(world: &World, job: &JobId, stage: &str, which: Which) -> Result<Selected, Unselectable> {
    let job = world.jobs.get(job).ok_or_else(|| Unselectable::Gone(job.clone()))?;
    if !stage.is_empty() && !job.stages.iter().any(|s| s.name.as_str() == stage) {
        let have: Vec<String> = job.stages.iter().map(|s| format!("`{}`", s.name)).collect();
        return Err(Unselectable::NoStage { stage: stage.to_owned(), have: have.join(", ") });
    }
    let mut selected = Selected { over: true, ..Selected::default() };
    for wanted in job.stages.iter().filter(|s| stage.is_empty() || s.name.as_str() == stage) {
        selected.over &= phase::job(world, job).is_over() || wanted.tasks.iter().all(|task| task.state.is_over());
        let (owner, source) = origin(world, job, wanted);
        for (index, task) in (0..).zip(&source.tasks) {
            if let Some(number) = chosen(task, which) {
                let id = TaskId { job: owner.id.clone(), stage: source.name.clone(), index };
                selected.attempts.push((wanted.name.clone(), AttemptId { task: id, number }));
                selected.nodes.push(nodes(task, number));
            }
        }
    }
    Ok(selected)
}

/// Where a stage really ran; itself if its origin has been forgotten.
fn origin<'w>(world: &'w World, job: &'w Job, stage: &'w Stage) -> (&'w Job, &'w Stage) {
    let found = || {
        let earlier = world.jobs.get(stage.reused.as_ref()?)?;
        let same = earlier.stages.iter().find(|other| other.digest == stage.digest && other.reused.is_none())?;
        Some((earlier, same))
    };
    found().unwrap_or((job, stage))
}

fn chosen(task: &Task, which: Which) -> Option<u32> {
    let active = match &task.state {
        TaskState::Active(attempt) => Some(attempt.number),
        TaskState::Waiting { .. }
        | TaskState::Done { .. }
        | TaskState::Failed { .. }
        | TaskState::Cancelled { .. }
        | TaskState::Skipped => None,
    };
    let mut numbers: Vec<u32> = task.history.iter().map(|past| past.number).chain(active).collect();
    numbers.sort_unstable();
    numbers.dedup();
    match which {
        Which::Newest => numbers.last().copied(),
        Which::Previous => numbers.iter().rev().nth(1).copied(),
        Which::Number(wanted) => numbers.into_iter().find(|number| *number == wanted),
    }
}

/// The nodes of one attempt of a task.
fn nodes(task: &Task, number: u32) -> Vec<NodeId> {
    if let Some(active) = task.state.attempt().filter(|attempt| attempt.number == number) {
        return active.seats.iter().map(|seat| seat.node.clone()).collect();
    }
    task.history.iter().find(|past| past.number == number).map(|past| past.nodes.clone()).unwrap_or_default()
}

/// Whether a source passes the reader's filters.
pub(super) fn passes(source: &super::Source, ranks: &[u32], node: Option<&NodeId>) -> bool {
    let rank = source.name.as_str().strip_prefix("worker_").and_then(|rank| rank.parse::<u32>().ok());
    let ranked = ranks.is_empty() || rank.is_some_and(|rank| ranks.contains(&rank));
    ranked && node.is_none_or(|node| source.node == *node)
}
