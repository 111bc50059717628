//! `qctl submit` and `qctl run`.

use clap_complete::ArgValueCompleter;
use proto::v1;
use serde::Serialize;

use super::follow::{Face, Followed, follow, last_event};
use super::{completion, diagnosis, plan};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::file::Source;
use crate::output::{Format, print_json, print_line, print_yaml, say};
use crate::text::{one_line, printable, program};
use crate::view::Document;

/// What to submit, and what to do then.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  qctl submit -f pipeline.yaml
  qctl submit -f pipeline.yaml --set stages.train.lr=1e-4 -e OMP_NUM_THREADS=1 -w
  generate | qctl submit -f - -n nightly --id nightly-2031-02-03 -o name")]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    source: Source,
    /// Key of this submission: repeating it with the same key gives the same job
    #[arg(long, value_name = "KEY")]
    id: Option<String>,
    /// Shows the plan and submits nothing
    #[arg(long)]
    dry_run: bool,
    /// Waits until the job has ended; its outcome is the exit code
    #[arg(short, long)]
    wait: bool,
    /// Shows progress until the job has ended; its outcome is the exit code
    #[arg(long, conflicts_with = "wait")]
    follow: bool,
    /// How the answer is written; `name` gives the job's id
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What to run.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Ctrl-C leaves the job running; `qctl cancel JOB` ends it.

Example:
  qctl run -f pipeline.yaml --set stages.train.train_iters=10")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    source: Source,
    /// Key of this submission: repeating it with the same key follows the same job
    #[arg(long, value_name = "KEY")]
    id: Option<String>,
}

/// Which job.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Ctrl-C leaves the job running. The job's outcome is the exit code.

Example:
  qctl follow last")]
pub(crate) struct FollowArgs {
    /// The job: an id, a name, the beginning of either, or `last`
    #[arg(add = ArgValueCompleter::new(completion::jobs))]
    job: String,
}

impl From<RunArgs> for SubmitArgs {
    fn from(run: RunArgs) -> Self {
        let RunArgs { source, id } = run;
        Self { source, id, dry_run: false, wait: false, follow: true, output: Format::Table }
    }
}

#[cfg(test)]
pub(crate) fn example() -> serde_json::Value {
    let submitted = Submitted {
        id: "j1".into(),
        name: "a".into(),
        warnings: vec!["w".into()],
        reused: vec!["convert: taken over from job j0".into()],
    };
    serde_json::to_value(Document::new(submitted)).unwrap_or_default()
}

#[derive(Serialize)]
struct Submitted {
    id: String,
    name: String,
    warnings: Vec<String>,
    reused: Vec<String>,
}

/// Submits, and follows or waits if asked to.
pub(crate) async fn run(args: SubmitArgs, mut client: Client) -> Result<(), Failure> {
    if args.dry_run {
        return plan::show(&args.source, args.output, client).await;
    }
    let reply = client.jobs.submit(args.source.request(args.id.as_deref())?).await?.into_inner();
    reply.warnings.iter().for_each(|warning| say(&format!("warning: {}", printable(warning))));
    let id = reply.id.clone();
    let watched = args.follow || args.wait;
    told(reply, args.output, watched)?;
    if !watched {
        return Ok(());
    }
    let face = if args.follow { Face::fitting() } else { Face::Quiet };
    follow_to_end(&client, &id, face, 0).await
}

/// Follows a job from behind the event `after`; its outcome is the result.
pub(super) async fn follow_to_end(client: &Client, id: &str, face: Face, after: u64) -> Result<(), Failure> {
    match follow(client, id, face, after).await? {
        Followed::Ended(job) => diagnosis::conclude(&job),
        Followed::Left => {
            say(&format!("left: job {id} goes on; follow again with {} follow {id}. Or:", program()));
            for next in ["explain", "logs -f", "cancel"] {
                say(&format!("  {} {next} {id}", program()));
            }
            Err(Failure::Said(Exit::Interrupted))
        }
    }
}

/// `qctl follow`.
pub(crate) async fn follow_again(args: &FollowArgs, mut client: Client) -> Result<(), Failure> {
    let job = client.jobs.get(v1::GetJobRequest { job: args.job.clone() }).await?.into_inner();
    let after = last_event(&client, &job.id).await?;
    follow_to_end(&client, &job.id, Face::fitting(), after).await
}

fn told(reply: v1::SubmitReply, format: Format, watched: bool) -> Result<(), Failure> {
    let v1::SubmitReply { id, name, warnings, reused } = reply;
    match format {
        Format::Json => print_json(&Document::new(Submitted { id, name, warnings, reused })),
        Format::Yaml => print_yaml(&Document::new(Submitted { id, name, warnings, reused })),
        Format::Name => print_line(&id),
        Format::Table | Format::Wide => {
            print_line(&one_line(&format!("submitted {name} ({id})")))?;
            if !watched {
                // Followers hear it from the stages.
                reused.iter().for_each(|one| say(&format!("reused: {}", one_line(one))));
                say(&format!("next: {} logs {id} -f", program()));
            }
            Ok(())
        }
    }
}
