//! What ranks themselves have put on record: which attempt completed which iteration, and when.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};

/// The record of one training run.
#[derive(Debug)]
pub(crate) struct Record(PathBuf);

/// One completed thing.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The boot clock, which all hosts of one machine share, in nanoseconds.
    pub(crate) at: u64,
    pub(crate) attempt: String,
    pub(crate) rank: u32,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Iteration(u64),
    Saved(u64),
    Tracker(u64),
}

/// The clock of the record.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

impl Record {
    pub(crate) fn new(directory: &Path, job: &str) -> Self {
        Self(directory.join(format!("record-{job}")))
    }

    /// For the trainer's command line.
    pub(crate) fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    /// What is on record, in the order of the clock; nothing before the first entry.
    pub(crate) fn read(&self) -> Vec<Entry> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let mut all: Vec<Entry> = text.lines().map(entry).collect();
        all.sort_by_key(|entry| entry.at);
        all
    }

    /// The latest iteration that any rank completed.
    pub(crate) fn last(&self) -> u64 {
        let iterations = self.read().into_iter().filter_map(|entry| match entry.what {
            What::Iteration(number) => Some(number),
            What::Saved(_) | What::Tracker(_) => None,
        });
        iterations.max().unwrap_or(0)
    }

    /// Iterations that an attempt had named in the tracker before a moment.
    pub(crate) fn trackers(&self, attempt: &str, before: u64) -> Vec<u64> {
        let named = self.read().into_iter().filter(|entry| entry.attempt.ends_with(attempt) && entry.at < before);
        let named = named.filter_map(|entry| match entry.what {
            What::Tracker(number) => Some(number),
            What::Iteration(_) | What::Saved(_) => None,
        });
        named.collect()
    }

    /// Nothing of an attempt completes after the next one completed anything: the fences hold.
    pub(crate) fn attempts_follow_each_other(&self) {
        let mut spans: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let all = self.read();
        for entry in &all {
            let span = spans.entry(entry.attempt.clone()).or_insert((entry.at, entry.at));
            *span = (span.0.min(entry.at), span.1.max(entry.at));
        }
        let mut spans: Vec<(String, (u64, u64))> = spans.into_iter().collect();
        spans.sort_by_key(|(attempt, _)| number(attempt));
        for pair in spans.windows(2) {
            let ((old, (_, last)), (new, (first, _))) = (&pair[0], &pair[1]);
            let late: Vec<&Entry> = all.iter().filter(|entry| entry.attempt == *old && entry.at >= *first).collect();
            assert!(last < first, "`{old}` completed something after `{new}` had: {late:?}");
        }
    }

    /// Every rank completed every iteration of one attempt once, from the first that it has to the last of them.
    pub(crate) fn is_one_attempt(&self, ranks: u32) {
        let all = self.read();
        let attempts: Vec<&String> = all.iter().map(|entry| &entry.attempt).collect();
        assert!(attempts.iter().all(|attempt| *attempt == attempts[0]), "one attempt: {attempts:?}");
        for rank in 0..ranks {
            let done: Vec<u64> = all.iter().filter(|entry| entry.rank == rank).filter_map(Entry::iteration).collect();
            assert_eq!(done, (1..).take(done.len()).collect::<Vec<_>>(), "rank {rank}: each iteration once");
        }
    }
}

impl Entry {
    fn iteration(&self) -> Option<u64> {
        match self.what {
            What::Iteration(number) => Some(number),
            What::Saved(_) | What::Tracker(_) => None,
        }
    }
}

fn entry(line: &str) -> Entry {
    let words: Vec<&str> = line.split(' ').collect();
    let [at, attempt, rank, what, number] = words[..] else { panic!("no entry of a record: `{line}`") };
    let number = number.parse().unwrap();
    let what = match what {
        "iteration" => What::Iteration(number),
        "saved" => What::Saved(number),
        "tracker" => What::Tracker(number),
        other => panic!("no entry of a record: `{other}`"),
    };
    Entry { at: at.parse().unwrap(), attempt: attempt.to_owned(), rank: rank.parse().unwrap(), what }
}

/// An attempt's number: the last word of its name.
fn number(attempt: &str) -> u64 {
    attempt.rsplit('.').next().unwrap().parse().unwrap()
}
