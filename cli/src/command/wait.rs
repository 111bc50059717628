//! `qctl wait`.

use std::time::Duration;

use clap_complete::ArgValueCompleter;
use proto::v1;

use super::follow::{Face, Followed, follow_until};
use super::{completion, diagnosis};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::moment::span;
use crate::nearest::nearest;
use crate::output::say;
use crate::text::{one_line, program};

/// For which jobs, and for what.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
The exit code is that of the first job that did not succeed; with `--for`, 0 as soon as all have come
that far, and otherwise that of the first job that ended without.

Examples:
  qctl wait last --timeout 2h
  qctl wait last --for stage=convert && ls mcore")]
pub(crate) struct WaitArgs {
    /// The jobs
    #[arg(required = true, value_name = "JOB", add = ArgValueCompleter::new(completion::jobs))]
    jobs: Vec<String>,
    /// How far they must come: started, succeeded, failed, ended, or stage=NAME for the end of a stage
    #[arg(long = "for", value_name = "GOAL", value_parser = Goal::read)]
    goal: Option<Goal>,
    /// Gives up after this time, as in `30s`, `5m`, `2h`
    #[arg(long, value_name = "TIME", value_parser = span)]
    timeout: Option<u64>,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Goal {
    Started,
    Succeeded,
    Failed,
    Ended,
    Stage(String),
}

impl Goal {
    fn read(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("stage", name)) if !name.is_empty() => Ok(Self::Stage(name.to_owned())),
            None if text == "started" => Ok(Self::Started),
            None if text == "succeeded" => Ok(Self::Succeeded),
            None if text == "failed" => Ok(Self::Failed),
            None if text == "ended" => Ok(Self::Ended),
            _ => Err("expected started, succeeded, failed, ended or stage=NAME".to_owned()),
        }
    }

    /// Whether the job came that far; a job that has ended does not come further.
    fn is_reached(&self, job: &v1::JobView) -> bool {
        match self {
            Self::Started => job.stages.iter().any(|stage| stage.started_ms > 0 || stage.phase == "reused"),
            Self::Succeeded => job.phase == "succeeded",
            Self::Failed => job.phase == "failed",
            Self::Ended => job.ended_ms > 0,
            Self::Stage(name) => {
                let done = |stage: &v1::StageView| matches!(stage.phase.as_str(), "succeeded" | "reused");
                job.stages.iter().any(|stage| stage.name == *name && done(stage))
            }
        }
    }

    /// Whether it never will.
    fn is_lost(&self, job: &v1::JobView) -> bool {
        let over = |stage: &v1::StageView| matches!(stage.phase.as_str(), "failed" | "cancelled" | "skipped");
        job.ended_ms > 0
            || matches!(self, Self::Stage(name) if job.stages.iter().any(|stage| stage.name == *name && over(stage)))
    }

    /// What to say of a job that ended without.
    fn missed(&self, job: &v1::JobView) -> Failure {
        match (job.phase.as_str(), diagnosis::conclude(job)) {
            (_, Err(failure)) => failure,
            // It succeeded, or a stage of it has failed and the rest is still being stopped.
            ("succeeded", Ok(())) => Failure::Said(Exit::Failed),
            (_, Ok(())) => Failure::Said(Exit::JobFailed),
        }
    }
}

/// Waits for all.
pub(crate) async fn run(args: &WaitArgs, client: Client) -> Result<(), Failure> {
    let all = all(args, client);
    match args.timeout {
        None => all.await,
        Some(ms) => tokio::time::timeout(Duration::from_millis(ms), all).await.unwrap_or_else(|_| {
            let failure = Failure::new(Exit::Failed, "the jobs have not come that far in time");
            Err(failure.hint(format!("they go on; see why it takes so long: {} explain JOB", program())))
        }),
    }
}

async fn all(args: &WaitArgs, mut client: Client) -> Result<(), Failure> {
    let mut ids = Vec::new();
    for word in &args.jobs {
        // Words are resolved first, so that `last` means one job throughout.
        let job = client.jobs.get(v1::GetJobRequest { job: word.clone() }).await?.into_inner();
        if let Some(Goal::Stage(name)) = &args.goal {
            known_stage(&job, name)?;
        }
        ids.push(job.id);
    }
    let mut outcome = Ok(());
    for id in ids {
        outcome = outcome.and(one(args, &client, &id).await?);
    }
    outcome
}

