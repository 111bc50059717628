//! `qctl restart`.

use clap_complete::ArgValueCompleter;
use proto::v1;
use serde::Serialize;

use super::completion;
use super::follow::{Face, last_event};
use super::submit::follow_to_end;
use crate::client::Client;
use crate::failure::Failure;
use crate::moment::span;
use crate::output::{Format, print_json, print_line, print_yaml, say};
use crate::text::{one_line, program};
use crate::view::Document;

/// Which job, and from where.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Stages that have succeeded are kept, unless they come after the one that is named.

Examples:
  qctl restart last
  qctl restart quickstart --from-stage train --from-checkpoint 10 --follow")]
pub(crate) struct RestartArgs {
    /// The job: an id, a name, the beginning of either, or `last`
    #[arg(add = ArgValueCompleter::new(completion::jobs))]
    job: String,
    /// Begins again with this stage and all that come after it
    #[arg(long, value_name = "STAGE", default_value = "", hide_default_value = true,
          add = ArgValueCompleter::new(completion::stages))]
    from_stage: String,
    /// Goes on from this complete checkpoint, by its iteration; they are listed by `qctl ckpt ls`
    #[arg(long, value_name = "ITERATION")]
    from_checkpoint: Option<u64>,
    /// Stops what runs; a running job is refused otherwise
    #[arg(long)]
    stop_running: bool,
    /// How long processes may take to end by themselves, as in `30s`, `5m`
    #[arg(long, value_name = "TIME", value_parser = span, requires = "stop_running")]
    grace: Option<u64>,
    /// Why, for those who read the job's events
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Key of this restart: repeating it with the same key changes nothing
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    id: String,
    /// Shows progress until the job has ended; its outcome is the exit code
    #[arg(long)]
    follow: bool,
    /// How the answer is written; `name` gives the job's id
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Restarted {
    id: String,
    name: String,
    /// restarted, repeated, nothing-to-do
    outcome: String,
    stages: Vec<String>,
}

/// Restarts, and follows if asked to.
pub(crate) async fn run(args: RestartArgs, mut client: Client) -> Result<(), Failure> {
    let request = v1::RestartRequest {
        job: args.job,
        from_stage: args.from_stage,
        from_checkpoint: args.from_checkpoint,
        idempotency_key: args.id,
        stop_running: args.stop_running,
        grace_ms: args.grace,
        reason: args.reason,
    };
    // What happened before is no news to one who follows.
    let before = if args.follow { last_event(&client, &request.job).await? } else { 0 };
    let v1::RestartReply { id, name, outcome, stages } = client.jobs.restart(request).await?.into_inner();
    let begins = outcome != "nothing-to-do";
    let restarted = Restarted { id: id.clone(), name, outcome, stages };
    match args.output {
        Format::Json => print_json(&Document::new(restarted))?,
        Format::Yaml => print_yaml(&Document::new(restarted))?,
        Format::Name => print_line(&one_line(&id))?,
        Format::Table | Format::Wide => print_line(&told(&restarted))?,
    }
    match (args.follow, begins) {
        (true, true) => follow_to_end(&client, &id, Face::fitting(), before).await,
        (false, true) => {
            say(&format!("next: {} logs {id} -f", program()));
            Ok(())
        }
        (_, false) => Ok(()),
    }
}

fn told(restarted: &Restarted) -> String {
    let Restarted { id, name, outcome, stages } = restarted;
    one_line(&match outcome.as_str() {
        "restarted" => format!("restarted {name} ({id}): {} again", stages.join(", ")),
        "repeated" => format!("{name} ({id}) was restarted with this key before"),
        "nothing-to-do" => format!("{name} ({id}) has succeeded; to do a part of it again: --from-stage STAGE"),
        other => format!("{name} ({id}): {other}"),
    })
}

#[cfg(test)]
pub(crate) fn example() -> serde_json::Value {
    let restarted =
        Restarted { id: "j1".into(), name: "a".into(), outcome: "restarted".into(), stages: vec!["train".into()] };
    serde_json::to_value(Document::new(restarted)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_sentence() {
        let shown = |outcome: &str| {
            told(&Restarted {
                id: "j1".into(),
                name: "a".into(),
                outcome: outcome.into(),
                stages: vec!["train".into(), "export".into()],
            })
        };
        assert_eq!(shown("restarted"), "restarted a (j1): train, export again");
        assert!(shown("repeated").contains("before") && shown("nothing-to-do").contains("--from-stage"));
    }
}
