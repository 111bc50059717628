//! Ranks that live and do not move.
//!
//! A stopped rank is seen in `/proc`; a training that stands still for another
//! reason is seen in its logs, by the node of the rank that prints iterations.
//! Neither is proof that the work is lost, so without the user's word there is
//! a warning and no more.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::time::{Duration, Instant};

use crate::refusal::Refusal;
use crate::shim::proc;

/// Variable of a job's environment: after so many seconds a rank that does not move has failed.
pub const VARIABLE: &str = "QCTL_HANG_AFTER";
/// How long a rank may be stopped before there is a warning.
const STOPPED: Duration = Duration::from_secs(30);
/// How long logs may be silent before there is a warning, where the steps are known: so many of them, and so long
/// beyond; and so many of the longest pauses so far, which were saves and evaluations.
const SILENT: (u32, Duration, u32) = (5, Duration::from_secs(30), 2);
/// The same where they are not: at least so long, and at least so many of the longest pauses.
const SILENT_UNKNOWN: (Duration, u32) = (Duration::from_secs(600), 10);
/// Steps by which the next ones are judged: at least, and at most.
const STEPS: (usize, usize) = (5, 33);

/// What a seat's ranks look like at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// When.
    pub now: Instant,
    /// Ranks that are stopped.
    pub stopped: &'a [u32],
    /// Last iteration that was logged on this node; 0 if none was.
    pub iteration: u64,
    /// Bytes in the logs of all ranks of this node.
    pub written: u64,
}

/// What follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is well, as far as can be seen.
    Moves,
    /// It may hang.
    Doubt(Standstill),
    /// It has stood still for as long as the user allows.
    Hangs(Standstill),
}

/// Who stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standstill {
    /// The rank, if it is known.
    pub rank: Option<u32>,
    /// In a sentence.
    pub message: String,
    /// What to try.
    pub hint: String,
}

/// Follows the ranks of one seat.
#[derive(Debug)]
pub struct Hang {
    limit: Option<Duration>,
    stopped: BTreeMap<u32, Instant>,
    life: u64,
    moved: Option<Instant>,
    longest: Duration,
    stepped: Option<(Instant, u64)>,
    steps: VecDeque<Duration>,
}

impl Hang {
    /// Has seen nothing; acts after `limit`, or only warns.
    #[must_use]
    pub fn new(limit: Option<Duration>) -> Self {
        let (stopped, steps) = (BTreeMap::new(), VecDeque::new());
        Self { limit, stopped, life: 0, moved: None, longest: Duration::ZERO, stepped: None, steps }
    }

    /// Judges one more look.
    pub fn look(&mut self, look: Look<'_>) -> Verdict {
        self.stopped.retain(|rank, _| look.stopped.contains(rank));
        for rank in look.stopped {
            self.stopped.entry(*rank).or_insert(look.now);
        }
        self.step(look);
        let life = look.iteration + look.written;
        let moved = *self.moved.get_or_insert(look.now);
        let silent = look.now.duration_since(moved);
        if life != self.life {
            if self.life > 0 && look.iteration > 0 {
                self.longest = self.longest.max(silent);
            }
            (self.life, self.moved) = (life, Some(look.now));
        }
        let first = self.stopped.iter().min_by_key(|(_, since)| **since);
        if let Some((rank, since)) = first.filter(|(_, s)| look.now - **s >= self.limit.unwrap_or(STOPPED)) {
            return self.verdict(Standstill {
                rank: Some(*rank),
                message: format!("rank {rank} has been stopped for {} s", (look.now - *since).as_secs()),
                hint: "somebody sent it SIGSTOP: `kill -CONT` lets it go on".into(),
            });
        }
        // Who sees a stopped rank knows more, so it is given half as long again.
        let allowed = self.limit.map_or_else(|| self.silence(), |limit| limit * 3 / 2);
        if look.iteration > 0 && life == self.life && look.now.duration_since(self.moved.unwrap_or(look.now)) >= allowed
        {
            return self.verdict(Standstill {
                rank: None,
                message: format!("no rank of this node has logged anything for {} s", silent.as_secs()),
                hint: "see where its ranks wait: `py-spy dump --pid PID` on each node".into(),
            });
        }
        Verdict::Moves
    }

    /// Learns how long an iteration takes.
    fn step(&mut self, look: Look<'_>) {
        let Some((since, last)) = self.stepped else {
            self.stepped = (look.iteration > 0).then_some((look.now, look.iteration));
            return;
        };
        if look.iteration <= last {
            return;
        }
        let count = u32::try_from(look.iteration - last).unwrap_or(u32::MAX);
        self.steps.push_back(look.now.duration_since(since) / count);
        if self.steps.len() > STEPS.1 {
            self.steps.pop_front();
        }
        self.stepped = Some((look.now, look.iteration));
    }

    /// How long logs may be silent before there is a doubt.
    fn silence(&self) -> Duration {
        let mut steps: Vec<Duration> = self.steps.iter().copied().collect();
        if steps.len() < STEPS.0 {
            return SILENT_UNKNOWN.0.max(self.longest * SILENT_UNKNOWN.1);
        }
        steps.sort_unstable();
        (steps[steps.len() / 2] * SILENT.0 + SILENT.1).max(self.longest * SILENT.2)
    }

    fn verdict(&self, standstill: Standstill) -> Verdict {
        if self.limit.is_some() { Verdict::Hangs(standstill) } else { Verdict::Doubt(standstill) }
    }
}

