//! Log bytes to the controller, on a stream of their own.
//!
//! Files are the truth: for each source the controller says how much it holds,
//! and the agent goes on from there. Nothing of a log is kept in memory but
//! the chunk being sent, and nobody who writes a log ever waits for this.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::v1::agents_client::AgentsClient;
use proto::v1::{LogChunk, LogEnd, LogEnds, LogHeld};
use runtime::backoff::Backoff;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Most bytes in one chunk.
const CHUNK: usize = 256 << 10;
/// Chunks that may be under way inside of the agent.
const CHUNKS: usize = 4;
/// Pause when no log has grown, while one may.
const IDLE: Duration = Duration::from_millis(50);
/// Pause while nothing runs whose log could grow.
const AT_REST: Duration = Duration::from_millis(200);
/// Idle turns from one look for new sources to the next: also how soon a lost
/// acknowledgement is asked for again, times [`QUERY_TURNS`].
const QUERY_TURNS: u32 = 200;
/// Forgotten attempts whose logs are kept for a controller that does not take them.
const KEPT: usize = 5_000;

/// The logs of this node's attempts. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Logs(Arc<Mutex<BTreeMap<String, Entry>>>);

/// Where an attempt's logs are.
#[derive(Debug)]
enum Files {
    /// All `<source>.log` in a directory, which come as they please.
    In(PathBuf),
    /// One file of one source.
    One(PathBuf),
}

#[derive(Debug)]
struct Entry {
    files: Files,
    ended: bool,
    /// Given up because too many wait.
    dropped: bool,
    sources: BTreeMap<String, Source>,
    order: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    /// Bytes that the controller holds; `None` until it has said so on this stream.
    held: Option<u64>,
    /// Bytes sent on this stream.
    sent: u64,
    asked: bool,
    done_sent: bool,
    /// Length at the moment that the end was told of and acknowledged.
    finished: bool,
}

impl Logs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // No holder leaves the map half changed, so a poisoned one is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to push the logs below `seat_dir`.
    pub fn add(&self, attempt: &str, seat_dir: &Path) {
        let mut entries = self.lock();
        let order = entries.values().map(|e| e.order + 1).max().unwrap_or(0);
        let files = Files::In(seat_dir.join("logs"));
        let sources = BTreeMap::new();
        entries.entry(attempt.to_owned()).or_insert(Entry { files, ended: false, dropped: false, sources, order });
    }

    /// Begins to push one file as one source of an attempt.
    pub fn add_file(&self, attempt: &str, source: &str, path: &Path) {
        let mut entries = self.lock();
        let order = entries.values().map(|e| e.order + 1).max().unwrap_or(0);
        let files = Files::One(path.to_owned());
        let sources = BTreeMap::from([(source.to_owned(), Source::default())]);
        entries.entry(attempt.to_owned()).or_insert(Entry { files, ended: false, dropped: false, sources, order });
    }

    /// Notes that the attempt's logs will not grow any more.
    pub fn end(&self, attempt: &str) {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(attempt) {
            entry.ended = true;
            entry.find_sources();
        }
        let waiting: Vec<u64> = entries.values().filter(|e| e.waits()).map(|e| e.order).collect();
        if waiting.len() > KEPT {
            let oldest = waiting.iter().min().copied();
            if let Some(entry) = entries.values_mut().find(|e| Some(e.order) == oldest) {
                entry.dropped = true;
            }
        }
    }

    /// How long each log of an attempt is; `None` if none of it is pushed.
    #[must_use]
    pub fn ends(&self, attempt: &str) -> Option<LogEnds> {
        let mut entries = self.lock();
        let entry = entries.get_mut(attempt)?;
        entry.find_sources();
        let end = |source: &String| LogEnd { source: source.clone(), bytes: file_length(&entry.files.path(source)) };
        Some(LogEnds { ends: entry.sources.keys().map(end).collect() })
    }

    /// Whether the controller holds all bytes of an ended attempt's logs, or
    /// too many attempts wait for that.
    #[must_use]
    pub fn is_pushed(&self, attempt: &str) -> bool {
        let entries = self.lock();
        entries.get(attempt).is_none_or(|e| e.dropped || (e.ended && e.sources.values().all(|s| s.finished)))
    }

    /// Whether something runs whose log may grow.
    fn may_grow(&self) -> bool {
        self.lock().values().any(|entry| !entry.ended)
    }

    /// Stops pushing an attempt's logs.
    pub fn remove(&self, attempt: &str) {
        self.lock().remove(attempt);
    }

    /// Forgets what was sent, and what was held: the next stream asks again, perhaps a controller that holds less.
    fn restart(&self) {
        for source in self.lock().values_mut().flat_map(|e| e.sources.values_mut()) {
            *source = Source::default();
        }
    }

    fn held(&self, held: &LogHeld) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&held.attempt) else { return };
        let length = file_length(&entry.files.path(&held.source));
        let ended = entry.ended;
        let Some(source) = entry.sources.get_mut(&held.source) else { return };
        if source.held.is_none() {
            // What the controller holds beyond our file is an older, shrunk one's.
            source.sent = held.offset;
        }
        source.held = Some(source.held.unwrap_or(0).max(held.offset));
        source.finished = ended && source.done_sent && held.offset >= length;
    }

    /// The next chunks to send: at most one of each source, `most` in all.
    fn next(&self, most: usize, look: bool, ask_again: bool) -> Vec<LogChunk> {
        let mut chunks = Vec::new();
        for (attempt, entry) in self.lock().iter_mut() {
            if look {
                entry.find_sources();
            }
            let ended = entry.ended;
            for (name, source) in &mut entry.sources {
                if chunks.len() == most {
                    return chunks;
                }
                let path = entry.files.path(name);
                match source.next(&path, ended, ask_again) {
                    Ok(Some(chunk)) => {
                        chunks.push(LogChunk { attempt: attempt.clone(), source: name.clone(), ..chunk });
                    }
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%attempt, source = %name, %error, "a log cannot be read"),
                }
            }
        }
        chunks
    }
}

