//! Who failed first, and whether a seat's work was done.
//!
//! Pure: exit records and the clock are arguments.

use crate::shim::record::Exit;

/// Exits this close together are one event: the earliest names the cause.
const TOGETHER_US: u64 = 200_000;

/// A process and its end, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Death<'a> {
    /// Position in the launch list.
    pub exit: &'a Exit,
    /// Whether it is a rank's, not a scheduler's.
    pub is_rank: bool,
    /// Whether its log says that another process is the cause.
    pub is_victim: bool,
}

/// Whether there is a failure to tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No process failed.
    Nothing,
    /// Only victims so far: look again in so many microseconds.
    Unsure(u64),
    /// This entry of the launch list failed first.
    First(usize),
}

/// Chooses the first failure among `deaths` at `now_us`.
///
/// What ended while the seat was being stopped is no failure. A victim (it
/// says so, or SIGTERM ended it) is named only if nobody better dies within
/// 200 ms: the cause may be reaped a moment later.
#[must_use]
pub fn first_failure(deaths: &[Death<'_>], now_us: u64) -> Verdict {
    let failed = || deaths.iter().filter(|d| !d.exit.clean() && !d.exit.stopping);
    let earliest =
        |found: &mut dyn Iterator<Item = &Death<'_>>| found.map(|d| (d.exit.mono_us, !d.is_rank, d.exit.index)).min();
    if let Some((_, _, index)) = earliest(&mut failed().filter(|d| !d.looks_like_victim())) {
        return Verdict::First(index);
    }
    match earliest(&mut failed()) {
        None => Verdict::Nothing,
        Some((at, _, index)) if now_us.saturating_sub(at) >= TOGETHER_US => Verdict::First(index),
        Some((at, _, _)) => Verdict::Unsure(TOGETHER_US - now_us.saturating_sub(at)),
    }
}

impl Death<'_> {
    fn looks_like_victim(&self) -> bool {
        self.is_victim || self.exit.signal == Some(15)
    }
}

/// What is known about the training when all ranks of a node have returned 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Last iteration that was logged; 0 before the first.
    pub last: u64,
    /// Iterations between two logged ones; 0 if unknown.
    pub stride: u64,
    /// Whether the trainer said that it was done.
    pub done: bool,
    /// Last iteration to run; 0 if unknown.
    pub goal: u64,
}

impl Course {
    /// Takes note of a logged iteration.
    pub fn reached(&mut self, iteration: u64) {
        if self.last > 0 && iteration > self.last {
            self.stride = iteration - self.last;
        }
        self.last = iteration;
    }

    /// The iteration behind the last logged one; `None` where none was logged.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        (self.last > 0).then_some(self.last + 1)
    }

    /// The iteration that ranks stopped before although they returned 0;
    /// `None` if nothing speaks against their word.
    #[must_use]
    pub fn stopped_short(&self) -> Option<u64> {
        let silent = self.last == 0 || self.goal == 0;
        let next = self.last + self.stride.max(1);
        (!silent && !self.done && next <= self.goal).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(index: usize, code: Option<i32>, signal: Option<i32>, at: u64) -> Exit {
        Exit { index, code, signal, mono_us: at, ..Exit::default() }
    }

    fn verdict(exits: &[(Exit, bool)], now: u64) -> Verdict {
        let deaths: Vec<Death<'_>> = exits
            .iter()
            .map(|(exit, is_victim)| Death { exit, is_rank: exit.index > 0, is_victim: *is_victim })
            .collect();
        first_failure(&deaths, now)
    }

    #[test]
    fn the_earliest_cause_is_named_before_any_victim() {
        let killed = exit(2, None, Some(9), 1000);
        assert_eq!(verdict(&[(killed.clone(), false)], 1000), Verdict::First(2));
        let earlier_victim = (exit(1, Some(1), None, 900), true);
        assert_eq!(verdict(&[earlier_victim.clone(), (killed.clone(), false)], 1000), Verdict::First(2));
        assert_eq!(verdict(std::slice::from_ref(&earlier_victim), 1000), Verdict::Unsure(199_900));
        assert_eq!(verdict(&[earlier_victim], 200_900), Verdict::First(1));
        let two = [(exit(3, Some(1), None, 1200), false), (killed, false)];
        assert_eq!(verdict(&two, 1200), Verdict::First(2));
    }

    #[test]
    fn a_terminated_rank_is_a_victim_of_its_scheduler() {
        let ranks = [(exit(1, None, Some(15), 500), false), (exit(0, None, Some(9), 600), false)];
        assert_eq!(verdict(&ranks, 600), Verdict::First(0));
    }

    #[test]
    fn what_was_stopped_or_returned_zero_did_not_fail() {
        let stopped = Exit { stopping: true, ..exit(1, None, Some(9), 1) };
        assert_eq!(verdict(&[(stopped, false), (exit(2, Some(0), None, 1), false)], 10), Verdict::Nothing);
    }

    #[test]
    fn zero_is_believed_unless_the_log_ends_too_early() {
        let course = |last, stride, done, goal| Course { last, stride, done, goal }.stopped_short();
        assert_eq!(course(20, 1, false, 20), None);
        assert_eq!(course(7, 1, false, 20), Some(8));
        assert_eq!(course(18, 3, false, 20), None, "the log interval does not divide the last iteration");
        assert_eq!(course(7, 1, true, 20), None);
        assert_eq!(course(0, 0, false, 20), None, "the last rank may be on another node");
        let mut course = Course { goal: 20, ..Course::default() };
        for iteration in [3, 6, 9] {
            course.reached(iteration);
        }
        assert_eq!((course.last, course.stride), (9, 3));
    }
}
