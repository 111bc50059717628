//! The report in the JSON contract.

use proto::v1;
use serde::Serialize;

use super::steps::Steps;
use crate::command::diagnosis;
use crate::command::top::rate;
use crate::view::Failed;

/// A job, summed up.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) phase: String,
    pub(super) reason: Option<String>,
    submitted_ms: u64,
    ended_ms: Option<u64>,
    pub(super) took_ms: u64,
    pub(super) waited_ms: Option<u64>,
    pub(super) stages: Vec<Stage>,
    pub(super) training: Vec<Training>,
    pub(super) checkpoints: Checkpoints,
    failure: Option<Failed>,
}

#[derive(Debug, Serialize)]
pub(super) struct Stage {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) phase: String,
    pub(super) reused_from: Option<String>,
    pub(super) took_ms: Option<u64>,
    pub(super) tasks: usize,
    pub(super) attempts: Vec<Attempt>,
}

#[derive(Debug, Serialize)]
pub(super) struct Attempt {
    pub(super) task: String,
    pub(super) number: u32,
    pub(super) outcome: String,
    pub(super) took_ms: u64,
    pub(super) nodes: Vec<String>,
    pub(super) reason: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Training {
    pub(super) stage: String,
    pub(super) iteration: Option<u64>,
    pub(super) iterations: Option<u64>,
    /// Iterations that the logs tell about.
    pub(super) steps: usize,
    pub(super) loss: Option<Losses>,
    pub(super) step_ms_median: Option<f64>,
    pub(super) tokens_per_second: Option<u64>,
    pub(super) restarts: usize,
    pub(super) lost_ms: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Losses {
    pub(super) first: Loss,
    pub(super) last: Loss,
    pub(super) best: Loss,
}

#[derive(Debug, Serialize)]
pub(super) struct Loss {
    pub(super) iteration: u64,
    pub(super) loss: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Checkpoints {
    pub(super) complete: usize,
    pub(super) incomplete: usize,
    /// Of complete ones.
    pub(super) last_iteration: Option<u64>,
    /// Of complete ones.
    pub(super) bytes: u64,
}

impl Report {
    pub(super) fn of(
        job: v1::JobView,
        training: Vec<Training>,
        checkpoints: &[v1::CheckpointView],
        now_ms: u64,
    ) -> Self {
        let ended = Some(job.ended_ms).filter(|at| *at > 0);
        let began = job.stages.iter().map(|stage| stage.started_ms).filter(|at| *at > 0).min();
        let complete = || checkpoints.iter().filter(|one| one.complete);
        Self {
            took_ms: ended.unwrap_or(now_ms).saturating_sub(job.submitted_ms),
            waited_ms: began.map(|began| began.saturating_sub(job.submitted_ms)),
            checkpoints: Checkpoints {
                complete: complete().count(),
                incomplete: checkpoints.len() - complete().count(),
                last_iteration: complete().map(|one| one.iteration).max(),
                bytes: complete().map(|one| one.bytes).sum(),
            },
            id: job.id,
            name: job.name,
            phase: job.phase,
            reason: Some(job.reason).filter(|reason| !reason.is_empty()),
            submitted_ms: job.submitted_ms,
            ended_ms: ended,
            stages: job.stages.into_iter().map(|stage| Stage::of(stage, now_ms)).collect(),
            training,
            failure: job.failure.map(Into::into),
        }
    }
}

impl Stage {
    fn of(stage: v1::StageView, now_ms: u64) -> Self {
        let end = if stage.ended_ms > 0 { stage.ended_ms } else { now_ms };
        let attempts = stage.task_views.iter().flat_map(|task| {
            task.history.iter().map(|past| Attempt {
                task: task.label.clone(),
                number: past.number,
                outcome: past.outcome.clone(),
                took_ms: past.ended_ms.saturating_sub(past.placed_ms),
                nodes: past.nodes.clone(),
                reason: past.failure.as_ref().and_then(|view| view.failure.as_ref()).map(diagnosis::cause),
            })
        });
        Self {
            attempts: attempts.collect(),
            took_ms: (stage.started_ms > 0).then(|| end.saturating_sub(stage.started_ms)),
            tasks: usize::try_from(stage.tasks).unwrap_or(usize::MAX),
            name: stage.name,
            kind: stage.kind,
            phase: stage.phase,
            reused_from: Some(stage.reused_from).filter(|from| !from.is_empty()),
        }
    }
}

impl Training {
    pub(super) fn of(stage: &v1::StageView, steps: &Steps, lost_ms: u64) -> Self {
        let losses = steps.losses().map(|ends| {
            let [first, last, best] = ends.map(|(iteration, loss)| Loss { iteration, loss });
            Losses { first, last, best }
        });
        let median = steps.median_ms().filter(|ms| *ms > 0.0);
        let attempts = |task: &v1::TaskView| {
            let present = task.attempt.rsplit('.').next().and_then(|number| number.parse::<usize>().ok());
            present.unwrap_or(0).max(task.history.len())
        };
        Self {
            stage: stage.name.clone(),
            iteration: stage.train.map(|train| train.iteration).or_else(|| steps.last()),
            iterations: stage.train.map(|train| train.iterations),
            steps: steps.count(),
            loss: losses,
            step_ms_median: median,
            tokens_per_second: median.and_then(|ms| rate(stage.tokens_per_step, ms)),
            restarts: stage.task_views.iter().map(|task| attempts(task).saturating_sub(1)).sum(),
            lost_ms,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A report with every field set.
    pub(in crate::command::report) fn full() -> Report {
        let failure = v1::Failure {
            node: "n1".into(),
            cause: "exit".into(),
            code: 1,
            message: "out of memory".into(),
            ..v1::Failure::default()
        };
        let failure = v1::FailureView { stage: "train".into(), attempt: "j1.train.0.1".into(), failure: Some(failure) };
        let attempt = |number, outcome: &str, placed_ms, ended_ms, failure| v1::AttemptView {
            number,
            outcome: outcome.into(),
            placed_ms,
            ended_ms,
            nodes: vec!["n1".into(), "n2".into()],
            failure,
        };
        let history =
            vec![attempt(1, "failed", 3000, 7000, Some(failure.clone())), attempt(2, "succeeded", 7000, 13_000, None)];
        let task = v1::TaskView { label: "all".into(), phase: "succeeded".into(), history, ..v1::TaskView::default() };
        let stage = v1::StageView {
            name: "train".into(),
            kind: "train".into(),
            phase: "failed".into(),
            started_ms: 3000,
            ended_ms: 15_000,
            tasks: 1,
            tokens_per_step: 1024,
            train: Some(v1::TrainProgress { iteration: 4, iterations: 9, ..v1::TrainProgress::default() }),
            task_views: vec![task],
            ..v1::StageView::default()
        };
        let mut steps = Steps::default();
        steps.read("iteration 1/9 | elapsed time per iteration (ms): 300 | lm loss: 2.5 |\n");
        steps.read("iteration 4/9 | elapsed time per iteration (ms): 200 | lm loss: 1.5 |\n");
        let checkpoint = |iteration, complete| v1::CheckpointView {
            stage: "train".into(),
            iteration,
            complete,
            completed_ms: u64::from(complete) * 14_000,
            bytes: 2048,
            ..v1::CheckpointView::default()
        };
        let checkpoints = [checkpoint(4, true), checkpoint(8, false)];
        let lost = super::super::lost::lost_ms(&stage, &checkpoints, 20_000);
        let job = v1::JobView {
            id: "j1".into(),
            name: "q".into(),
            phase: "failed".into(),
            reason: "it broke".into(),
            submitted_ms: 1000,
            ended_ms: 16_000,
            stages: vec![stage.clone()],
            failure: Some(failure),
            ..v1::JobView::default()
        };
        Report::of(job, vec![Training::of(&stage, &steps, lost)], &checkpoints, 20_000)
    }

    /// The report, for the contract's test.
    pub(crate) fn example() -> serde_json::Value {
        serde_json::to_value(crate::view::Document::new(full())).unwrap()
    }
}
