//! Measures the control plane from outside, beside the bars that it is held to.
//!
//! Starts the real programs (`qctl dev`: one controller, two agents, mutual
//! TLS), speaks to them as any client does, and prints one line for each
//! number. Everything it starts is its descendant, so no process is left out
//! of the account.

mod burst;
mod death;
mod follow;
mod idle;
mod lab;
mod processes;
mod start;
mod verdict;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

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

/// Whether every bar was met.
fn measure(args: &Args) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = |what| args.what.is_empty() || args.what.contains(&what);
    runtime.block_on(async {
        let mut lab = Lab::start(args).await?;
        let mut verdicts: Vec<Verdict> = Vec::new();
        if asked(What::Idle) {
            verdicts.extend(idle::measure(&lab).await?);
        }
        if asked(What::Start) {
            verdicts.extend(start::measure(&mut lab).await?);
        }
        if asked(What::Burst) {
            verdicts.extend(burst::measure(&mut lab, args.tasks).await?);
        }
        if asked(What::Follow) {
            verdicts.extend(follow::measure(&mut lab).await?);
        }
        if asked(What::Death) {
            verdicts.extend(death::measure(&mut lab).await?);
        }
        lab.stop()?;
        Ok(verdicts.iter().all(Verdict::is_met))
    })
}
