//! `qctl wait`.

use std::time::Duration;

use proto::v1;

use super::cancel::span;
use super::diagnosis;
use super::follow::{Face, Followed, follow};
use crate::client::Client;
use crate::failure::{Exit, Failure};

/// For which jobs.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
The exit code is that of the first job that did not succeed.

Example:
  qctl wait last --timeout 2h")]
pub(crate) struct WaitArgs {
    /// The jobs
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<String>,
    /// Gives up after this time, as in `30s`, `5m`, `2h`
    #[arg(long, value_name = "TIME", value_parser = span)]
    timeout: Option<u64>,
}

/// Waits for all.
pub(crate) async fn run(args: &WaitArgs, client: Client) -> Result<(), Failure> {
    let all = all(args, client);
    match args.timeout {
        None => all.await,
        Some(ms) => tokio::time::timeout(Duration::from_millis(ms), all).await.unwrap_or_else(|_| {
            let failure = Failure::new(Exit::Failed, "the jobs have not ended in time");
            Err(failure.hint("they go on running; see why: qctl explain JOB"))
        }),
    }
}

async fn all(args: &WaitArgs, mut client: Client) -> Result<(), Failure> {
    let mut ids = Vec::new();
    for job in &args.jobs {
        // Words are resolved first, so that `last` means one job throughout.
        ids.push(client.jobs.get(v1::GetJobRequest { job: job.clone() }).await?.into_inner().id);
    }
    let mut outcome = Ok(());
    for id in ids {
        match follow(&client, &id, Face::Quiet).await? {
            Followed::Ended(job) => outcome = outcome.and(diagnosis::conclude(&job)),
            Followed::Left => return Err(Failure::Said(Exit::Interrupted)),
        }
    }
    outcome
}
