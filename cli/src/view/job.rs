//! Jobs in the JSON contract.

use proto::v1;
use serde::Serialize;

use super::{given, known};

/// A job in a listing.
#[derive(Debug, Serialize)]
pub(crate) struct JobLine {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) priority: i32,
    /// pending, running, cancelling, succeeded, failed, cancelled
    pub(crate) phase: String,
    pub(crate) reason: Option<String>,
    pub(crate) submitted_ms: Option<u64>,
    pub(crate) ended_ms: Option<u64>,
    pub(crate) workdir: String,
    pub(crate) stages: Vec<Stage>,
}

/// A job in full.
#[derive(Debug, Serialize)]
pub(crate) struct Job {
    #[serde(flatten)]
    line: JobLine,
    failure: Option<Failed>,
    /// The file as it was submitted.
    spec: String,
}

/// A stage of a job.
#[derive(Debug, Serialize)]
pub(crate) struct Stage {
    name: String,
    kind: String,
    /// pending, running, succeeded, reused, failed, cancelled, skipped
    phase: String,
    reason: Option<String>,
    after: Vec<String>,
    reused_from: Option<String>,
    started_ms: Option<u64>,
    ended_ms: Option<u64>,
    tasks_total: u32,
    tasks_done: u32,
    tasks_running: u32,
    progress: Option<Progress>,
    train: Option<Train>,
    /// By the trainer's command line.
    tokens_per_step: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<Task>,
}

/// How far an engine is.
#[derive(Debug, Serialize)]
struct Progress {
    done: u64,
    total: u64,
    unit: String,
    tokens: u64,
    per_second: Option<f64>,
    tokens_per_second: Option<f64>,
    text_bytes_per_second: Option<f64>,
    seconds_left: Option<u64>,
}

/// How far training is.
#[derive(Debug, Serialize)]
struct Train {
    iteration: u64,
    iterations: u64,
    consumed_samples: u64,
    loss: f64,
    grad_norm: f64,
    learning_rate: f64,
    step_ms: f64,
}

/// A task of a stage.
#[derive(Debug, Serialize)]
struct Task {
    label: String,
    phase: String,
    reason: Option<String>,
    attempt: Option<String>,
    seats: Vec<Seat>,
    summary: Option<String>,
    files: Vec<FileRecord>,
    history: Vec<Attempt>,
    failure: Option<Failed>,
}

#[derive(Debug, Serialize)]
struct Seat {
    node: String,
    first_rank: u32,
    ranks: u32,
    phase: String,
}

#[derive(Debug, Serialize)]
struct FileRecord {
    path: String,
    size: u64,
    digest: String,
}

#[derive(Debug, Serialize)]
struct Attempt {
    number: u32,
    outcome: String,
    placed_ms: Option<u64>,
    ended_ms: Option<u64>,
    nodes: Vec<String>,
    failure: Option<Failed>,
}

/// A failure and what proves it.
#[derive(Debug, Serialize)]
pub(crate) struct Failed {
    pub(crate) stage: String,
    pub(crate) attempt: String,
    pub(crate) node: String,
    pub(crate) rank: Option<u32>,
    /// exit, signal, refused, node-lost, hang
    pub(crate) cause: String,
    pub(crate) code: i32,
    pub(crate) at_ms: Option<u64>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) evidence: Vec<String>,
}

impl From<v1::JobView> for JobLine {
    fn from(job: v1::JobView) -> Self {
        Self {
            id: job.id,
            name: job.name,
            owner: job.owner,
            priority: job.priority,
            phase: job.phase,
            reason: given(job.reason),
            submitted_ms: known(job.submitted_ms),
            ended_ms: known(job.ended_ms),
            workdir: job.workdir,
            stages: job.stages.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::JobView> for Job {
    fn from(mut job: v1::JobView) -> Self {
        let failure = job.failure.take().map(Into::into);
        let spec = std::mem::take(&mut job.spec);
        Self { line: job.into(), failure, spec }
    }
}

impl From<v1::StageView> for Stage {
    fn from(stage: v1::StageView) -> Self {
        Self {
            name: stage.name,
            kind: stage.kind,
            phase: stage.phase,
            reason: given(stage.reason),
            after: stage.after,
            reused_from: given(stage.reused_from),
            started_ms: known(stage.started_ms),
            ended_ms: known(stage.ended_ms),
            tasks_total: stage.tasks,
            tasks_done: stage.tasks_done,
            tasks_running: stage.tasks_running,
            progress: stage.progress.map(Into::into),
            train: stage.train.map(Into::into),
            tokens_per_step: known(stage.tokens_per_step),
            tasks: stage.task_views.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::EngineProgress> for Progress {
    fn from(now: v1::EngineProgress) -> Self {
        let speed = |speed: f64| (speed > 0.0).then_some(speed);
        Self {
            done: now.done,
            total: now.total,
            unit: now.unit,
            tokens: now.tokens,
            per_second: speed(now.per_second),
            tokens_per_second: speed(now.tokens_per_second),
            text_bytes_per_second: speed(now.text_bytes_per_second),
            seconds_left: now.seconds_left,
        }
    }
}

impl From<v1::TrainProgress> for Train {
    fn from(now: v1::TrainProgress) -> Self {
        Self {
            iteration: now.iteration,
            iterations: now.iterations,
            consumed_samples: now.consumed_samples,
            loss: now.loss,
            grad_norm: now.grad_norm,
            learning_rate: now.learning_rate,
            step_ms: now.step_ms,
        }
    }
}

impl From<v1::TaskView> for Task {
    fn from(task: v1::TaskView) -> Self {
        let seat = |seat: v1::SeatView| Seat {
            node: seat.node,
            first_rank: seat.first_rank,
            ranks: seat.ranks,
            phase: seat.phase,
        };
        let file = |file: v1::FileRecord| FileRecord { path: file.path, size: file.size, digest: file.digest };
        Self {
            label: task.label,
            phase: task.phase,
            reason: given(task.reason),
            attempt: given(task.attempt),
            seats: task.seats.into_iter().map(seat).collect(),
            summary: given(task.summary),
            files: task.files.into_iter().map(file).collect(),
            history: task.history.into_iter().map(Into::into).collect(),
            failure: task.failure.map(Into::into),
        }
    }
}

impl From<v1::AttemptView> for Attempt {
    fn from(attempt: v1::AttemptView) -> Self {
        Self {
            number: attempt.number,
            outcome: attempt.outcome,
            placed_ms: known(attempt.placed_ms),
            ended_ms: known(attempt.ended_ms),
            nodes: attempt.nodes,
            failure: attempt.failure.map(Into::into),
        }
    }
}

impl From<v1::FailureView> for Failed {
    fn from(view: v1::FailureView) -> Self {
        let failure = view.failure.unwrap_or_default();
        Self {
            stage: view.stage,
            attempt: view.attempt,
            node: failure.node,
            rank: failure.rank,
            cause: failure.cause,
            code: failure.code,
            at_ms: known(failure.at_ms),
            message: failure.message,
            hint: given(failure.hint),
            evidence: failure.evidence,
        }
    }
}
