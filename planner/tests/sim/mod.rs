//! A small cluster that misbehaves: honest agents, a controller that loses its
//! store now and then, and links that drop, delay, repeat and reorder.
#![allow(clippy::unwrap_used)]

pub(crate) mod agent;
pub(crate) mod checks;
pub(crate) mod driver;
pub(crate) mod random;
pub(crate) mod store;

use std::collections::{BTreeMap, BTreeSet};

use model::{AttemptId, JobId, NodeId, Output, TaskState, Timestamp};
use planner::{AboutCheckpoint, Effect, Input, Keep, Mutation, Report};

use agent::Agent;
use driver::Driver;
use random::Random;

use crate::common;

/// Length of one turn of the simulation.
const TURN_MS: u64 = 100;
/// Turns with faults.
const STORM: u64 = 400;
/// Turns without, within which every job must end.
const CALM: u64 = 6_000;

/// What is true of the processes, whatever anybody believes.
#[derive(Default)]
pub(crate) struct Truth {
    /// Ranks of an attempt that have started, by node.
    pub(crate) started: BTreeMap<AttemptId, std::collections::BTreeSet<NodeId>>,
    /// Attempts of which some seat will never finish.
    pub(crate) broken: std::collections::BTreeSet<AttemptId>,
    /// Seats that finished their work.
    pub(crate) finished: std::collections::BTreeSet<(AttemptId, NodeId)>,
    /// Attempts that were given back.
    pub(crate) returned: usize,
    /// How often a node had something in its queue of small tasks.
    pub(crate) ahead: usize,
    /// Nodes that still ran an attempt when it was rightly declared over.
    pub(crate) abandoned: std::collections::BTreeSet<(AttemptId, NodeId)>,
}

pub(crate) struct Sim {
    pub(crate) random: Random,
    pub(crate) now: Timestamp,
    pub(crate) agents: BTreeMap<NodeId, Agent>,
    pub(crate) driver: Driver,
    pub(crate) truth: Truth,
    /// Inputs under way to the controller, with their instants of arrival.
    to_controller: Vec<(Timestamp, Input, Option<u64>)>,
    /// Effects and acknowledgements under way to an agent, with the session they go through.
    to_agent: Vec<(Timestamp, NodeId, u64, Down)>,
    jobs: u32,
    calm: bool,
}

/// What a controller sends to an agent.
#[derive(Clone)]
pub(crate) enum Down {
    Effect(Effect),
    Ack(u64),
    Closed,
}

/// Plays one history; the error names the rule that was broken, and when.
pub(crate) fn play(seed: u64, mutation: Option<Mutation>) -> Result<Sim, String> {
    let mut sim = Sim::new(seed, mutation);
    for turn in 0..STORM + CALM {
        sim.calm = turn >= STORM;
        sim.turn(turn).map_err(|rule| format!("seed {seed}, {} ms: {rule}", sim.now.0))?;
        if sim.calm && sim.at_rest() {
            return Ok(sim);
        }
    }
    Err(format!("seed {seed}: after {CALM} calm turns: {}", sim.unrest()))
}

impl Sim {
    fn new(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut random = Random::new(seed);
        let nodes = 2 + random.below(4);
        let agents = (1..=nodes)
            .map(|n| {
                let id = NodeId::new(format!("n{n}")).unwrap();
                let slots = 1 + u32::try_from(random.below(4)).unwrap();
                (id.clone(), Agent::new(id, slots))
            })
            .collect();
        Self {
            now: Timestamp(1_000_000),
            agents,
            driver: Driver::new(mutation, Timestamp(1_000_000)),
            truth: Truth::default(),
            to_controller: Vec::new(),
            to_agent: Vec::new(),
            jobs: 0,
            calm: false,
            random,
        }
    }

