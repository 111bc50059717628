//! `qctl dev`: a controller and agents on this computer, held together.

mod child;
mod detach;
mod jobs;
mod place;
mod process;
pub(crate) mod status;
mod stop;
mod supervisor;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use clap::{Subcommand, ValueEnum};

use crate::context;
use crate::failure::Failure;
use crate::output::Format;
use place::Place;

/// What to run, and how.
#[derive(Clone, Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Ctrl-C stops the controller and the agents; ranks that run are left alive and taken up again by the next `qctl dev`.

Examples:
  qctl dev --detach                        in the background; returns when all is ready
  qctl dev --agents 2 --slots 4            in the foreground
  qctl dev stop --stop-ranks"
)]
pub(crate) struct DevArgs {
    #[command(subcommand)]
    command: Option<DevCommand>,
    #[command(flatten)]
    shape: Shape,
    /// Runs in the background, and returns when all is ready
    #[arg(long)]
    detach: bool,
    /// Cancels jobs that run before it stops
    #[arg(long, conflicts_with = "detach")]
    stop_ranks: bool,
    /// Is the one in the background
    #[arg(long, hide = true, conflicts_with = "detach")]
    supervise: bool,
}

/// How large.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Shape {
    /// Number of agents
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    agents: u32,
    /// Slots of each agent: how many ranks it may run at once
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: u32,
    /// What a slot stands for
    #[arg(long, value_enum, default_value_t)]
    device: Device,
}

/// What a slot stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    /// A share of the processors
    #[default]
    Cpu,
    /// An NPU
    Ascend,
}

impl Device {
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Ascend => "ascend",
        }
    }
}

#[derive(Clone, Debug, Subcommand)]
enum DevCommand {
    /// Stops what `qctl dev` runs
    Stop {
        /// Cancels jobs that run before it stops
        #[arg(long)]
        stop_ranks: bool,
    },
    /// Says what `qctl dev` runs
    Status {
        /// How it is written; `name` gives the processes
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// A program, to be run in a session of its own.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SessionArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    argv: Vec<OsString>,
}

/// Leaves the caller's session, so that no terminal's signal arrives, and becomes the program.
pub(crate) fn session(args: &SessionArgs) -> Result<(), Failure> {
    let [program, rest @ ..] = args.argv.as_slice() else { return Ok(()) };
    // Fails only for a leader of a group, which has left its session's already.
    let _ = rustix::process::setsid();
    let error = Command::new(program).args(rest).exec();
    Err(Failure::because(format!("`{}` could not be started", Path::new(program).display()), &error))
}

/// Does what was asked for.
pub(crate) async fn run(args: DevArgs, state_dir: Option<&Path>) -> Result<(), Failure> {
    let place = Place::new(context::state_dir(state_dir)?);
    match args.command {
        Some(DevCommand::Stop { stop_ranks }) => stop::run(&place, stop_ranks).await,
        Some(DevCommand::Status { output }) => status::run(&place, output).await,
        None if args.detach => detach::run(&place, &args.shape).await,
        None => {
            if args.supervise {
                let _ = rustix::process::setsid();
            }
            supervisor::run(place, args.shape, args.stop_ranks).await
        }
    }
}
