//! Jobs that run while `qctl dev` stops.

use std::time::{Duration, Instant};

use proto::v1;

use super::place::Place;
use crate::client::Client;
use crate::context;
use crate::output::say;
use crate::text::{plural, program};

/// How long cancelled jobs may take to end.
const LIMIT: Duration = Duration::from_secs(60);
/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Says what goes on running, or first ends it. A controller that cannot be
/// asked does not keep anything from being stopped.
pub(super) async fn settle(place: &Place, stop_ranks: bool) {
    let Some(mut client) = context::load(place.root()).ok().and_then(|known| Client::of(&known).ok()) else { return };
    if stop_ranks {
        cancel_all(&mut client).await;
    }
    let running = running(&mut client).await;
    if running > 0 {
        say(&format!(
            "{} left running; the next `qctl dev` takes them up again (to end them: {} dev stop --stop-ranks)",
            plural(running, "task"),
            program()
        ));
    }
}

async fn cancel_all(client: &mut Client) {
    let jobs = open_jobs(client).await;
    if jobs.is_empty() {
        return;
    }
    say(&format!("cancelling {}", plural(jobs.len(), "job")));
    for job in jobs {
        let request = v1::CancelRequest { job: job.id.clone(), reason: "qctl dev stops".to_owned(), grace_ms: None };
        if let Err(status) = client.jobs.cancel(request).await {
            say(&format!("warning: job {} could not be cancelled: {}", job.id, status.message()));
        }
    }
    let began = Instant::now();
    while began.elapsed() < LIMIT && !open_jobs(client).await.is_empty() {
        tokio::time::sleep(LOOK).await;
    }
}

async fn open_jobs(client: &mut Client) -> Vec<v1::JobView> {
    let request = v1::ListJobsRequest { all: false, limit: 0 };
    let asked = tokio::time::timeout(Duration::from_secs(5), client.jobs.list(request)).await;
    asked.ok().and_then(Result::ok).map(|reply| reply.into_inner().jobs).unwrap_or_default()
}

async fn running(client: &mut Client) -> usize {
    let jobs = open_jobs(client).await;
    let tasks = jobs.iter().flat_map(|job| &job.stages).map(|stage| stage.tasks_running);
    tasks.map(|count| usize::try_from(count).unwrap_or(0)).sum()
}
