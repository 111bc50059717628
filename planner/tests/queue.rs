//! A waiting gang is placed in bounded time, however many small tasks arrive.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "the bans are for the planner, not for what drives it"
)]

mod common;
#[path = "sim/random.rs"]
#[allow(dead_code, reason = "shared with the storms")]
mod random;

use std::collections::BTreeSet;

use model::{AttemptId, JobId, NodeId, Output, TaskState, Timestamp};
use planner::{Effect, Input, Policy, Report, Step, World, phase, step};

use random::Random;

/// Longest run of a small task, in milliseconds.
const LONGEST: u64 = 20_000;

/// Nodes on which every small task ends within [`LONGEST`].
struct Busy {
    world: World,
    now: Timestamp,
    running: Vec<(Timestamp, NodeId, AttemptId)>,
    random: Random,
    jobs: u32,
}

impl Busy {
    fn new(seed: u64, nodes: u32, slots: u32) -> Self {
        let mut busy = Self {
            world: World::new(Policy::default(), Timestamp(0)),
            now: Timestamp(0),
            running: Vec::new(),
            random: Random::new(seed),
            jobs: 0,
        };
        for n in 1..=nodes {
            let node = Box::new(common::node(&format!("n{n}"), slots, "b1"));
            busy.input(&Input::Hello { node, session: u64::from(n), live: BTreeSet::new() });
        }
        busy
    }

    fn input(&mut self, input: &Input) {
        let Step { effects, .. } = step(&mut self.world, input, self.now);
        for effect in effects {
            match effect {
                Effect::Start { node, attempt, .. } => {
                    let longest = if is_quick(&attempt) { 1 } else { LONGEST };
                    let until = self.now.after_ms(1 + self.random.below(longest));
                    self.running.push((until, node, attempt));
                }
                Effect::Prepare { .. } | Effect::Stop { .. } | Effect::Recall { .. } | Effect::Forget { .. } => {}
            }
        }
    }

    fn submit(&mut self, stages: &str) -> JobId {
        self.jobs += 1;
        let mut job = common::job(&format!("j{} {stages}", self.jobs));
        job.submitted = self.now;
        let id = job.id.clone();
        self.input(&Input::Submit(Box::new(job)));
        id
    }

    /// A tenth of a second: small tasks arrive faster than they end, and some end.
    fn turn(&mut self) {
        self.now = self.now.after_ms(100);
        for _ in 0..self.random.below(3) {
            let slots = 1 + self.random.below(2);
            self.submit(&format!("| a run tasks=2 slots={slots}"));
        }
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running).into_iter().partition(|(until, ..)| *until <= self.now);
        self.running = later;
        for (_, node, attempt) in due {
            let session = node.as_str()[1..].parse().unwrap();
            let ran_ms = is_quick(&attempt).then_some(1);
            let what = Report::Ended { ok: true, output: Output::default(), failure: None, ran_ms };
            self.input(&Input::Report { node, session, attempt, what });
        }
    }

    fn waiting(&self, job: &JobId) -> usize {
        let tasks = &self.world.jobs[job].stages[0].tasks;
        tasks.iter().filter(|task| matches!(task.state, TaskState::Waiting { .. })).count()
    }

    fn is_placed(&self, job: &JobId) -> bool {
        matches!(self.world.jobs[job].stages[0].tasks[0].state, TaskState::Active(_))
    }
}

#[test]
fn a_gang_at_the_head_is_placed_once_what_runs_has_ended() {
    for seed in 1..=5 {
        let mut busy = Busy::new(seed, 4, 4);
        while busy.now < Timestamp(10_000) {
            busy.turn();
        }
        let gang = busy.submit("prio=1 | t train nodes=4 ranks=4");
        assert!(!busy.is_placed(&gang), "seed {seed}: the cluster was not full");
        let since = busy.now;
        while !busy.is_placed(&gang) {
            busy.turn();
            assert!(busy.now.since(since) <= LONGEST + 100, "seed {seed}: {}", planner::explain(&busy.world, &gang));
        }
        // Nothing of a later job was placed beside it meanwhile: gang or nothing.
        let job = &busy.world.jobs[&gang];
        assert_eq!(phase::job(&busy.world, job).name(), "running");
    }
}

/// Whether it is a task of a millisecond, many of which are sent ahead.
fn is_quick(attempt: &AttemptId) -> bool {
    attempt.task.stage.as_str() == "quick"
}

#[test]
fn a_gang_behind_many_older_small_tasks_is_placed_whole_once_they_are() {
    for seed in 1..=2 {
        let mut busy = Busy::new(seed, 2, 4);
        busy.submit("| quick run tasks=1000");
        let older: Vec<JobId> = (0..20).map(|_| busy.submit("| a run tasks=2 slots=1")).collect();
        busy.now = busy.now.after_ms(1);
        let gang = busy.submit("| t train nodes=2 ranks=4");
        let before = busy.jobs;
        let mut head: Option<Timestamp> = None;
        let mut ahead = 0;
        while !busy.is_placed(&gang) {
            busy.turn();
            ahead = ahead.max(busy.running.iter().filter(|(_, _, attempt)| is_quick(attempt)).count());
            if busy.is_placed(&gang) {
                break;
            }
            let all_placed = older.iter().all(|job| busy.waiting(job) == 0);
            head = head.or(all_placed.then_some(busy.now));
            let why = || planner::explain(&busy.world, &gang);
            assert!(head.is_none_or(|since| busy.now.since(since) <= LONGEST + 100), "seed {seed}: {}", why());
            let younger = busy.world.jobs.values().filter(|job| job.submitted > busy.world.jobs[&gang].submitted);
            let overtook = younger.filter(|job| busy.waiting(&job.id) < job.stages[0].tasks.len()).count();
            assert_eq!(overtook, 0, "seed {seed}: gang or nothing, but {overtook} later jobs went first");
        }
        assert!(head.is_some(), "seed {seed}: the gang overtook older tasks");
        assert!(ahead > 4, "seed {seed}: nothing was sent ahead");
        assert!(busy.jobs > before + 50, "seed {seed}: nothing arrived meanwhile");
        let TaskState::Active(attempt) = &busy.world.jobs[&gang].stages[0].tasks[0].state else { unreachable!() };
        assert_eq!(attempt.seats.iter().map(|seat| seat.slots.len()).collect::<Vec<_>>(), [4; 2]);
    }
}

#[test]
fn priority_goes_before_age() {
    let mut busy = Busy::new(1, 1, 1);
    busy.submit("| a run slots=1");
    let old = busy.submit("| a run slots=1");
    let urgent = busy.submit("prio=5 | a run slots=1");
    let (_, node, attempt) = busy.running.pop().unwrap();
    let what = Report::Ended { ok: true, output: Output::default(), failure: None, ran_ms: None };
    busy.input(&Input::Report { node, session: 1, attempt, what });
    assert!(busy.is_placed(&urgent) && !busy.is_placed(&old));
}