    fn turn(&mut self, turn: u64) -> Result<(), String> {
        self.now = self.now.after_ms(TURN_MS);
        if !self.calm {
            self.faults();
            if self.jobs < 6 && (turn == 0 || self.random.one_in(40)) {
                self.submit();
            }
            if self.random.one_in(150) {
                self.cancel();
            }
            if self.random.one_in(60) {
                self.restart();
            }
            if self.random.one_in(80) {
                self.operate();
            }
            if self.random.one_in(80) {
                self.alarm();
            }
            if self.random.one_in(80) {
                self.keep();
            }
        } else if turn.is_multiple_of(50) {
            // Operators take their nodes back and devices recover, or some work would wait for ever.
            let sessions = self.agents.iter().filter_map(|(node, agent)| Some((node.clone(), agent.session?)));
            for (node, session) in sessions.collect::<Vec<_>>() {
                self.to_controller.push((self.now, Input::Unfit { node, session, slots: BTreeSet::new() }, None));
            }
            let spares = self.driver.saved.nodes.values().filter(|node| node.is_spare());
            for node in spares.map(|node| node.id.clone()).collect::<Vec<_>>() {
                let input = Input::Spare { node, by: "op".into(), spare: false };
                self.to_controller.push((self.now, input, None));
            }
            let nodes = self.driver.saved.nodes.values().filter(|node| node.cordon.is_some() || node.fence.is_some());
            for node in nodes.map(|node| node.id.clone()).collect::<Vec<_>>() {
                let input = Input::Uncordon { node, by: "op".into() };
                self.to_controller.push((self.now, input, None));
            }
        }
        self.run_agents();
        self.deliver_down()?;
        self.deliver_up()
    }

    fn faults(&mut self) {
        let nodes: Vec<NodeId> = self.agents.keys().cloned().collect();
        for node in nodes {
            let agent = self.agents.get_mut(&node).unwrap();
            if self.random.one_in(150) {
                let away =
                    if self.random.one_in(3) { 12_000 + self.random.below(12_000) } else { self.random.below(4_000) };
                agent.cut_until = self.now.after_ms(away);
            }
            if self.random.one_in(250) {
                agent.restart(self.now.after_ms(self.random.below(3_000)));
                self.session_over(&node);
            }
            if self.random.one_in(500) {
                let back = self.now.after_ms(500 + self.random.below(15_000));
                self.agents.get_mut(&node).unwrap().reboot(back, &mut self.truth);
                self.session_over(&node);
            }
            if self.random.one_in(60) {
                self.forge(&node);
            }
        }
    }

    /// A node speaks about an attempt that is not its own.
    fn forge(&mut self, node: &NodeId) {
        let Some(session) = self.agents[node].session else { return };
        let others: Vec<AttemptId> = self
            .agents
            .iter()
            .filter(|(other, _)| *other != node)
            .flat_map(|(_, agent)| agent.known())
            .filter(|id| !self.agents[node].holds(id) && !self.truth.abandoned.contains(&(id.clone(), node.clone())))
            .filter(|id| !self.driver.seated(id, node))
            .collect();
        let Some(attempt) = self.random.pick(&others) else { return };
        let what = if self.random.one_in(2) {
            Report::Ended { ok: true, output: Output::default(), failure: None, ran_ms: None }
        } else {
            Report::Started
        };
        let at = self.now.after_ms(self.random.below(300));
        let input = Input::Report { node: node.clone(), session, attempt, what };
        self.to_controller.push((at, input, None));
    }

    fn submit(&mut self) {
        self.jobs += 1;
        let n = self.jobs;
        let nodes = 1 + self.random.below(self.agents.len().min(3) as u64);
        let prio = self.random.below(3);
        let ranks = if self.agents.values().any(|agent| agent.slots > 1) { 2 } else { 1 };
        let retries = format!("{} window=20000 backoff=500", self.random.below(4));
        let limit = 500 + self.random.below(12_000);
        let text = match self.random.below(10) {
            8 => format!(
                "j{n} prio={prio} | a run tasks=4 slots=1 limit={limit} retries={retries} | b run tasks=2 slots=1"
            ),
            9 => format!("j{n} prio={prio} | t train nodes={nodes} limit={limit} retries={retries}"),
            6 => format!("j{n} prio={prio} on=odd:yes | a run tasks=3 slots=1 | t train ranks=1 retries={retries}"),
            7 => format!(
                "j{n} prio={prio} | v run slots=1 | u train ranks={ranks} tp={ranks} | t train nodes={nodes} pp={nodes}"
            ),
            0 => format!("j{n} prio={prio} | a run tasks={} retries={retries}", 4 + self.random.below(24)),
            1 => format!("j{n} prio={prio} | c convert tasks=3 slots=1 closing retries={retries}"),
            2 => format!("j{n} prio={prio} | t train nodes={nodes} retries={retries}"),
            3 => format!(
                "j{n} prio={prio} | p preflight pin=n1,n2 | c convert tasks=2 after=p | t train nodes={nodes} after=c"
            ),
            4 => format!("j{n} prio={prio} | t train nodes={nodes} slots=1 | s run tasks=3 slots=1"),
            _ => format!("j{n} prio={prio} | t train nodes={nodes} retries=3 | e export after=t retries=3"),
        };
        let at = self.now.after_ms(self.random.below(200));
        self.to_controller.push((at, Input::Submit(Box::new(common::job(&text))), None));
    }

