//! What goes before the head of the queue never makes it wait for longer.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "the bans are for the planner, not for what drives it"
)]

mod common;
#[path = "sim/random.rs"]
#[allow(dead_code, reason = "shared with the storms")]
mod random;

use std::collections::{BTreeMap, BTreeSet};

use model::{AttemptId, JobId, NodeId, Output, TaskState, Timestamp};
use planner::{Effect, Input, Mutation, Policy, Report, Step, World, step};

use random::Random;

/// Nodes whose tasks use all the time that they may, and the grace of their stop where they overrun it.
struct Cluster {
    world: World,
    now: Timestamp,
    /// How long each job's tasks would run.
    runs: BTreeMap<JobId, u64>,
    running: BTreeMap<AttemptId, (NodeId, Timestamp)>,
}

impl Cluster {
    fn new(nodes: u32, mutation: Option<Mutation>) -> Self {
        let mut world = World::new(Policy::default(), Timestamp(0));
        world.mutation = mutation;
        let mut cluster = Self { world, now: Timestamp(0), runs: BTreeMap::new(), running: BTreeMap::new() };
        for n in 1..=nodes {
            let node = Box::new(common::node(&format!("n{n}"), 4, "b1"));
            cluster.input(&Input::Hello { node, session: u64::from(n), live: BTreeSet::new() });
        }
        cluster
    }

    fn input(&mut self, input: &Input) {
        let Step { effects, .. } = step(&mut self.world, input, self.now);
        for effect in effects {
            match effect {
                Effect::Prepare { node, attempt, .. } => self.report(&node, &attempt, Report::Prepared { port: 7 }),
                Effect::Start { node, attempt, .. } => {
                    let end = self.now.after_ms(self.runs[&attempt.task.job]);
                    self.running.insert(attempt, (node, end));
                }
                Effect::Stop { attempt, grace_ms, .. } => {
                    let until = self.now.after_ms(grace_ms);
                    self.running.entry(attempt).and_modify(|(_, end)| *end = until.min(*end));
                }
                Effect::Recall { .. } | Effect::Forget { .. } => {}
            }
        }
    }

    fn report(&mut self, node: &NodeId, attempt: &AttemptId, what: Report) {
        let session = node.as_str()[1..].parse().unwrap();
        let (node, attempt) = (node.clone(), attempt.clone());
        self.input(&Input::Report { node, session, attempt, what });
    }

    /// Submits a job of one stage whose tasks would run for `run` milliseconds.
    fn submit(&mut self, text: &str, run: u64) -> JobId {
        let mut job = common::job(text);
        job.submitted = self.now;
        self.runs.insert(job.id.clone(), run);
        let id = job.id.clone();
        self.input(&Input::Submit(Box::new(job)));
        id
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now.after_ms(millis);
        let over = |(_, end): &(NodeId, Timestamp), now| *end <= now;
        let due: Vec<_> = self
            .running
            .iter()
            .filter(|(_, of)| over(of, self.now))
            .map(|(id, of)| (id.clone(), of.0.clone()))
            .collect();
        for (attempt, node) in due {
            self.running.remove(&attempt);
            let what = Report::Ended { ok: true, output: Output::default(), failure: None, ran_ms: None };
            self.report(&node, &attempt, what);
        }
        let nodes: Vec<(NodeId, u64)> =
            self.world.nodes.iter().map(|(id, view)| (id.clone(), view.newest_session)).collect();
        for (node, session) in nodes {
            let live = self.running.iter().filter(|(_, (on, _))| *on == node).map(|(id, _)| id.clone()).collect();
            self.input(&Input::Beat { node, session, live });
        }
        self.input(&Input::Tick);
    }

    fn is_placed(&self, job: &JobId) -> bool {
        matches!(self.world.jobs[job].stages[0].tasks[0].state, TaskState::Active(_) | TaskState::Done { .. })
    }
}

/// When the head is placed, and how many later tasks went before it.
fn play(seed: u64, later: bool, mutation: Option<Mutation>) -> (u64, usize) {
    let mut random = Random::new(seed);
    let mut cluster = Cluster::new(3, mutation);
    for n in 1..=4 + random.below(3) {
        let (slots, limit) = (1 + random.below(3), 20_000 + random.below(100_000));
        // Half of them overrun, and use up the grace of their stop.
        let run = if random.one_in(2) { limit } else { limit + 60_000 };
        cluster.submit(&format!("a{n} | a run slots={slots} limit={limit}"), run);
    }
    cluster.now = Timestamp(1_000);
    let nodes = 1 + random.below(3);
    let head = cluster.submit(&format!("h prio=5 | t train nodes={nodes} ranks=4"), 1_000);
    let mut ahead = Vec::new();
    for turn in 0..1_000 {
        if cluster.is_placed(&head) {
            let went = ahead.iter().filter(|job| cluster.is_placed(job)).count();
            return (cluster.now.0, went);
        }
        // Drawn alike in both worlds.
        let (arrives, limit, slots, endless) =
            (random.one_in(4), 1_000 + random.below(60_000), 1 + random.below(2), random.one_in(4));
        if later && arrives {
            let text = if endless { String::new() } else { format!(" limit={limit}") };
            let run = if endless { 500_000 } else { limit + random.below(2) * 60_000 };
            ahead.push(cluster.submit(&format!("l{turn} | a run slots={slots}{text}"), run));
        } else if arrives && !endless {
            random.below(2);
        }
        cluster.pass(1_000);
    }
    panic!("seed {seed}: the head was never placed: {}", planner::explain(&cluster.world, &head));
}

#[test]
fn the_head_starts_no_later_for_what_goes_before_it() {
    let mut went = 0;
    for seed in 1..=15 {
        let (alone, _) = play(seed, false, None);
        let (behind, before) = play(seed, true, None);
        assert!(behind <= alone, "seed {seed}: {behind} ms with later jobs, {alone} ms without");
        went += before;
    }
    assert!(went > 15, "only {went} tasks went before a head");
}

#[test]
fn a_head_that_is_overtaken_for_longer_is_noticed() {
    let late = (1..=15).find(|seed| {
        let (alone, _) = play(*seed, false, None);
        let overtaken = std::panic::catch_unwind(|| play(*seed, true, Some(Mutation::BackfillPastTheHead)));
        overtaken.is_err() || overtaken.is_ok_and(|(behind, _)| behind > alone)
    });
    assert!(late.is_some());
}