impl Entry {
    /// Whether it has ended, and the controller does not hold all of it.
    fn waits(&self) -> bool {
        self.ended && !self.dropped && !self.sources.values().all(|source| source.finished)
    }
}

impl Files {
    fn path(&self, source: &str) -> PathBuf {
        match self {
            Self::In(dir) => dir.join(format!("{source}.log")),
            Self::One(path) => path.clone(),
        }
    }
}

impl Entry {
    fn find_sources(&mut self) {
        let Files::In(dir) = &self.files else { return };
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if let Some(name) = entry.file_name().to_str().and_then(|n| n.strip_suffix(".log")) {
                self.sources.entry(name.to_owned()).or_default();
            }
        }
    }
}

impl Source {
    fn next(&mut self, path: &Path, ended: bool, ask_again: bool) -> io::Result<Option<LogChunk>> {
        let query = LogChunk { query: true, ..LogChunk::default() };
        if self.finished {
            return Ok(None);
        }
        if !self.asked {
            self.asked = true;
            return Ok(Some(query));
        }
        let Some(held) = self.held else { return Ok(ask_again.then_some(query)) };
        let length = file_length(path);
        if self.sent < length {
            let mut data = vec![0; CHUNK.min(usize::try_from(length - self.sent).unwrap_or(CHUNK))];
            let read = File::open(path)?.read_at(&mut data, self.sent)?;
            data.truncate(read);
            let offset = self.sent;
            self.sent += u64::try_from(read).unwrap_or(0);
            let done = ended && self.sent >= file_length(path);
            self.done_sent |= done;
            return Ok(Some(LogChunk { offset, data: data.into(), done, ..LogChunk::default() }));
        }
        if ended && !self.done_sent {
            self.done_sent = true;
            return Ok(Some(LogChunk { offset: self.sent, done: true, ..LogChunk::default() }));
        }
        Ok((ask_again && held < self.sent).then_some(query))
    }
}

fn file_length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

