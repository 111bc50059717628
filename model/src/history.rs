//! The attempts of a task that are over.

use std::ops::Deref;

use crate::attempt::{AttemptSummary, Outcome};

/// The first attempt and the newest ones, oldest first; how many were dropped
/// between them is counted.
///
/// Bounded, because it is saved with each change of its task: a task that is
/// moved, given back or restarted for months must not grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    kept: Vec<AttemptSummary>,
    dropped: u32,
}

impl History {
    /// Attempts that are kept; more than a task may fail, so that failures can be counted.
    pub const KEPT: usize = 128;
    /// Attempts, beside the first, that keep the lines which prove their failure.
    pub const PROVEN: usize = 8;

    /// What was saved; of too many, some are dropped.
    #[must_use]
    pub fn restored(kept: Vec<AttemptSummary>, dropped: u32) -> Self {
        let mut history = Self { kept, dropped };
        history.shorten();
        history
    }

    /// Adds an attempt that has just ended; of too many, one is dropped.
    pub fn push(&mut self, past: AttemptSummary) {
        self.kept.push(past);
        let stale = self.kept.len().saturating_sub(Self::PROVEN + 1);
        if let Some(AttemptSummary { outcome: Outcome::Failed(failure), .. }) = self.kept.get_mut(stale)
            && stale > 0
        {
            failure.evidence.clear();
        }
        self.shorten();
    }

    /// Drops what is too many between the first and the newest: the oldest that were no failures, then the oldest.
    fn shorten(&mut self) {
        let excess = self.kept.len().saturating_sub(Self::KEPT);
        if excess == 0 {
            return;
        }
        self.dropped = self.dropped.saturating_add(u32::try_from(excess).unwrap_or(u32::MAX));
        let (newest, mut left, mut at) = (self.kept.len() - 1, excess, 0);
        self.kept.retain(|past| {
            let harmless = matches!(past.outcome, Outcome::Requeued | Outcome::Cancelled);
            let goes = left > 0 && (1..newest).contains(&at) && harmless;
            at += 1;
            left -= usize::from(goes);
            !goes
        });
        self.kept.drain(1..=left);
    }

    /// How many attempts are over that are not kept.
    #[must_use]
    pub fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Whether attempt `number` is over and not kept.
    #[must_use]
    pub fn has_dropped(&self, number: u32) -> bool {
        let within = self.kept.last().is_some_and(|last| (1..last.number).contains(&number));
        self.dropped > 0 && within && self.kept.iter().all(|past| past.number != number)
    }
}

impl Deref for History {
    type Target = [AttemptSummary];
    fn deref(&self) -> &[AttemptSummary] {
        &self.kept
    }
}

impl<'a> IntoIterator for &'a History {
    type Item = &'a AttemptSummary;
    type IntoIter = std::slice::Iter<'a, AttemptSummary>;
    fn into_iter(self) -> Self::IntoIter {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cause, Failure, NodeId, Timestamp};

    fn past(number: u32, outcome: Outcome) -> AttemptSummary {
        AttemptSummary { number, placed: Timestamp(1), ended: Timestamp(2), outcome, nodes: Vec::new() }
    }

    fn failed() -> Outcome {
        Outcome::Failed(Failure {
            node: NodeId::new("n1").unwrap(),
            rank: None,
            cause: Cause::Exit(1),
            at: Timestamp(2),
            message: "it left".into(),
            hint: String::new(),
            evidence: vec!["Traceback".into()],
        })
    }

    #[test]
    fn ten_thousand_attempts_keep_the_first_the_newest_and_a_count() {
        let mut history = History::default();
        for number in 1..=10_000 {
            // A failure in fifty; the rest was given back.
            history.push(past(number, if number % 50 == 1 { failed() } else { Outcome::Requeued }));
        }
        assert_eq!((history.len(), history.dropped()), (History::KEPT, 10_000 - 128));
        assert_eq!((history[0].number, history[127].number), (1, 10_000));
        assert!(history.windows(2).all(|pair| pair[0].number < pair[1].number));
        let failures: Vec<u32> =
            history.iter().filter(|past| matches!(past.outcome, Outcome::Failed(_))).map(|past| past.number).collect();
        assert_eq!(failures.len(), 127, "what counts against the retries goes last");
        assert_eq!(failures[126], 9_951);
        assert!(history.has_dropped(2) && !history.has_dropped(1) && !history.has_dropped(10_000));
        assert!(!history.has_dropped(0) && !history.has_dropped(10_001));
        let proven = history.iter().filter(|past| match &past.outcome {
            Outcome::Failed(failure) => !failure.evidence.is_empty(),
            Outcome::Succeeded | Outcome::Cancelled | Outcome::Requeued => false,
        });
        assert!(proven.count() <= History::PROVEN + 1);
    }

    #[test]
    fn a_longer_history_than_is_kept_is_shortened_when_it_is_read() {
        let outcome = |number| if number % 2 == 0 { failed() } else { Outcome::Requeued };
        let saved = |count: u32| (1..=count).map(|number| past(number, outcome(number))).collect::<Vec<_>>();
        let exact = History::restored(saved(128), 7);
        assert_eq!((exact.len(), exact.dropped()), (History::KEPT, 7));
        for count in [129, 1_000, 1_001] {
            let mut pushed = History::default();
            for past in saved(count) {
                pushed.push(past);
            }
            let read = History::restored(saved(count), 0);
            let numbers = |history: &History| history.iter().map(|past| past.number).collect::<Vec<_>>();
            assert_eq!(numbers(&read), numbers(&pushed), "{count}");
            assert_eq!(read.dropped(), pushed.dropped());
        }
    }

    #[test]
    fn a_short_history_is_kept_as_it_is() {
        let mut history = History::default();
        for number in 1..=9 {
            history.push(past(number, failed()));
        }
        assert_eq!((history.len(), history.dropped()), (9, 0));
        let kept = history.iter().all(|past| past.outcome == failed());
        assert!(kept && !history.has_dropped(10));
    }
}