    fn cancel(&mut self) {
        if self.jobs == 0 {
            return;
        }
        let job = JobId::new(format!("j{}", 1 + self.random.below(u64::from(self.jobs)))).unwrap();
        let grace_ms = self.random.below(5_000);
        let input = Input::Cancel { job, by: "ann".into(), reason: String::new(), grace_ms };
        self.to_controller.push((self.now, input, None));
    }

    fn restart(&mut self) {
        if self.jobs == 0 {
            return;
        }
        let job = JobId::new(format!("j{}", 1 + self.random.below(u64::from(self.jobs)))).unwrap();
        let stages: Vec<_> = self
            .driver
            .saved
            .jobs
            .get(&job)
            .map(|job| job.stages.iter().map(|stage| stage.name.clone()).collect())
            .unwrap_or_default();
        let from_stage = if self.random.one_in(2) { self.random.pick(&stages) } else { None };
        let wish = planner::Restart {
            job,
            by: "ann".into(),
            reason: String::new(),
            key: self.random.one_in(2).then(|| format!("k{}", self.random.below(3))),
            from_stage,
            from_checkpoint: self.random.one_in(5).then(|| 1 + self.random.below(40)),
            stop_running: self.random.one_in(2),
            grace_ms: self.random.below(4_000),
        };
        let at = self.now.after_ms(self.random.below(200));
        self.to_controller.push((at, Input::Restart(Box::new(wish)), None));
    }

    /// An operator sets a node aside, empties it, or takes it back.
    fn operate(&mut self) {
        let nodes: Vec<NodeId> = self.agents.keys().cloned().collect();
        let Some(node) = self.random.pick(&nodes) else { return };
        let (by, reason) = ("op".to_owned(), "fan".to_owned());
        let input = match self.random.below(8) {
            6 | 7 => Input::Spare { node, by, spare: self.random.one_in(2) },
            4 => return self.power_off(&node),
            // Whatever an operator says of it: only a silent one is believed to be dead.
            5 => Input::Fence { node, by, reason },
            0 => Input::Cordon { node, by, reason },
            1 | 2 => {
                let deadline_ms = self.random.one_in(2).then(|| self.random.below(6_000));
                Input::Drain { node, by, reason, deadline_ms }
            }
            _ => Input::Uncordon { node, by },
        };
        self.to_controller.push((self.now.after_ms(self.random.below(200)), input, None));
    }

    /// A host is switched off, and an operator says so.
    fn power_off(&mut self, node: &NodeId) {
        let back = self.now.after_ms(4_000 + self.random.below(20_000));
        self.agents.get_mut(node).unwrap().reboot(back, &mut self.truth);
        self.session_over(node);
        let at = self.now.after_ms(3_000 + self.random.below(3_000));
        let input = Input::Fence { node: node.clone(), by: "op".into(), reason: "power".into() };
        self.to_controller.push((at, input, None));
    }

    /// A device of a node is in alarm, or none is any more.
    fn alarm(&mut self) {
        let sessions = self.agents.iter().filter_map(|(node, agent)| Some((node.clone(), agent.session?)));
        let Some((node, session)) = self.random.pick(&sessions.collect::<Vec<_>>()) else { return };
        let slot = u32::try_from(self.random.below(4)).unwrap();
        let slots = if self.random.one_in(3) { BTreeSet::new() } else { BTreeSet::from([slot]) };
        self.to_controller.push((
            self.now.after_ms(self.random.below(200)),
            Input::Unfit { node, session, slots },
            None,
        ));
    }

