//! `qctl cancel`.

use clap_complete::ArgValueCompleter;
use proto::v1;

use super::completion;
use crate::client::Client;
use crate::failure::{Exit, Failure};
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

/// Reads `30s`, `5m`, `2h`, `500ms` or plain seconds; milliseconds, a day at most.
pub(crate) fn span(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no time; expected as in `500ms`, `30s`, `5m`, `2h`");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).filter(|ms| *ms <= 86_400_000).ok_or_else(|| format!("`{text}` is more than a day"))
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
    fn times_have_units_and_an_end() {
        let table = [("500ms", 500), ("30", 30_000), ("30s", 30_000), ("5m", 300_000), ("24h", 86_400_000)];
        for (text, ms) in table {
            assert_eq!(span(text), Ok(ms), "{text}");
        }
        for text in ["", "s", "5d", "-1s", "1.5s", "25h", "99999999999999999999s"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

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