/// The outer failure ends the waiting, the inner one is this job's outcome.
async fn one(args: &WaitArgs, client: &Client, id: &str) -> Result<Result<(), Failure>, Failure> {
    let settled = |job: &v1::JobView| match &args.goal {
        None => job.ended_ms > 0,
        Some(goal) => goal.is_reached(job) || goal.is_lost(job),
    };
    match follow_until(client, id, Face::Quiet, 0, &settled).await? {
        Followed::Ended(job) => Ok(match &args.goal {
            None => diagnosis::conclude(&job),
            Some(goal) if goal.is_reached(&job) => Ok(()),
            Some(goal) => Err(goal.missed(&job)),
        }),
        Followed::Left => {
            say(&format!("no longer waiting: job {id} goes on; wait again: {} wait {id}", program()));
            Err(Failure::Said(Exit::Interrupted))
        }
    }
}

fn known_stage(job: &v1::JobView, name: &str) -> Result<(), Failure> {
    let stages = job.stages.iter().map(|stage| stage.name.as_str());
    if stages.clone().any(|stage| stage == name) {
        return Ok(());
    }
    let failure = Failure::new(Exit::NotFound, format!("job {} has no stage `{}`", job.id, one_line(name)));
    let all = stages.clone().collect::<Vec<_>>().join(", ");
    Err(failure.hint(match nearest(name, stages) {
        Some(near) => format!("did you mean `{near}`? its stages: {all}"),
        None => format!("its stages: {all}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(phase: &str, stages: &[(&str, &str)]) -> v1::JobView {
        let stage = |(name, phase): &(&str, &str)| v1::StageView {
            name: (*name).to_owned(),
            phase: (*phase).to_owned(),
            started_ms: u64::from(!matches!(*phase, "pending" | "reused")),
            ..v1::StageView::default()
        };
        let ended = matches!(phase, "succeeded" | "failed" | "cancelled");
        v1::JobView {
            phase: phase.to_owned(),
            ended_ms: u64::from(ended),
            stages: stages.iter().map(stage).collect(),
            ..v1::JobView::default()
        }
    }

    #[test]
    fn goals_are_reached_or_lost() {
        let table = [
            ("started", job("pending", &[("a", "pending")]), false, false),
            ("started", job("running", &[("a", "reused"), ("b", "pending")]), true, false),
            ("started", job("cancelled", &[("a", "pending")]), false, true),
            ("succeeded", job("succeeded", &[]), true, true),
            ("succeeded", job("failed", &[]), false, true),
            ("failed", job("failed", &[]), true, true),
            ("ended", job("cancelled", &[]), true, true),
            ("stage=a", job("running", &[("a", "running")]), false, false),
            ("stage=a", job("running", &[("a", "succeeded")]), true, false),
            ("stage=a", job("cancelling", &[("a", "failed")]), false, true),
        ];
        for (goal, job, reached, lost) in table {
            let read = Goal::read(goal).unwrap();
            assert_eq!((read.is_reached(&job), read.is_lost(&job)), (reached, lost), "{goal} of {job:?}");
        }
        for wrong in ["", "stage", "stage=", "done", "ended=1"] {
            assert!(Goal::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_job_that_ends_otherwise_has_its_exit_code() {
        let exit = |goal: &str, phase: &str| match Goal::read(goal).unwrap().missed(&job(phase, &[])) {
            Failure::Said(exit) | Failure::Told { exit, .. } => exit,
            Failure::ReaderGone => Exit::Failed,
        };
        assert_eq!(exit("failed", "succeeded"), Exit::Failed);
        assert_eq!(exit("failed", "cancelled"), Exit::Cancelled);
        assert_eq!(exit("succeeded", "failed"), Exit::JobFailed);
    }

    #[test]
    fn an_unknown_stage_is_refused_with_the_nearest() {
        let Err(Failure::Told { exit, hint, .. }) = known_stage(&job("running", &[("train", "pending")]), "trian")
        else {
            panic!("it is unknown")
        };
        assert_eq!((exit, hint.as_deref()), (Exit::NotFound, Some("did you mean `train`? its stages: train")));
    }
}
