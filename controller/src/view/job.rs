//! Jobs, as people see them.

use model::{AttemptId, Job, TaskId, TaskState};
use planner::{World, phase};
use proto::v1;

use super::stage;
use crate::sessions::Progress;

/// How much of a job is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// A line of a listing.
    Line,
    /// With its spec and tasks.
    Full,
}

/// Jobs, newest first: those that have not ended, or all.
pub(crate) fn list(world: &World, progress: &Progress, all: bool, most: usize) -> Vec<v1::JobView> {
    let mut jobs: Vec<&Job> = world.jobs.values().filter(|job| all || job.ended.is_none()).collect();
    jobs.sort_unstable_by_key(|job| std::cmp::Reverse((job.submitted, &job.id)));
    jobs.into_iter().take(most).map(|one| job(world, progress, one, Detail::Line)).collect()
}

/// One job.
pub(crate) fn job(world: &World, progress: &Progress, job: &Job, detail: Detail) -> v1::JobView {
    v1::JobView {
        id: job.id.to_string(),
        name: job.name.to_string(),
        owner: job.owner.clone(),
        priority: job.priority,
        submitted_ms: job.submitted.0,
        ended_ms: job.ended.map_or(0, |at| at.0),
        phase: phase::job(world, job).name().to_owned(),
        reason: planner::job_reason(world, job).map(|why| why.to_string()).unwrap_or_default(),
        stages: job.stages.iter().map(|one| stage::stage(world, progress, job, one, detail)).collect(),
        spec: if detail == Detail::Full { job.spec_text.clone() } else { String::new() },
        failure: failure(job),
        workdir: job.runtime.workdir.clone(),
    }
}

/// The job's earliest final failure.
fn failure(job: &Job) -> Option<v1::FailureView> {
    let failed =
        job.stages.iter().flat_map(|stage| (0..).zip(&stage.tasks).map(move |(index, task)| (stage, index, task)));
    let failed = failed.filter_map(|(stage, index, task)| match &task.state {
        TaskState::Failed { failure, at } => {
            let number = task.history.last().map_or(0, |past| past.number);
            let task = TaskId { job: job.id.clone(), stage: stage.name.clone(), index };
            Some((*at, AttemptId { task, number }, failure))
        }
        TaskState::Waiting { .. }
        | TaskState::Active(_)
        | TaskState::Done { .. }
        | TaskState::Cancelled { .. }
        | TaskState::Skipped => None,
    });
    let (_, attempt, failure) = failed.min_by_key(|(at, _, _)| *at)?;
    Some(v1::FailureView {
        stage: attempt.task.stage.to_string(),
        attempt: attempt.to_string(),
        failure: Some(failure.into()),
    })
}
