//! `qctl ckpt`.

mod contents;
mod faults;
mod inspect;
mod keep;
mod pull;
mod target;

use std::path::PathBuf;

use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use proto::v1;

use self::target::Iteration;
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
    /// Shows what one checkpoint holds, and whether it is whole
    #[command(after_help = "\
A directory is looked at without a controller. Of a job's checkpoint the contents are shown where its
files are on this computer.

Examples:
  qctl ckpt describe ./pretrain_ckpt
  qctl ckpt describe ./pretrain_ckpt --iteration 2000 --tp 2 --pp 2
  qctl ckpt describe last")]
    Describe {
        /// Directory that holds `iter_…`, or one of these; or a job
        #[arg(value_name = "DIR|JOB", add = ArgValueCompleter::new(completion::jobs))]
        what: String,
        /// Which: its number, or `latest`, the newest complete one
        #[arg(long, value_name = "N", default_value = "latest", value_parser = target::iteration)]
        iteration: Iteration,
        /// Whether it can be loaded with this tensor-parallel size
        #[arg(long, value_name = "N", requires = "pp", value_parser = clap::value_parser!(u32).range(1..=4096))]
        tp: Option<u32>,
        /// … and this pipeline-parallel size
        #[arg(long, value_name = "N", requires = "tp", value_parser = clap::value_parser!(u32).range(1..=4096))]
        pp: Option<u32>,
        /// How it is written; `name` gives its directory
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Reads every byte of one checkpoint, and names the first file that is broken
    #[command(after_help = "\
Compares every member of every shard with its checksum, and every tensor with its place in the model.
A job's checkpoint is read by the agents of the nodes that hold it; if it is broken, nothing goes on from
it any more. The exit code is 1 if anything is broken, missing, or could not be read.

Examples:
  qctl ckpt verify last
  qctl ckpt verify last 2000
  qctl ckpt verify ./pretrain_ckpt --iteration 2000")]
    Verify {
        /// Directory that holds `iter_…`, or one of these; or a job
        #[arg(value_name = "DIR|JOB", add = ArgValueCompleter::new(completion::jobs))]
        what: String,
        /// Which: its number, or `latest`, the newest complete one
        #[arg(value_name = "ITERATION", default_value = "latest", value_parser = target::iteration)]
        which: Iteration,
        /// The same
        #[arg(long, value_name = "N", conflicts_with = "which", value_parser = target::iteration)]
        iteration: Option<Iteration>,
        /// How it is written; `name` gives its directory if it is whole
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Keeps a job's checkpoint from being removed
    #[command(after_help = "Example:\n  qctl ckpt pin last 2000")]
    Pin(PinArgs),
    /// Lets a pinned checkpoint be removed again
    #[command(after_help = "Example:\n  qctl ckpt unpin last 2000")]
    Unpin(PinArgs),
    /// Removes a job's checkpoint on the nodes that hold it
    #[command(after_help = "\
Nothing goes on from it once this is asked for; its files go next, and a tracker that names it
names the newest one that is left. A pinned one is never removed, and with --force only what a job
that has not ended may need: its newest complete one, and any that it may be writing. Where a node
cannot be reached, repeat it later.

Example:
  qctl ckpt rm last 2000")]
    Rm {
        /// Whose
        #[arg(add = ArgValueCompleter::new(completion::jobs))]
        job: String,
        /// Which, by its number
        iteration: u64,
        /// Also what a job that has not ended may need
        #[arg(long)]
        force: bool,
        /// How the answer is written; `name` gives the iteration
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Copies a job's checkpoint into a directory of this computer
    #[command(after_help = "\
The copy appears whole or not at all, after every byte of it was read back; the tracker is written last.
Only files that this computer sees can be copied.

Example:
  qctl ckpt pull last ./kept --iteration 2000")]
    Pull {
        /// Whose
        #[arg(add = ArgValueCompleter::new(completion::jobs))]
        job: String,
        /// Directory that gets `iter_…` and the tracker; made if it is not there
        dest: PathBuf,
        /// Which: its number, or `latest`, the newest complete one
        #[arg(long, value_name = "N", default_value = "latest", value_parser = target::iteration)]
        iteration: Iteration,
        /// How the answer is written; `name` gives the directory of the copy
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// Which checkpoint of a job.
#[derive(Clone, Debug, clap::Args)]
struct PinArgs {
    /// Whose
    #[arg(add = ArgValueCompleter::new(completion::jobs))]
    job: String,
    /// Which, by its number
    iteration: u64,
    /// How the answer is written; `name` gives the iteration
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Does what is asked with checkpoints; a directory needs no controller.
pub(crate) async fn run(args: &CkptArgs, client: Result<Client, Failure>) -> Result<(), Failure> {
    match &args.command {
        CkptCommand::Ls { job, output } => list(job.as_deref(), *output, client?).await,
        CkptCommand::Describe { what, iteration, tp, pp, output } => {
            inspect::describe(what, *iteration, tp.zip(*pp), *output, client).await
        }
        CkptCommand::Verify { what, which, iteration, output } => {
            inspect::verify(what, iteration.unwrap_or(*which), *output, client).await
        }
        CkptCommand::Pin(args) => keep::pin(&args.job, args.iteration, true, args.output, client?).await,
        CkptCommand::Unpin(args) => keep::pin(&args.job, args.iteration, false, args.output, client?).await,
        CkptCommand::Rm { job, iteration, force, output } => {
            keep::remove(job, *iteration, *force, *output, client?).await
        }
        CkptCommand::Pull { job, dest, iteration, output } => pull::run(job, *iteration, dest, *output, client?).await,
    }
}

/// One document of each command that has its own, by the title of its section in docs/json.md.
#[cfg(test)]
pub(super) fn examples() -> Vec<(&'static str, serde_json::Value)> {
    let mut all = Vec::from(inspect::examples());
    all.extend(keep::examples());
    all.push(faults::example());
    all.push(pull::example());
    all
}

async fn list(job: Option<&str>, output: Format, mut client: Client) -> Result<(), Failure> {
    let request = v1::ListCheckpointsRequest { job: job.unwrap_or_default().to_owned() };
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
    let complete = match (one.complete, one.removing, one.broken) {
        (true, ..) => time(one.completed_ms),
        (false, true, _) => "being removed".to_owned(),
        (false, false, true) => "broken".to_owned(),
        (false, false, false) => "no".to_owned(),
    };
    let complete = if one.pinned { format!("{complete}, pinned") } else { complete };
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
