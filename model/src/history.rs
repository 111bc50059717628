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

    /// What was saved.
    #[must_use]
    pub fn restored(kept: Vec<AttemptSummary>, dropped: u32) -> Self {
        Self { kept, dropped }
    }

    /// Adds an attempt that has just ended. Of too many, the oldest behind the
    /// first that was no failure goes; where all were failures, the oldest.
    pub fn push(&mut self, past: AttemptSummary) {
        self.kept.push(past);
        let stale = self.kept.len().saturating_sub(Self::PROVEN + 1);
        if let Some(AttemptSummary { outcome: Outcome::Failed(failure), .. }) = self.kept.get_mut(stale)
            && stale > 0
        {
            failure.evidence.clear();
        }
        if self.kept.len() > Self::KEPT {
            let between = self.kept.iter().enumerate().take(self.kept.len() - 1).skip(1);
            let harmless = |past: &AttemptSummary| matches!(past.outcome, Outcome::Requeued | Outcome::Cancelled);
            let at = between.clone().find(|(_, past)| harmless(past)).map_or(1, |(at, _)| at);
            self.kept.remove(at);
            self.dropped = self.dropped.saturating_add(1);
        }
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
