//! Streams that follow a job.

use std::time::Duration;

use model::JobId;
use planner::phase;
use proto::v1;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::jobs::Jobs;
use crate::driver::Handle;

/// Least time between two views: at most 5 a second.
const PACE: Duration = Duration::from_millis(200);

/// A job, again at each change.
pub(super) struct Watch {
    pub(super) jobs: Jobs,
    pub(super) id: JobId,
    pub(super) out: mpsc::Sender<Result<v1::JobView, Status>>,
}

impl Watch {
    /// Sends views until the job has ended or the watcher goes.
    pub(super) async fn run(self, changed: watch::Receiver<u64>, stop: CancellationToken) {
        let outcome = tokio::select! {
            biased; // stop wins
            () = stop.cancelled() => Err(Status::unavailable("the controller is stopping")),
            outcome = self.send_all(changed) => outcome,
        };
        if let Err(status) = outcome {
            // The watcher may be gone already.
            let _ = self.out.send(Err(status)).await;
        }
    }

    async fn send_all(&self, mut changed: watch::Receiver<u64>) -> Result<(), Status> {
        loop {
            changed.mark_unchanged();
            let view = self.jobs.view(&self.id).await?;
            let over = view.ended_ms > 0;
            if self.out.send(Ok(view)).await.is_err() || over {
                return Ok(());
            }
            tokio::time::sleep(PACE).await;
            if !next(&self.out, &mut changed).await {
                return Ok(());
            }
        }
    }
}

/// A job's events.
pub(super) struct FollowEvents {
    pub(super) driver: Handle,
    pub(super) id: JobId,
    pub(super) follow: bool,
    pub(super) after: u64,
    pub(super) out: mpsc::Sender<Result<v1::EventView, Status>>,
}

impl FollowEvents {
    /// Sends events until there are no more to come or the reader goes.
    pub(super) async fn run(mut self, changed: watch::Receiver<u64>, stop: CancellationToken) {
        let outcome = tokio::select! {
            biased; // stop wins
            () = stop.cancelled() => Err(Status::unavailable("the controller is stopping")),
            outcome = self.send_all(changed) => outcome,
        };
        if let Err(status) = outcome {
            // The reader may be gone already.
            let _ = self.out.send(Err(status)).await;
        }
    }

    async fn send_all(&mut self, mut changed: watch::Receiver<u64>) -> Result<(), Status> {
        loop {
            changed.mark_unchanged();
            // First, so that the last events of a job that ends meanwhile are not missed.
            let id = self.id.clone();
            let over = self
                .driver
                .read(move |world| world.jobs.get(&id).is_none_or(|job| phase::job(world, job).is_over()))
                .await?;
            for event in self.driver.events(self.id.clone(), self.after).await? {
                self.after = event.seq;
                if self.out.send(Ok((&event).into())).await.is_err() {
                    return Ok(());
                }
            }
            if !self.follow || over || !next(&self.out, &mut changed).await {
                return Ok(());
            }
        }
    }
}

/// Waits for a change; false if the reader went.
async fn next<T>(out: &mpsc::Sender<T>, changed: &mut watch::Receiver<u64>) -> bool {
    tokio::select! {
        () = out.closed() => false,
        changed = changed.changed() => changed.is_ok(),
    }
}
