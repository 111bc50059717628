//! qctl, the command line: one file per command; table, JSON and quiet output.
//!
//! Knows the controller's interface and no state of its own; `dev` alone also
//! starts and holds processes.

mod args;
mod client;
mod command;
mod context;
mod dev;
mod failure;
mod file;
mod moment;
mod nearest;
mod output;
mod ranks;
mod screen;
mod table;
mod text;
mod view;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    command::complete();
    let cli = args::Cli::try_parse().unwrap_or_else(|error| args::refuse(&error));
    match command::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