    /// Somebody pins, removes or has read a checkpoint; a removal may be confirmed, late or never.
    fn keep(&mut self) {
        let all = self.driver.saved.jobs.values().flat_map(|job| {
            let stages = job.stages.iter().map(move |stage| (job.id.clone(), stage));
            stages
                .flat_map(|(job, stage)| stage.checkpoints.keys().map(move |at| (job.clone(), stage.name.clone(), *at)))
        });
        let Some((job, stage, iteration)) = self.random.pick(&all.collect::<Vec<_>>()) else { return };
        let faults = if self.random.one_in(2) { Vec::new() } else { vec![(NodeId::new("n1").unwrap(), "torn".into())] };
        let what = match self.random.below(5) {
            0 => Keep::Pin,
            1 => Keep::Unpin,
            2 => Keep::Remove { force: self.random.one_in(2) },
            3 => Keep::Removed,
            _ => {
                let stages = self.driver.world.jobs.get(&job).map(|job| &job.stages);
                let at = stages.and_then(|stages| stages.iter().position(|one| one.name == stage));
                let written = at.and_then(|at| planner::written(&self.driver.world, &job, at, iteration));
                Keep::Verified { written: written.unwrap_or(self.now), faults }
            }
        };
        let about = AboutCheckpoint { job, stage, iteration, by: "ann".into(), what };
        let at = self.now.after_ms(self.random.below(200));
        self.to_controller.push((at, Input::Checkpoint(Box::new(about)), None));
    }

    fn run_agents(&mut self) {
        let nodes: Vec<NodeId> = self.agents.keys().cloned().collect();
        for node in nodes {
            let agent = self.agents.get_mut(&node).unwrap();
            if self.calm {
                agent.cut_until = agent.cut_until.min(self.now);
                agent.down_until = agent.down_until.min(self.now.after_ms(TURN_MS));
            }
            agent.work(self.now, &mut self.random, &mut self.truth, self.calm);
            if agent.is_cut(self.now) {
                if agent.session.is_some() && self.random.one_in(10) {
                    self.session_over(&node);
                }
                continue;
            }
            if agent.is_down(self.now) {
                continue;
            }
            if agent.session.is_none() {
                self.driver.sessions += 1;
                let session = self.driver.sessions;
                agent.session = Some(session);
                agent.sent = None;
                agent.tombs.clear();
                let input = Input::Hello { node: Box::new(agent.record()), session, live: agent.live() };
                agent.beat_at = self.now.after_ms(1_000);
                self.send_up(&node, session, input, None);
            }
            self.speak(&node);
        }
    }

    /// Reports first, then the beat that follows them.
    fn speak(&mut self, node: &NodeId) {
        let agent = self.agents.get_mut(node).unwrap();
        let Some(session) = agent.session else { return };
        let mut out = Vec::new();
        for (seq, attempt, what) in &agent.spool {
            if agent.sent.is_none_or(|sent| *seq > sent) {
                let (attempt, what) = (attempt.clone(), what.clone());
                out.push((Input::Report { node: node.clone(), session, attempt, what }, Some(*seq)));
            }
        }
        agent.sent = agent.spool.back().map(|(seq, _, _)| *seq).or(agent.sent);
        if agent.beat_at <= self.now {
            agent.beat_at = self.now.after_ms(1_000);
            out.push((Input::Beat { node: node.clone(), session, live: agent.live() }, None));
        }
        for (input, seq) in out {
            self.send_up(node, session, input, seq);
        }
    }

    /// One session keeps its order; different ones overtake each other.
    fn send_up(&mut self, node: &NodeId, session: u64, input: Input, seq: Option<u64>) {
        let slow = if !self.calm && self.random.one_in(30) { 4_000 } else { 150 };
        let agent = self.agents.get_mut(node).unwrap();
        let at = self.now.after_ms(self.random.below(slow)).max(agent.arrives);
        agent.arrives = at;
        if seq.is_some() && !self.calm && self.random.one_in(20) {
            self.to_controller.push((at, input.clone(), seq));
        }
        debug_assert!(session <= self.driver.sessions);
        self.to_controller.push((at, input, seq));
    }

    fn session_over(&mut self, node: &NodeId) {
        let agent = self.agents.get_mut(node).unwrap();
        agent.arrives = Timestamp(0);
        if let Some(session) = agent.session.take()
            && !self.random.one_in(4)
        {
            let at = self.now.after_ms(self.random.below(2_000));
            self.to_controller.push((at, Input::SessionLost { node: node.clone(), session }, None));
        }
    }

