//! Which failures count against a task's retries.

use model::{AttemptSummary, Failure, Job, Outcome, Task, Timestamp};

use crate::text;

/// Failures of the task since the newest restart of its job, oldest first.
pub(crate) fn failures<'a>(
    job: &Job,
    task: &'a Task,
) -> impl DoubleEndedIterator<Item = (&'a AttemptSummary, &'a Failure)> + use<'a> {
    let restart = job.restarts.last().map(|restart| restart.at);
    let counted = task.history.iter().filter(move |past| restart.is_none_or(|at| past.ended > at));
    counted.filter_map(|past| match &past.outcome {
        Outcome::Failed(failure) => Some((past, failure)),
        Outcome::Succeeded | Outcome::Cancelled | Outcome::Requeued => None,
    })
}

/// How many of them lie within the task's window.
pub(crate) fn lately(job: &Job, task: &Task, now: Timestamp) -> u32 {
    let lately = failures(job, task).rev().take_while(|(past, _)| now.since(past.ended) < task.retries.window_ms);
    u32::try_from(lately.count()).unwrap_or(u32::MAX)
}

/// `retry 2 of 5 within 24 h`: the try that comes after the failures so far.
pub(crate) fn next(job: &Job, task: &Task, now: Timestamp) -> String {
    format!("retry {} of {}", lately(job, task, now).min(task.retries.max), budget(task))
}

/// `all retries are used: 5 within 24 h`, if the task failed at `at` once more often than it may.
pub(crate) fn spent(job: &Job, task: &Task, at: Timestamp) -> Option<String> {
    let spent = task.retries.max > 0 && lately(job, task, at) > task.retries.max;
    spent.then(|| format!("all retries are used: {}", budget(task)))
}

fn budget(task: &Task) -> String {
    format!("{} within {}", task.retries.max, text::span(task.retries.window_ms))
}
