//! `qctl cancel`.

use clap_complete::ArgValueCompleter;
use proto::v1;

use super::completion;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::moment::span;
use crate::output::{print_line, say};
use crate::text::one_line;

/// Which jobs, and how gently.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  qctl cancel last --reason \"wrong dataset\" --grace 2m")]
pub(crate) struct CancelArgs {
    /// The jobs
    #[arg(required = true, value_name = "JOB", add = ArgValueCompleter::new(completion::jobs))]
    jobs: Vec<String>,
    /// Why, for those who read the job's events
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// How long processes may take to end by themselves, as in `30s`, `5m`
    #[arg(long, value_name = "TIME", value_parser = span)]
    grace: Option<u64>,
    /// Kills processes at once: a trainer saves nothing more
    #[arg(long, conflicts_with = "grace")]
    force: bool,
}

/// Cancels each; one that cannot be cancelled does not spare the others.
pub(crate) async fn run(args: &CancelArgs, mut client: Client) -> Result<(), Failure> {
    let mut first = None;
    for job in &args.jobs {
        let grace_ms = if args.force { Some(0) } else { args.grace };
        let request = v1::CancelRequest { job: job.clone(), reason: args.reason.clone(), grace_ms };
        match client.jobs.cancel(request).await {
            Ok(reply) => print_line(&told(job, &reply.into_inner()))?,
            Err(status) => {
                let failure = Failure::from(status);
                if let Failure::Told { exit, message, hint } = &failure
                    && args.jobs.len() > 1
                {
                    say(&format!("error: {}", one_line(message)));
                    if let Some(hint) = hint {
                        say(&format!("hint: {}", one_line(hint)));
                    }
                    first.get_or_insert(Failure::Said(*exit));
                    if *exit == Exit::Unreachable {
                        break;
                    }
                } else {
                    return Err(failure);
                }
            }
        }
    }
    first.map_or(Ok(()), Err)
}

fn told(word: &str, reply: &v1::CancelReply) -> String {
    match reply.outcome.as_str() {
        "already-ended" => one_line(&format!("{word} ({}) had ended already: {}", reply.id, reply.phase)),
        outcome => one_line(&format!("{word} ({}) {outcome}", reply.id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_had_ended_says_so() {
        let reply = |outcome: &str, phase: &str| v1::CancelReply {
            id: "j1".into(),
            outcome: outcome.into(),
            phase: phase.into(),
        };
        assert_eq!(told("a", &reply("already-ended", "failed")), "a (j1) had ended already: failed");
        assert_eq!(told("a", &reply("cancelling", "")), "a (j1) cancelling");
    }
}
