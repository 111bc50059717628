//! What a restart asks for, and how it is answered.

use model::{Job, JobId, StageName};
use planner::{Reply, Restart, RestartRefusal};
use proto::v1;
use tonic::{Code, Status};

use super::jobs::{GRACE, LONGEST_GRACE};
use super::nearest::did_you_mean;
use super::refuse;

/// Longest key and reason, in characters.
const LONGEST: usize = 1000;

/// The planner's input for a request about the job `id`.
pub(super) fn wish(request: v1::RestartRequest, id: JobId, by: String) -> Result<Restart, Status> {
    if request.idempotency_key.len() > LONGEST {
        return Err(Status::invalid_argument(format!("an idempotency key has at most {LONGEST} bytes")));
    }
    let from_stage = Some(request.from_stage).filter(|name| !name.is_empty()).map(StageName::new).transpose();
    Ok(Restart {
        job: id,
        by,
        reason: request.reason.chars().take(LONGEST).collect(),
        key: Some(request.idempotency_key).filter(|key| !key.is_empty()),
        from_stage: from_stage.map_err(|error| Status::invalid_argument(error.to_string()))?,
        from_checkpoint: request.from_checkpoint,
        stop_running: request.stop_running,
        grace_ms: request.grace_ms.unwrap_or(GRACE).min(LONGEST_GRACE),
    })
}

/// The answer, or why the job is not restarted.
pub(super) fn reply(said: Option<Reply>, wish: &Restart, job: &Job) -> Result<v1::RestartReply, Status> {
    let (outcome, stages) = match said {
        Some(Reply::Restarted(stages)) => ("restarted", stages),
        Some(Reply::RestartedBefore) => ("repeated", Vec::new()),
        Some(Reply::NothingToRestart) => ("nothing-to-do", Vec::new()),
        Some(Reply::NoSuchJob) => return Err(Status::not_found(format!("job `{}` is gone", job.id))),
        Some(Reply::NameInUse { holder }) => {
            return Err(refuse(
                Code::AlreadyExists,
                format!("the job's name `{}` is in use by job `{holder}`", job.name),
                Some(format!("wait for that job or end it: qctl cancel {holder}")),
            ));
        }
        Some(Reply::RestartRefused(refusal)) => return Err(refused(refusal, wish, job)),
        Some(_) | None => return Err(Status::internal("the restart was not answered")),
    };
    Ok(v1::RestartReply {
        id: job.id.to_string(),
        name: job.name.to_string(),
        outcome: outcome.to_owned(),
        stages: stages.iter().map(ToString::to_string).collect(),
    })
}

fn refused(refusal: RestartRefusal, wish: &Restart, job: &Job) -> Status {
    let stages: Vec<&str> = job.stages.iter().map(|stage| stage.name.as_str()).collect();
    match refusal {
        RestartRefusal::Running => refuse(
            Code::FailedPrecondition,
            format!("job `{}` is running", job.name),
            Some("say that what runs may be stopped, or cancel the job first".to_owned()),
        ),
        RestartRefusal::Ending => refuse(
            Code::FailedPrecondition,
            format!("job `{}` is being ended", job.name),
            Some(format!("wait until it has ended: qctl wait {}", job.id)),
        ),
        RestartRefusal::NoSuchStage => {
            let wanted = wish.from_stage.as_ref().map(StageName::as_str).unwrap_or_default();
            let hint = did_you_mean(wanted, stages.iter().copied(), &format!("its stages: {}", stages.join(", ")));
            refuse(Code::NotFound, format!("job `{}` has no stage `{wanted}`", job.name), Some(hint))
        }
        RestartRefusal::NoTraining => refuse(
            Code::FailedPrecondition,
            "a checkpoint was named, but not exactly one training stage begins again".to_owned(),
            Some("name the training stage to begin again with".to_owned()),
        ),
        RestartRefusal::NeverResumes { stage } => refuse(
            Code::FailedPrecondition,
            format!("stage `{stage}` was submitted with `resume: never`, or keeps no checkpoints"),
            Some("leave the checkpoint out to begin it afresh".to_owned()),
        ),
        RestartRefusal::NoSuchCheckpoint { stage, complete } => {
            let iterations: Vec<String> = complete.iter().take(10).map(ToString::to_string).collect();
            let hint = if iterations.is_empty() {
                "it has none yet: leave the checkpoint out".to_owned()
            } else {
                format!("its complete checkpoints, newest first: {}", iterations.join(", "))
            };
            let iteration = wish.from_checkpoint.unwrap_or_default();
            let message = format!("stage `{stage}` has no complete checkpoint of iteration {iteration}");
            refuse(Code::NotFound, message, Some(hint))
        }
    }
}
