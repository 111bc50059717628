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
                    let until = self.now.after_ms(1 + self.random.below(LONGEST));
                    self.running.push((until, node, attempt));
                }
                Effect::Prepare { .. } | Effect::Stop { .. } | Effect::Forget { .. } => {}
            }
        }
    }

    fn submit(&mut self, stages: &str) -> JobId {
        self.jobs += 1;
        let job = common::job(&format!("j{} {stages}", self.jobs));
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
            let what = Report::Ended { ok: true, output: Output::default(), failure: None };
            self.input(&Input::Report { node, session, attempt, what });
        }
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

#[test]
fn priority_goes_before_age() {
    let mut busy = Busy::new(1, 1, 1);
    busy.submit("| a run slots=1");
    let old = busy.submit("| a run slots=1");
    let urgent = busy.submit("prio=5 | a run slots=1");
    let (_, node, attempt) = busy.running.pop().unwrap();
    let what = Report::Ended { ok: true, output: Output::default(), failure: None };
    busy.input(&Input::Report { node, session: 1, attempt, what });
    assert!(busy.is_placed(&urgent) && !busy.is_placed(&old));
}