/// The limit that a job's environment sets.
///
/// # Errors
///
/// [`Refusal`] if it is no number of seconds.
pub fn limit<'a>(mut variables: impl Iterator<Item = (&'a String, &'a String)>) -> Result<Option<Duration>, Refusal> {
    let Some((_, text)) = variables.find(|(name, _)| *name == VARIABLE) else { return Ok(None) };
    match text.parse::<u64>() {
        Ok(seconds) if seconds > 0 => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(Refusal::new(
            format!("`{VARIABLE}` is `{text}`, which is no number of seconds"),
            "give whole seconds, from 1, in `runtime.env`, or leave it out",
        )),
    }
}

/// Whether a process, or one that it started, is stopped (and not by a debugger).
#[must_use]
pub fn is_stopped(pid: i32) -> bool {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let below = children.split_ascii_whitespace().filter_map(|word| word.parse().ok());
    std::iter::once(pid).chain(below).filter_map(proc::stat).any(|stat| stat.state == b'T')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second at (stopped ranks, iteration, bytes); the verdict of each look.
    fn verdicts(limit: Option<u64>, looks: &[(&[u32], u64, u64)]) -> Vec<Verdict> {
        let mut hang = Hang::new(limit.map(Duration::from_secs));
        let begun = Instant::now();
        let at = |second: usize| begun + Duration::from_secs(u64::try_from(second).unwrap());
        let each = looks.iter().enumerate();
        each.map(|(second, (stopped, iteration, written))| {
            hang.look(Look { now: at(second), stopped, iteration: *iteration, written: *written })
        })
        .collect()
    }

    fn first(verdicts: &[Verdict]) -> Option<(usize, Option<u32>)> {
        verdicts.iter().enumerate().find_map(|(second, verdict)| match verdict {
            Verdict::Moves => None,
            Verdict::Doubt(still) | Verdict::Hangs(still) => Some((second, still.rank)),
        })
    }

    #[test]
    fn a_rank_that_stays_stopped_hangs_and_one_that_was_let_go_does_not() {
        let stays = [(&[][..], 0, 5), (&[2], 0, 5), (&[2], 0, 5), (&[2, 3], 0, 5), (&[2, 3], 0, 5)];
        assert_eq!(first(&verdicts(Some(3), &stays)), Some((4, Some(2))));
        let goes = [(&[][..], 0, 5), (&[2], 0, 5), (&[2], 0, 5), (&[], 0, 5), (&[2], 0, 5), (&[2], 0, 5)];
        assert_eq!(first(&verdicts(Some(3), &goes)), None);
    }

    #[test]
    fn silence_counts_from_the_first_iteration_on() {
        let silent: Vec<(&[u32], u64, u64)> = (0..10).map(|_| (&[][..], 0, 100)).collect();
        assert_eq!(first(&verdicts(Some(2), &silent)), None, "it may still be compiling");
        let mut looks = vec![(&[][..], 1, 100), (&[], 2, 200)];
        looks.extend((0..9).map(|_| (&[][..], 2, 200)));
        assert_eq!(first(&verdicts(Some(4), &looks)), Some((7, None)), "6 s after the second look");
        let saving: Vec<(&[u32], u64, u64)> = (0..20).map(|second| (&[][..], 2, 100 + second)).collect();
        assert_eq!(first(&verdicts(Some(4), &saving)), None, "other lines are a sign of life");
    }

    #[test]
    fn without_the_users_word_there_is_a_doubt_and_no_more() {
        let stopped: Vec<(&[u32], u64, u64)> = (0..62).map(|_| (&[1][..], 0, 0)).collect();
        let verdicts = verdicts(None, &stopped);
        assert_eq!(first(&verdicts), Some((30, Some(1))));
        assert!(verdicts.iter().all(|verdict| !matches!(verdict, Verdict::Hangs(_))));
        let slow: Vec<(&[u32], u64, u64)> = (0..1500).map(|second| (&[][..], 1 + second / 200, 0)).collect();
        assert_eq!(first(&super::tests::verdicts(None, &slow)), None);
    }

    #[test]
    fn five_steps_and_half_a_minute_without_a_line_are_a_doubt_once_the_steps_are_known() {
        let trains = |steps: u64| (0..=steps * 2).map(|second| (&[][..], 1 + second / 2, 0));
        let then = |steps: u64, silent: u64| trains(steps).chain((0..silent).map(move |_| (&[][..], 1 + steps, 0)));
        let known: Vec<(&[u32], u64, u64)> = then(20, 45).collect();
        assert_eq!(first(&verdicts(None, &known)), Some((40 + 40, None)), "five steps of 2 s, and 30 s");
        let unknown: Vec<(&[u32], u64, u64)> = then(3, 300).collect();
        assert_eq!(first(&verdicts(None, &unknown)), None, "three steps tell nothing");
        // A save of 39 s that was borne: the next one is expected.
        let saves = then(20, 39).chain((0..=10).map(|second| (&[][..], 22 + second / 2, 0)));
        let saves: Vec<(&[u32], u64, u64)> = saves.chain((0..70).map(|_| (&[][..], 27, 0))).collect();
        assert_eq!(first(&verdicts(None, &saves)), None);
    }

    #[test]
    fn a_limit_is_whole_seconds() {
        let of = |value: &str| limit([(&VARIABLE.to_owned(), &value.to_owned())].into_iter());
        assert_eq!(of("90").unwrap(), Some(Duration::from_secs(90)));
        assert_eq!(limit(std::iter::empty()).unwrap(), None);
        for wrong in ["0", "-1", "1.5", "soon", ""] {
            assert!(of(wrong).unwrap_err().message.contains(VARIABLE), "{wrong}");
        }
    }

    #[test]
    fn a_stopped_process_is_seen_and_through_the_one_that_started_it_too() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(!is_stopped(pid));
        crate::shim::descend::signal(pid, rustix::process::Signal::STOP);
        let begun = Instant::now();
        while !is_stopped(pid) {
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
