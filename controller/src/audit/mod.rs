//! What was changed and what was refused: who, what, when, from where.
//!
//! Lines of JSON in files of this controller, which are replaced in turn. They
//! are not in the store: each refusal would be a write to what all controllers
//! share, and anybody who reaches the port can be refused. What became of jobs
//! is in their events, which are in the store.

mod files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use files::Files;

/// Entries that may wait to be written.
const WAITING: usize = 4096;
/// Refusals of one origin that are on record one by one, in a [`WHILE`].
const SINGLY: u32 = 60;
/// After how long an origin counts anew.
const WHILE: Duration = Duration::from_secs(60);
/// Origins that are counted at once.
const ORIGINS: usize = 1024;

/// One thing that was asked, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// Name in the certificate; empty without one.
    pub(crate) who: String,
    /// Role in the certificate.
    pub(crate) role: String,
    /// Of the certificate, in hex digits.
    pub(crate) serial: String,
    /// Address and port of the other end.
    pub(crate) from: String,
    /// What was asked.
    pub(crate) verb: String,
    /// Of what: a job, a node, a name.
    pub(crate) object: String,
    /// `done`, `refused` or `failed`.
    pub(crate) result: String,
    /// Why not.
    pub(crate) detail: String,
}

/// Which entries are wanted; the newest of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// At most so many.
    pub(crate) limit: usize,
    /// None before.
    pub(crate) since_ms: u64,
    /// By this name only, unless empty.
    pub(crate) who: String,
    /// Only what was refused.
    pub(crate) refused: bool,
}

impl Wanted {
    fn takes(&self, entry: &Entry) -> bool {
        entry.at_ms >= self.since_ms
            && (self.who.is_empty() || entry.who == self.who)
            && (!self.refused || entry.result == "refused")
    }
}

/// Something to write, and who waits until that, and all before it, is written.
type Item = (Option<Entry>, Option<oneshot::Sender<()>>);

/// A way to the record; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    entries: mpsc::Sender<Item>,
    origins: Arc<Mutex<BTreeMap<String, Origin>>>,
    dir: PathBuf,
}

/// Refusals of one origin.
#[derive(Debug)]
struct Origin {
    since: Instant,
    count: u32,
}

impl Audit {
    /// The record in `dir`, and what writes it.
    pub(crate) fn open(dir: &Path) -> (Self, Writer) {
        let (entries, inbox) = mpsc::channel(WAITING);
        let audit = Self { entries, origins: Arc::default(), dir: dir.to_owned() };
        (audit, Writer { inbox, files: Files::new(dir) })
    }

    /// Puts on record what has changed something; it is written when this returns.
    pub(crate) async fn write(&self, entry: Entry) {
        self.wait(Some(entry)).await;
    }

    async fn wait(&self, entry: Option<Entry>) {
        let (written, done) = oneshot::channel();
        // A writer that has ended has said why.
        if self.entries.send((entry, Some(written))).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Puts on record what was refused. One origin that is refused again and again cannot fill the record: after some
    /// in a minute the rest is counted, and the count goes on record with its next minute.
    pub(crate) fn note(&self, mut entry: Entry) {
        let ip = entry.from.rsplit_once(':').map_or(entry.from.as_str(), |(ip, _)| ip);
        let origin = if entry.who.is_empty() { format!("from {ip}") } else { format!("{} {}", entry.role, entry.who) };
        match self.counted(origin) {
            Counted::One => {}
            Counted::After(more) => entry.detail.push_str(&format!(" (and {more} more in the minute before)")),
            Counted::Last => entry.detail.push_str(" (more of this origin are counted only, for a minute)"),
            Counted::Over => return,
        }
        if self.entries.try_send((Some(entry), None)).is_err() {
            tracing::warn!("a refusal is not on record: too many wait");
        }
    }

    fn counted(&self, name: String) -> Counted {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if origins.len() >= ORIGINS {
            origins.retain(|_, origin| origin.since.elapsed() < WHILE);
        }
        // Many origins at once share what is left.
        let name = if origins.len() >= ORIGINS && !origins.contains_key(&name) { String::new() } else { name };
        let origin = origins.entry(name).or_insert_with(|| Origin { since: Instant::now(), count: 0 });
        let missed = origin.count.saturating_sub(SINGLY);
        if origin.since.elapsed() >= WHILE {
            *origin = Origin { since: Instant::now(), count: 1 };
            return if missed > 0 { Counted::After(missed) } else { Counted::One };
        }
        origin.count = origin.count.saturating_add(1);
        match origin.count {
            ..SINGLY => Counted::One,
            SINGLY => Counted::Last,
            _ => Counted::Over,
        }
    }

    /// The newest entries that are wanted, oldest first; all that was handed in before is among what is looked at.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub(crate) async fn read(&self, wanted: Wanted) -> std::io::Result<Vec<Entry>> {
        self.wait(None).await;
        let files = Files::new(&self.dir);
        let read = move || files.read(wanted.limit, |entry| wanted.takes(entry));
        tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    One,
    After(u32),
    Last,
    Over,
}

/// Writes entries until nobody can hand one in any more.
#[derive(Debug)]
pub(crate) struct Writer {
    inbox: mpsc::Receiver<Item>,
    files: Files,
}

impl Writer {
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let taken = tokio::select! {
                biased; // what was handed in is written first
                taken = self.inbox.recv_many(&mut batch, WAITING) => taken,
                () = stop.cancelled() => 0,
            };
            if taken == 0 {
                return;
            }
            let (entries, waiting): (Vec<Option<Entry>>, Vec<Option<oneshot::Sender<()>>>) = batch.drain(..).unzip();
            let entries: Vec<Entry> = entries.into_iter().flatten().collect();
            let mut files = self.files;
            let written = tokio::task::spawn_blocking(move || {
                let outcome = files.append(&entries);
                for waiter in waiting.into_iter().flatten() {
                    // A caller that went away needs no answer.
                    let _ = waiter.send(());
                }
                // Against a power cut; whoever waits has what outlives the process.
                let synced = files.sync();
                (files, outcome.and(synced))
            });
            match written.await {
                Ok((back, outcome)) => {
                    self.files = back;
                    if let Err(error) = outcome {
                        tracing::error!(%error, "the audit record could not be written");
                    }
                }
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(who: &str, result: &str) -> Entry {
        Entry { at_ms: 5, who: who.into(), result: result.into(), from: "10.0.0.1:5".into(), ..Entry::default() }
    }

    #[tokio::test]
    async fn what_was_written_is_listed_and_one_origin_cannot_fill_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let (audit, writer) = Audit::open(dir.path());
        let tasks = runtime::Tasks::new();
        tasks.spawn("audit", writer.run(tasks.stop_token()));
        audit.write(entry("ada", "done")).await;
        for _ in 0..1000 {
            audit.note(entry("", "refused"));
        }
        audit.note(entry("bob", "refused"));
        let read = async |wanted: Wanted| audit.read(wanted).await.unwrap();
        let refused = read(Wanted { limit: 5000, refused: true, ..Wanted::default() }).await;
        assert_eq!(refused.len(), SINGLY as usize + 1);
        assert_eq!(read(Wanted { limit: 5000, who: "ada".into(), ..Wanted::default() }).await.len(), 1);
        assert_eq!(read(Wanted { limit: 3, ..Wanted::default() }).await.last().unwrap().who, "bob");
        assert_eq!(read(Wanted { limit: 9, since_ms: 6, ..Wanted::default() }).await, []);
        assert!(tasks.shutdown(Duration::from_secs(30)).await);
    }
}
