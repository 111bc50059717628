//! `qctl ckpt`.

use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use proto::v1;

use super::completion;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Format, print_json, print_line, print_yaml, say};
use crate::table::print_table;
use crate::text::{bytes, one_line, time};
use crate::view::{Checkpoints, Document};

/// What to do with checkpoints.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CkptArgs {
    #[command(subcommand)]
    command: CkptCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum CkptCommand {
    /// Lists checkpoints of a job, or of all jobs
    #[command(after_help = "Example:\n  qctl ckpt ls last")]
    Ls {
        /// Job whose checkpoints to list; all jobs unless given
        #[arg(add = ArgValueCompleter::new(completion::jobs))]
        job: Option<String>,
        /// How the list is written; `name` gives directories of complete checkpoints
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// Lists checkpoints.
pub(crate) async fn run(args: &CkptArgs, mut client: Client) -> Result<(), Failure> {
    let CkptCommand::Ls { job, output } = &args.command;
    let request = v1::ListCheckpointsRequest { job: job.clone().unwrap_or_default() };
    let found = client.checkpoints.list(request).await?.into_inner().checkpoints;
    let document = |found: Vec<v1::CheckpointView>| {
        Document::new(Checkpoints { checkpoints: found.into_iter().map(Into::into).collect() })
    };
    match output {
        Format::Json => print_json(&document(found)),
        Format::Yaml => print_yaml(&document(found)),
        Format::Name => {
            found.iter().filter(|one| one.complete).try_for_each(|one| print_line(&one_line(&one.directory)))
        }
        Format::Table | Format::Wide if found.is_empty() => {
            say("no checkpoint was written yet");
            Ok(())
        }
        Format::Table | Format::Wide => {
            let header = ["JOB", "STAGE", "ITERATION", "COMPLETE", "SHARDS", "SIZE", "DIRECTORY"];
            print_table(header, found.iter().map(line).collect())
        }
    }
}

fn line(one: &v1::CheckpointView) -> [String; 7] {
    let complete = if one.complete { time(one.completed_ms) } else { "no".to_owned() };
    [
        one.job.clone(),
        one.stage.clone(),
        one.iteration.to_string(),
        complete,
        format!("{}/{}", one.shards, one.shards_expected),
        bytes(one.bytes),
        one.directory.clone(),
    ]
}
