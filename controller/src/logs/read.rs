//! One reader's stream of log lines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{JobId, NodeId, StageName};
use proto::v1;
use regex::bytes::Regex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::ends::{Left, sentence};
use super::tail::{last_lines, line_start, matching, next_lines};
use super::times::Times;
use super::{Logs, Selected, Source, Which, select};
use crate::driver::Handle;

/// How long the files of what has ended may still grow: agents push behind.
const QUIET: Duration = Duration::from_secs(5);
/// The same for a reader who does not follow.
const QUIET_ONCE: Duration = Duration::from_secs(1);
/// How long lines that are known to be on their way are waited for while none comes.
const PATIENCE: Duration = Duration::from_secs(10);
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
    pub(crate) which: Which,
    /// Times between which lines must have arrived, in milliseconds since 1970; 0 = any.
    pub(crate) since_ms: u64,
    pub(crate) until_ms: u64,
    /// What a line must match.
    pub(crate) grep: Option<Regex>,
    /// Whether batches say when their bytes arrived.
    pub(crate) times: bool,
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
    /// Where to stop.
    end: Option<u64>,
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
            if !(selected.over || self.wanted.follow) {
                return self.finish(&[]).await;
            }
            if selected.over {
                let left = self.left(&selected).await?;
                let quiet = match &left {
                    Left::Nothing => Duration::ZERO,
                    Left::Bytes(_) => PATIENCE,
                    Left::Unknown if self.wanted.follow => QUIET,
                    Left::Unknown => QUIET_ONCE,
                };
                if last_growth.elapsed() >= quiet {
                    // What came between the last round and the look is read too.
                    self.discover(&selected, false).await?;
                    return self.finish(if let Left::Bytes(left) = &left { left } else { &[] }).await;
                }
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

    /// Sends what is left, unfinished lines too, and says what never came.
    async fn finish(&mut self, missing: &[(Source, u64)]) -> Result<(), Status> {
        while self.read_round(true).await? {}
        if missing.is_empty() {
            return Ok(());
        }
        let note = v1::LogBatch { missing: sentence(missing), ..v1::LogBatch::default() };
        self.out.send(Ok(note)).await.map_err(|_| Status::cancelled("the reader went"))
    }

    async fn select(&self) -> Result<Selected, Status> {
        let wanted = self.wanted.clone();
        self.driver
            .read(move |world| select(world, &wanted.job, &wanted.stage, wanted.which))
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
                    let (offset, end) = span(&logs, &source, &wanted, first)?;
                    found.push(Cursor { source, stage: stage.clone(), offset, end });
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
            let (logs, cursor, wanted) = (self.logs.clone(), self.cursors[at].clone(), self.wanted.clone());
            let (batches, offset) = blocking(move || read_turn(&logs, &cursor, &wanted, rest)).await?;
            any |= offset > self.cursors[at].offset;
            self.cursors[at].offset = offset;
            for batch in batches {
                self.out.send(Ok(batch)).await.map_err(|_| Status::cancelled("the reader went"))?;
            }
        }
        Ok(any)
    }

    /// What is left to come of the selected attempts. A seat that has not said how long its logs are
    /// is done when each of those that are here is said to be.
    async fn left(&self, selected: &Selected) -> Result<Left, Status> {
        let (logs, selected, wanted) = (self.logs.clone(), selected.clone(), self.wanted.clone());
        let look = move || {
            let passes = |source: &Source| super::select::passes(source, &wanted.ranks, wanted.node.as_ref());
            let (mut left, mut unknown) = (Vec::new(), false);
            for ((_, attempt), nodes) in selected.attempts.iter().zip(&selected.nodes) {
                for node in nodes.iter().filter(|node| wanted.node.as_ref().is_none_or(|only| only == *node)) {
                    match logs.left(attempt, node, passes) {
                        Left::Nothing => {}
                        Left::Bytes(some) => left.extend(some),
                        Left::Unknown => {
                            let mut own = logs.sources(attempt);
                            own.retain(|source| source.node == *node);
                            unknown |= own.is_empty() || !own.iter().all(|source| logs.done_path(source).exists());
                        }
                    }
                }
            }
            Ok(match (left.is_empty(), unknown) {
                (false, _) => Left::Bytes(left),
                (true, true) => Left::Unknown,
                (true, false) => Left::Nothing,
            })
        };
        blocking(look).await
    }
}

/// Where to begin to read a source, and where to stop. The last lines are counted for a
/// source that is there at the beginning; of one that comes later they are all of it.
fn span(logs: &Logs, source: &Source, wanted: &Wanted, first: bool) -> io::Result<(u64, Option<u64>)> {
    if (wanted.tail.is_none() || !first) && wanted.since_ms == 0 && wanted.until_ms == 0 {
        return Ok((0, None));
    }
    let file = File::open(logs.path(source))?;
    let length = file.metadata()?.len();
    let times = Times::load(&logs.times_path(source))?;
    let mut begin = 0;
    if wanted.since_ms > 0 && !times.is_empty() {
        begin = times.begin(wanted.since_ms).map_or(Ok(length), |offset| line_start(&file, offset))?;
    }
    let end = match (wanted.until_ms, times.end(wanted.until_ms)) {
        (0, _) | (_, None) => None,
        (_, Some(offset)) => Some(line_start(&file, offset)?),
    };
    if let Some(lines) = wanted.tail.filter(|_| first) {
        begin = begin.max(last_lines(&file, end.unwrap_or(length), lines)?);
    }
    Ok((begin, end))
}

/// The next batches of a source, and where it goes on.
fn read_turn(logs: &Logs, cursor: &Cursor, wanted: &Wanted, rest: bool) -> io::Result<(Vec<v1::LogBatch>, u64)> {
    let file = File::open(logs.path(&cursor.source))?;
    let mut offset = cursor.offset;
    let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut blocks = 0;
    while blocks < TURN
        && cursor.end.is_none_or(|end| offset < end)
        && let Some(mut data) = next_lines(&file, offset, rest)?
    {
        if let Some(end) = cursor.end {
            data.truncate(usize::try_from(end - offset).unwrap_or(usize::MAX));
        }
        blocks += 1;
        let begin = offset;
        offset += data.len() as u64;
        match &wanted.grep {
            Some(pattern) => pieces.extend(matching(&data, pattern).map(|(at, run)| (begin + at, run.to_vec()))),
            None => pieces.push((begin, data)),
        }
    }
    let wants_times = wanted.times && !pieces.is_empty();
    let times = if wants_times { Times::load(&logs.times_path(&cursor.source))? } else { Times::default() };
    let batch = |(offset, data): (u64, Vec<u8>)| v1::LogBatch {
        attempt: cursor.source.attempt.to_string(),
        source: cursor.source.name.as_str().to_owned(),
        stage: cursor.stage.to_string(),
        node: cursor.source.node.to_string(),
        offset,
        marks: times.within(offset, offset + data.len() as u64),
        data: data.into(),
        missing: String::new(),
    };
    Ok((pieces.into_iter().map(batch).collect(), offset))
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
