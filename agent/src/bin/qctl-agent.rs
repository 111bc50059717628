//! The agent of one host.

use std::io::Write as _;
use std::process::ExitCode;

use agent::config::{Config, Flags};
use agent::{daemon, probe};
use clap::Parser;
use runtime::Tasks;
use tokio::signal::unix::{SignalKind, signal};

/// The agent of one host: dials its controller and runs what it is told.
#[derive(Debug, Parser)]
#[command(name = "qctl-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Runs until SIGTERM or SIGINT. What it has started goes on without it.
    Run(Box<Flags>),
    /// Gets this node's certificate for a token, and ends: `run` needs no token then.
    Join(Box<Flags>),
    /// Prints what this host's NPUs are and how they fare.
    Probe(probe::cli::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(flags) => serve(*flags, false),
        Command::Join(flags) => serve(*flags, true),
        Command::Probe(args) => look(&args),
    }
}

fn serve(flags: Flags, join_only: bool) -> ExitCode {
    runtime::trace::init("qctl-agent", flags.log_json);
    let checked = if join_only { Config::joining(flags) } else { flags.check() };
    let config = match checked {
        Ok(config) => config,
        Err(error) => return fail(&error, Some("`qctl-agent run --help` lists all flags"), 2),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, None, 1),
    };
    let done = runtime.block_on(async { if join_only { daemon::join(&config).await } else { run(config).await } });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.hint(), 1),
    }
}

fn look(args: &probe::cli::Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, None, 1),
    };
    match runtime.block_on(probe::cli::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.hint(), error.exit()),
    }
}

async fn run(config: agent::config::Config) -> Result<(), daemon::Error> {
    let state = |source| daemon::Error::State { path: config.state_dir.clone(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(state)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(state)?;
    let tasks = Tasks::new();
    let stop = tasks.stop_token();
    let told = stop.clone();
    tasks.spawn("signals", async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: ending; what runs goes on"),
            _ = interrupt.recv() => tracing::info!("SIGINT: ending; what runs goes on"),
            () = told.cancelled() => {}
        }
        told.cancel();
    });
    let outcome = daemon::run(config, stop.clone()).await;
    tasks.shutdown(std::time::Duration::from_secs(1)).await;
    outcome
}

/// Prints the error and what caused it, and the next thing to try.
fn fail(error: &dyn std::error::Error, hint: Option<&str>, code: u8) -> ExitCode {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    if let Some(hint) = hint {
        text.push_str(&format!("\nhint: {hint}"));
    }
    // Nothing is left to do where stderr itself is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(code)
}