/// Pushes until `stop`, over connections that come and go.
pub async fn run(logs: Logs, channels: watch::Receiver<Channel>, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        logs.restart();
        let channel = channels.borrow().clone();
        let ended = tokio::select! {
            biased; // stop wins: what is not pushed is pushed in the next life
            () = stop.cancelled() => return,
            ended = stream(&logs, channel, &mut backoff) => ended,
        };
        if let Err(status) = ended {
            tracing::debug!(%status, "the log stream ended");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

async fn stream(logs: &Logs, channel: Channel, backoff: &mut Backoff) -> Result<(), tonic::Status> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let mut client = AgentsClient::new(channel);
    let mut answers = client.push_logs(ReceiverStream::new(receiver)).await?.into_inner();
    let mut turn = 0_u32;
    let mut fresh = true;
    loop {
        let look = fresh || turn.is_multiple_of(5);
        let ask_again = turn % QUERY_TURNS == QUERY_TURNS - 1;
        fresh = false;
        let chunks = logs.next(CHUNKS, look, ask_again);
        let idle = chunks.is_empty();
        turn = turn.wrapping_add(u32::from(idle || ask_again));
        for chunk in chunks {
            // Answers are taken while this waits: else both sides could wait for each other.
            let mut sending = std::pin::pin!(sender.send(chunk));
            loop {
                tokio::select! {
                    sent = &mut sending => match sent {
                        Ok(()) => break,
                        Err(_) => return Ok(()),
                    },
                    answer = answers.message() => match answer? {
                        Some(held) => logs.held(&held),
                        None => return Ok(()),
                    },
                }
            }
        }
        let pause = match (idle, logs.may_grow()) {
            (false, _) => Duration::ZERO,
            (true, true) => IDLE,
            (true, false) => AT_REST,
        };
        if let Ok(answer) = tokio::time::timeout(pause, answers.message()).await {
            let Some(held) = answer? else { return Ok(()) };
            backoff.reset();
            logs.held(&held);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn held(attempt: &str, source: &str, offset: u64) -> LogHeld {
        LogHeld { attempt: attempt.into(), source: source.into(), offset }
    }

    #[test]
    fn a_source_goes_on_from_what_is_held_and_says_when_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        let log = dir.path().join("logs/worker_0.log");
        std::fs::write(&log, "0123456789").unwrap();
        let logs = Logs::default();
        logs.add("a", dir.path());
        let first = logs.next(9, true, false);
        assert!(first.len() == 1 && first[0].query && first[0].data.is_empty());
        assert!(logs.next(9, true, false).is_empty(), "nothing is sent before the answer");
        logs.held(&held("a", "worker_0", 4));
        let chunk = &logs.next(9, false, false)[0];
        assert_eq!((chunk.offset, &chunk.data[..], chunk.done), (4, &b"456789"[..], false));
        assert!(!logs.is_pushed("a"));
        logs.end("a");
        let end = LogEnd { source: "worker_0".into(), bytes: 10 };
        assert_eq!((logs.ends("a"), logs.ends("b")), (Some(LogEnds { ends: vec![end] }), None));
        let last = &logs.next(9, false, false)[0];
        assert!(last.done && last.offset == 10 && last.data.is_empty());
        logs.held(&held("a", "worker_0", 4));
        assert!(!logs.is_pushed("a"));
        assert!(logs.next(9, false, true)[0].query, "a lost acknowledgement is asked for again");
        logs.held(&held("a", "worker_0", 10));
        assert!(logs.is_pushed("a") && logs.next(9, true, true).is_empty());
    }

    #[test]
    fn a_new_stream_asks_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        std::fs::write(dir.path().join("logs/stdout.log"), "x").unwrap();
        let logs = Logs::default();
        logs.add("a", dir.path());
        assert!(logs.next(9, true, false)[0].query);
        logs.restart();
        assert!(logs.next(9, true, false)[0].query);
        logs.held(&held("a", "stdout", 0));
        assert_eq!(&logs.next(9, true, false)[0].data[..], b"x");
    }

    #[test]
    fn too_many_waiting_attempts_let_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        std::fs::write(dir.path().join("logs/stdout.log"), "x").unwrap();
        let logs = Logs::default();
        for i in 0..=KEPT {
            logs.add(&format!("a{i}"), dir.path());
            logs.end(&format!("a{i}"));
        }
        assert!(logs.is_pushed("a0") && !logs.is_pushed("a1"));
    }
}
