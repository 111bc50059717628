//! The command line.

mod backup;
mod etcd;
mod init;
mod run;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The controller of a qctl cluster.
#[derive(Debug, Parser)]
#[command(name = "qctl-controller", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT
    Run(run::Run),
    /// Make the CA, the controller's identity and a user's
    Init(init::Init),
    /// Write all that is remembered into one file
    Backup(backup::Backup),
    /// Remember what a backup holds, and nothing else
    Restore(backup::Restore),
    /// Take what one store holds over into the other
    Migrate(backup::Migrate),
}

/// What goes wrong on the command line, with the next thing to try.
#[derive(Debug)]
pub(crate) struct Failure {
    error: anyhow::Error,
    hint: Option<String>,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), hint: None }
    }
}

impl Failure {
    fn hinted(error: impl Into<anyhow::Error>, hint: Option<String>) -> Self {
        Self { error: error.into(), hint }
    }
}

impl Cli {
    /// Runs the command; errors and hints go to stderr.
    pub(crate) fn run(self) -> ExitCode {
        let outcome = match self.command {
            Command::Run(run) => run.run(),
            Command::Init(init) => init.run(),
            Command::Backup(backup) => backup.run(),
            Command::Restore(restore) => restore.run(),
            Command::Migrate(migrate) => migrate.run(),
        };
        let Err(failure) = outcome else { return ExitCode::SUCCESS };
        let mut text = format!("error: {:#}\n", failure.error);
        if let Some(hint) = failure.hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
        // A closed stderr leaves only the exit code to tell.
        let _ = std::io::stderr().write_all(text.as_bytes());
        ExitCode::FAILURE
    }
}

/// Prints a line of data.
fn print(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}
