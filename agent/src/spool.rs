//! Reports that the controller has not acknowledged, kept on disk.
//!
//! One thread owns the file: it writes what has gathered, makes it durable
//! with one fsync, and only then may the session send it. A record is
//! `length u32 | crc32 u32 | payload`, little-endian; the payload's first byte
//! says what it is. A torn last record is cut off when the file is opened.

mod journal;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use proto::v1::{Report, report};
use tokio::sync::{oneshot, watch};

use self::journal::Journal;

/// Most records that one fsync covers.
const BATCH: usize = 1024;

/// Why the spool could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("the spool `{path}` could not be opened")]
pub struct SpoolError {
    path: String,
    #[source]
    source: std::io::Error,
}

enum Order {
    Add { report: Box<Report>, done: Option<oneshot::Sender<u64>> },
    Ack(u64),
}

#[derive(Debug)]
struct Shared {
    unacknowledged: Mutex<BTreeMap<u64, Report>>,
    newest: watch::Sender<u64>,
}

/// Cheap handle to the spool.
#[derive(Clone, Debug)]
pub struct Spool {
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
}

/// Joins the writing thread: drop all [`Spool`] handles first.
#[derive(Debug)]
pub struct Writer(JoinHandle<()>);

impl Writer {
    /// Waits until everything handed in is durable.
    pub fn join(self) {
        // A panic of the thread was printed by it; the file is whole anyway.
        let _ = self.0.join();
    }
}

impl Spool {
    /// Opens the spool at `path`, with whatever an earlier life left in it.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] if the file cannot be read or written.
    pub fn open(path: &Path) -> Result<(Self, Writer), SpoolError> {
        let wrap = |source| SpoolError { path: path.display().to_string(), source };
        let (journal, unacknowledged) = Journal::open(path).map_err(wrap)?;
        let newest = watch::Sender::new(journal.last_seq());
        let shared = Arc::new(Shared { unacknowledged: Mutex::new(unacknowledged), newest });
        let (orders, inbox) = mpsc::channel();
        let state = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("spool".into())
            .spawn(move || write(journal, &inbox, &state))
            .map_err(wrap)?;
        Ok((Self { orders, shared }, Writer(thread)))
    }

    /// Keeps a report; its sequence number is returned once it is durable.
    ///
    /// `None` only if the writing thread is gone.
    pub async fn add(&self, attempt: &str, what: report::What) -> Option<u64> {
        let (done, durable) = oneshot::channel();
        let report = Box::new(Report { seq: 0, attempt: attempt.to_owned(), what: Some(what) });
        self.orders.send(Order::Add { report, done: Some(done) }).ok()?;
        durable.await.ok()
    }

    /// Hands in a report that somebody will say again if the agent ends before
    /// it is durable; it is sent no earlier than that.
    pub fn post(&self, attempt: &str, what: report::What) {
        let report = Box::new(Report { seq: 0, attempt: attempt.to_owned(), what: Some(what) });
        // The writing thread is gone only when the agent ends.
        let _ = self.orders.send(Order::Add { report, done: None });
    }

    /// Drops a report that the controller has taken.
    pub fn acknowledge(&self, seq: u64) {
        lock(&self.shared.unacknowledged).remove(&seq);
        // The record on disk matters only after a restart: then it is sent again.
        let _ = self.orders.send(Order::Ack(seq));
    }

    /// Reports behind `seq`, oldest first, at most `most`.
    #[must_use]
    pub fn after(&self, seq: u64, most: usize) -> Vec<Report> {
        lock(&self.shared.unacknowledged).range(seq + 1..).take(most).map(|(_, r)| r.clone()).collect()
    }

    /// Whether a report of `attempt` waits for its acknowledgement.
    #[must_use]
    pub fn holds(&self, attempt: &str) -> bool {
        lock(&self.shared.unacknowledged).values().any(|r| r.attempt == attempt)
    }

    /// Whether the last word about `attempt` waits for its acknowledgement.
    #[must_use]
    pub fn holds_end(&self, attempt: &str) -> bool {
        lock(&self.shared.unacknowledged).values().any(|r| r.attempt == attempt && is_end(r))
    }

    /// Attempts whose last word waits.
    #[must_use]
    pub fn ends(&self) -> std::collections::BTreeSet<String> {
        lock(&self.shared.unacknowledged).values().filter(|r| is_end(r)).map(|r| r.attempt.clone()).collect()
    }

    /// Tells when new reports are there to send.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.shared.newest.subscribe()
    }
}

fn is_end(report: &Report) -> bool {
    matches!(report.what, Some(report::What::Ended(_) | report::What::Returned(_)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No holder leaves the map half changed, so a poisoned one is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(mut journal: Journal, inbox: &mpsc::Receiver<Order>, shared: &Shared) {
    while let Ok(first) = inbox.recv() {
        let mut added = Vec::new();
        for order in std::iter::once(first).chain(inbox.try_iter().take(BATCH)) {
            match order {
                Order::Add { mut report, done } => {
                    report.seq = journal.stage_report(&report);
                    added.push((report, done));
                }
                Order::Ack(seq) => journal.stage_ack(seq),
            }
        }
        while let Err(error) = journal.commit(!added.is_empty()) {
            tracing::error!(%error, "reports cannot be saved; trying again");
            std::thread::sleep(Duration::from_secs(1));
        }
        let mut newest = None;
        for (report, done) in added {
            newest = Some(report.seq);
            let seq = report.seq;
            lock(&shared.unacknowledged).insert(seq, *report);
            // The asker may have gone; the report is kept all the same.
            let _ = done.map(|done| done.send(seq));
        }
        if let Some(newest) = newest {
            shared.newest.send_replace(newest);
        }
        if journal.wants_compaction() {
            let kept: Vec<Report> = lock(&shared.unacknowledged).values().cloned().collect();
            if let Err(error) = journal.compact(&kept) {
                tracing::warn!(%error, "the spool could not be compacted");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proto::v1::Started;

    fn started() -> report::What {
        report::What::Started(Started {})
    }

    #[tokio::test]
    async fn unacknowledged_reports_survive_in_order_and_numbers_never_repeat() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let (spool, writer) = Spool::open(&path).unwrap();
        let first = spool.add("a", started()).await.unwrap();
        let second = spool.add("b", started()).await.unwrap();
        spool.acknowledge(first);
        // A start that waits is no last word: the end must be said all the same.
        assert!(!spool.holds("a") && spool.holds("b"));
        assert!(!spool.holds_end("b") && spool.ends().is_empty());
        let end = spool.add("b", report::What::Returned(proto::v1::Returned {})).await.unwrap();
        assert!(!spool.holds_end("a") && spool.holds_end("b"));
        spool.acknowledge(end);
        drop(spool);
        writer.join();

        let (spool, writer) = Spool::open(&path).unwrap();
        let kept: Vec<_> = spool.after(0, 10).into_iter().map(|r| (r.seq, r.attempt)).collect();
        assert_eq!(kept, [(second, "b".to_owned())]);
        spool.acknowledge(second);
        drop(spool);
        writer.join();

        let (spool, writer) = Spool::open(&path).unwrap();
        assert!(spool.after(0, 10).is_empty());
        assert!(spool.add("c", started()).await.unwrap() > second);
        drop(spool);
        writer.join();
    }
}
