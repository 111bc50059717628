//! Measures the control plane from outside, beside the bars that it is held to.
//!
//! Starts the real programs (`qctl dev`: one controller, two agents, mutual
//! TLS; for what no one computer has, controllers alone and agents that this
//! program plays), speaks to them as any client does, and prints one line for
//! each number. Everything it starts is its descendant, so no process is left out
//! of the account.

mod burst;
mod death;
mod failover;
mod fanout;
mod fleet;
mod follow;
mod idle;
mod lab;
mod processes;
mod sim;
mod start;
mod tasks;
mod verdict;
mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};

use crate::lab::Lab;
use crate::verdict::Verdict;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// From the call to the first instruction of the task
    Start,
    /// Many small tasks beside a bare loop that starts the same processes
    Burst,
    /// From a rank's death to the last rank that is told
    Death,
    /// From a rank's line to the reader's stream
    Follow,
    /// Processor time with nothing to do
    Idle,
    /// Small tasks without processes, on played agents: a file, and an etcd of one member
    Tasks,
    /// From the call to the last of 1,000 ranks on played agents that is told to start
    Fanout,
    /// Beats of many played agents beside a server that only answers them
    Fleet,
    /// From the leader's end to the next job accepted, of three controllers on one etcd
    Failover,
}

/// Measures controller and agents beside their bars.
#[derive(Debug, Parser)]
struct Args {
    /// Where qctl and its programs are; beside this program unless told
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Where a directory for the measurement is made; removed afterwards
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Tasks of the burst
    #[arg(long, default_value_t = 2000)]
    tasks: u32,
    /// Tasks without processes
    #[arg(long, default_value_t = 20_000)]
    played_tasks: u32,
    /// Agents of the fleet
    #[arg(long, default_value_t = 5000)]
    agents: u32,
    /// Seconds for which the fleet beats
    #[arg(long, default_value_t = 60)]
    fleet_seconds: u64,
    /// What to measure; everything unless told
    #[arg(value_enum)]
    what: Vec<What>,
}

fn main() -> ExitCode {
    // The same program is also what the tasks run.
    if let Some(done) = work::perform() {
        return report(done.map(|()| true));
    }
    report(measure(&Args::parse()))
}

fn report(outcome: anyhow::Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            verdict::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

impl Args {
    /// Where the programs are.
    fn bin_dir(&self) -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe()?;
        self.bin_dir.clone().or_else(|| own.parent().map(Path::to_owned)).context("no directory")
    }

    fn asks(&self, what: &[What]) -> bool {
        self.what.is_empty() || self.what.iter().any(|asked| what.contains(asked))
    }
}

/// Whether every bar was met.
fn measure(args: &Args) -> anyhow::Result<bool> {
    processes::inherit()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut verdicts: Vec<Verdict> = Vec::new();
        if args.asks(&[What::Start, What::Burst, What::Death, What::Follow, What::Idle]) {
            verdicts.extend(with_processes(args).await?);
        }
        if args.asks(&[What::Fanout]) {
            verdicts.extend(fanout::measure(args).await?);
        }
        if args.asks(&[What::Fleet]) {
            verdicts.extend(fleet::measure(args).await?);
        }
        // Last what needs an etcd.
        if args.asks(&[What::Tasks]) {
            verdicts.extend(tasks::measure(args).await?);
        }
        if args.asks(&[What::Failover]) {
            verdicts.extend(failover::measure(args).await?);
        }
        Ok(verdicts.iter().all(Verdict::is_met))
    })
}

/// What is measured with real agents and real processes.
async fn with_processes(args: &Args) -> anyhow::Result<Vec<Verdict>> {
    let mut lab = Lab::start(args).await?;
    let mut verdicts = Vec::new();
    if args.asks(&[What::Idle]) {
        verdicts.extend(idle::measure(&lab).await?);
    }
    if args.asks(&[What::Start]) {
        verdicts.extend(start::measure(&mut lab).await?);
    }
    if args.asks(&[What::Burst]) {
        verdicts.extend(burst::measure(&mut lab, args.tasks).await?);
    }
    if args.asks(&[What::Follow]) {
        verdicts.extend(follow::measure(&mut lab).await?);
    }
    if args.asks(&[What::Death]) {
        verdicts.extend(death::measure(&mut lab).await?);
    }
    lab.stop()?;
    Ok(verdicts)
}