    fn deliver_down(&mut self) -> Result<(), String> {
        let (due, later): (Vec<_>, Vec<_>) = self.to_agent.drain(..).partition(|(at, ..)| *at <= self.now);
        self.to_agent = later;
        for (_, node, session, down) in due {
            let agent = self.agents.get_mut(&node).unwrap();
            let closed = matches!(down, Down::Closed);
            if agent.session != Some(session) || agent.is_down(self.now) {
                continue;
            }
            if agent.is_cut(self.now) && !closed {
                // The stream holds what it carries until the cut ends or the session does.
                let end = agent.cut_until;
                self.to_agent.push((end, node, session, down));
                continue;
            }
            match down {
                Down::Ack(seq) => agent.spool.retain(|(kept, _, _)| *kept != seq),
                Down::Closed => self.session_over(&node),
                Down::Effect(effect) => {
                    if let Effect::Start { attempt, .. } = &effect
                        && agent.would_start(attempt)
                    {
                        checks::may_start(&self.driver, &self.agents, attempt, &node)?;
                    }
                    let told = self.driver.told(&effect);
                    let agent = self.agents.get_mut(&node).unwrap();
                    agent.obey(&effect, told, self.now, &mut self.random, &mut self.truth);
                }
            }
        }
        Ok(())
    }

    fn deliver_up(&mut self) -> Result<(), String> {
        let (mut due, later): (Vec<_>, Vec<_>) = self.to_controller.drain(..).partition(|(at, ..)| *at <= self.now);
        self.to_controller = later;
        due.sort_by_key(|(at, ..)| *at);
        let mut batch: Vec<(Input, Option<u64>)> = due.into_iter().map(|(_, input, seq)| (input, seq)).collect();
        if self.driver.wake.is_some_and(|at| at <= self.now) {
            batch.push((Input::Tick, None));
        }
        if batch.is_empty() {
            return Ok(());
        }
        let fate = driver::Fate::draw(&mut self.random, self.calm);
        let leaders = self.driver.leaders;
        let downs = self.driver.batch(&batch, self.now, fate, &self.agents, &mut self.truth)?;
        if self.driver.leaders > leaders {
            self.greetings_lost();
        }
        for (node, session, down) in downs {
            self.send_down(node, session, down);
        }
        checks::after_batch(&self.driver, &self.agents, &self.truth)
    }

    /// A greeting that was under way to one leader is not heard by the next.
    fn greetings_lost(&mut self) {
        let greets = |input: &Input| {
            if let Input::Hello { node, session, .. } = input { Some((node.id.clone(), *session)) } else { None }
        };
        let lost: Vec<(NodeId, u64)> = self.to_controller.iter().filter_map(|(_, input, _)| greets(input)).collect();
        self.to_controller.retain(|(_, input, _)| greets(input).is_none());
        for (node, session) in lost {
            if self.agents[&node].session == Some(session) {
                self.session_over(&node);
            }
        }
    }

    fn send_down(&mut self, node: NodeId, session: u64, down: Down) {
        let lossy = match &down {
            Down::Effect(_) => !self.calm,
            Down::Ack(_) | Down::Closed => false,
        };
        if lossy && self.random.one_in(12) {
            return;
        }
        let at = self.now.after_ms(self.random.below(if lossy { 400 } else { 100 }));
        if lossy && self.random.one_in(15) {
            let again = at.after_ms(self.random.below(1_500));
            self.to_agent.push((again, node.clone(), session, down.clone()));
        }
        self.to_agent.push((at, node, session, down));
    }

    fn at_rest(&self) -> bool {
        self.to_controller.is_empty()
            && self.to_agent.is_empty()
            && self.driver.saved.jobs.values().all(|job| job.ended.is_some())
            && self.agents.values().all(|agent| agent.is_idle())
            && self.agents.keys().all(|node| self.driver.world.slots_taken(node).is_empty())
    }

    fn unrest(&self) -> String {
        let jobs: Vec<String> = self
            .driver
            .saved
            .jobs
            .values()
            .filter(|job| job.ended.is_none())
            .map(|job| planner::explain(&self.driver.world, &job.id))
            .collect();
        let agents: Vec<String> = self
            .agents
            .values()
            .filter(|agent| !agent.is_idle())
            .map(|agent| {
                format!(
                    "{} holds {:?}, has to say {:?} in {:?}, last said {:?}",
                    agent.id,
                    agent.live(),
                    agent.spool,
                    agent.session,
                    agent.sent
                )
            })
            .collect();
        let open = self
            .driver
            .saved
            .jobs
            .values()
            .flat_map(|job| &job.stages)
            .flat_map(|stage| &stage.tasks)
            .filter(|task| matches!(task.state, TaskState::Active(_)))
            .count();
        format!("{open} active tasks; {jobs:?}; {agents:?}")
    }
}
