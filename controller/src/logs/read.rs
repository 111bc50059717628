//! One reader's stream of log lines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{JobId, NodeId, StageName};
use proto::v1;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::tail::{last_lines, next_lines};
use super::{Logs, Selected, Source, select};
use crate::driver::Handle;

/// How long the files of what has ended may still grow: agents push behind.
const QUIET: Duration = Duration::from_secs(5);
/// The same for a reader who does not follow.
const QUIET_ONCE: Duration = Duration::from_secs(1);
/// How often files of what has ended are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Least time between two rounds: a loud source does not make a busy loop.
const PACE: Duration = Duration::from_millis(20);
/// Blocks of one source before the next has its turn.
const TURN: usize = 16;

/// What a reader wants.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) job: JobId,
    pub(crate) follow: bool,
    pub(crate) ranks: Vec<u32>,
    pub(crate) stage: String,
    pub(crate) node: Option<NodeId>,
    pub(crate) tail: Option<u64>,
    pub(crate) attempt: Option<u32>,
}

/// The sending side of `Logs`.
pub(crate) struct Reader {
    logs: Arc<Logs>,
    driver: Handle,
    wanted: Wanted,
    out: mpsc::Sender<Result<v1::LogBatch, Status>>,
    cursors: Vec<Cursor>,
    known: BTreeMap<Source, ()>,
}

/// A source and how far it was read.
#[derive(Clone, Debug)]
struct Cursor {
    source: Source,
    stage: StageName,
    offset: u64,
}

impl Reader {
    pub(crate) fn new(
        logs: Arc<Logs>,
        driver: Handle,
        wanted: Wanted,
        out: mpsc::Sender<Result<v1::LogBatch, Status>>,
    ) -> Self {
        Self { logs, driver, wanted, out, cursors: Vec::new(), known: BTreeMap::new() }
    }

    /// Sends lines until all were sent and none will follow, or the reader goes.
    pub(crate) async fn run(mut self, mut changed: watch::Receiver<u64>, stop: CancellationToken) {
        let outcome = tokio::select! {
            biased; // stop wins
            () = stop.cancelled() => Err(Status::unavailable("the controller is stopping")),
            outcome = self.send_all(&mut changed) => outcome,
        };
        if let Err(status) = outcome {
            // The reader may be gone already.
            let _ = self.out.send(Err(status)).await;
        }
    }

    async fn send_all(&mut self, changed: &mut watch::Receiver<u64>) -> Result<(), Status> {
        let mut grown: BTreeMap<JobId, watch::Receiver<u64>> = BTreeMap::new();
        let mut first = true;
        let mut last_growth = Instant::now();
        loop {
            changed.mark_unchanged();
            let selected = self.select().await?;
            for (_, attempt) in &selected.attempts {
                let job = &attempt.task.job;
                grown.entry(job.clone()).or_insert_with(|| self.logs.grown.subscribe(job)).mark_unchanged();
            }
            self.discover(&selected, first).await?;
            first = false;
            while self.read_round(false).await? {
                last_growth = Instant::now();
            }
            let quiet = if self.wanted.follow { QUIET } else { QUIET_ONCE };
            let whole = selected.over && (last_growth.elapsed() >= quiet || self.all_done(&selected).await?);
            if whole || !(selected.over || self.wanted.follow) {
                while self.read_round(true).await? {}
                return Ok(());
            }
            tokio::time::sleep(PACE).await;
            let look = if selected.over { LOOK } else { Duration::from_secs(3600) };
            tokio::select! {
                () = self.out.closed() => return Ok(()),
                _ = changed.changed() => {}
                () = any_change(&mut grown) => {}
                () = tokio::time::sleep(look) => {}
            }
        }
    }

    async fn select(&self) -> Result<Selected, Status> {
        let wanted = self.wanted.clone();
        self.driver
            .read(move |world| select(world, &wanted.job, &wanted.stage, wanted.attempt))
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?
            .map_err(|error| Status::not_found(error.to_string()))
    }

    /// Adds sources that were not known; the first time, from their last lines on.
    async fn discover(&mut self, selected: &Selected, first: bool) -> Result<(), Status> {
        let (logs, selected, wanted) = (self.logs.clone(), selected.clone(), self.wanted.clone());
        let known = std::mem::take(&mut self.known);
        let look = move || -> io::Result<(BTreeMap<Source, ()>, Vec<Cursor>)> {
            let (mut known, mut found) = (known, Vec::new());
            for (stage, attempt) in &selected.attempts {
                for source in logs.sources(attempt) {
                    let passes = super::select::passes(&source, &wanted.ranks, wanted.node.as_ref());
                    if !passes || known.insert(source.clone(), ()).is_some() {
                        continue;
                    }
                    let offset = match wanted.tail {
                        Some(lines) if first => {
                            let file = File::open(logs.path(&source))?;
                            last_lines(&file, file.metadata()?.len(), lines)?
                        }
                        Some(_) | None => 0,
                    };
                    found.push(Cursor { source, stage: stage.clone(), offset });
                }
            }
            Ok((known, found))
        };
        let (known, found) = blocking(look).await?;
        self.known = known;
        self.cursors.extend(found);
        Ok(())
    }

    /// Sends a turn of every source; whether anything was sent.
    async fn read_round(&mut self, rest: bool) -> Result<bool, Status> {
        let mut any = false;
        for at in 0..self.cursors.len() {
            let (logs, cursor) = (self.logs.clone(), self.cursors[at].clone());
            let batches = blocking(move || read_turn(&logs, &cursor, rest)).await?;
            for batch in batches {
                any = true;
                self.cursors[at].offset = batch.offset + batch.data.len() as u64;
                self.out.send(Ok(batch)).await.map_err(|_| Status::cancelled("the reader went"))?;
            }
        }
        Ok(any)
    }

    /// Whether every selected attempt has logs here, and none will grow.
    async fn all_done(&self, selected: &Selected) -> Result<bool, Status> {
        let (logs, attempts) = (self.logs.clone(), selected.attempts.clone());
        let done = move || {
            let whole = |sources: Vec<Source>| {
                !sources.is_empty() && sources.iter().all(|source| logs.done_path(source).exists())
            };
            Ok(attempts.iter().all(|(_, attempt)| whole(logs.sources(attempt))))
        };
        blocking(done).await
    }
}

fn read_turn(logs: &Logs, cursor: &Cursor, rest: bool) -> io::Result<Vec<v1::LogBatch>> {
    let file = File::open(logs.path(&cursor.source))?;
    let mut offset = cursor.offset;
    let mut batches = Vec::new();
    while batches.len() < TURN
        && let Some(data) = next_lines(&file, offset, rest)?
    {
        let length = data.len() as u64;
        batches.push(v1::LogBatch {
            attempt: cursor.source.attempt.to_string(),
            source: cursor.source.name.as_str().to_owned(),
            stage: cursor.stage.to_string(),
            node: cursor.source.node.to_string(),
            offset,
            data: data.into(),
        });
        offset += length;
    }
    Ok(batches)
}

async fn any_change(receivers: &mut BTreeMap<JobId, watch::Receiver<u64>>) {
    let waits: Vec<_> = receivers.values_mut().map(|receiver| Box::pin(receiver.changed())).collect();
    if waits.is_empty() {
        return std::future::pending().await;
    }
    // Whether one changed or its sender went, there is something to look at.
    let _ = futures::future::select_all(waits).await;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Status::internal("the log reader failed"))?
        .map_err(|error| Status::internal(format!("a log file could not be read: {error}")))
}
