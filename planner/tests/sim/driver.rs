//! The controller around the planner: batches, commits that fail, new leaders.

use std::collections::{BTreeMap, BTreeSet};

use model::{AttemptId, AttemptState, Body, Cordon, Drain, NodeId, TaskState, Timestamp};
use planner::invariants::invariants;
use planner::{Effect, Input, Mutation, Policy, Reply, Report, Step, World, Write, conclude, take};

use super::agent::{Agent, Told};
use super::random::Random;
use super::store::Saved;
use super::{Down, Truth, checks};

/// What becomes of a batch's commit.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fate {
    Saved,
    /// Not saved: another may lead.
    Refused,
    /// Saved, but nobody was told: a new leader finds it.
    Unheard,
}

impl Fate {
    pub(crate) fn draw(random: &mut Random, calm: bool) -> Self {
        match random.below(120) {
            0 if !calm => Self::Refused,
            1 if !calm => Self::Unheard,
            _ => Self::Saved,
        }
    }
}

pub(crate) struct Driver {
    pub(crate) world: World,
    pub(crate) saved: Saved,
    pub(crate) wake: Option<Timestamp>,
    pub(crate) sessions: u64,
    /// Leaders so far.
    pub(crate) leaders: u64,
    /// Sessions that this leader has greeted.
    open: BTreeMap<NodeId, u64>,
    /// When a message of the node counted last, for any leader.
    pub(crate) contact: BTreeMap<NodeId, Timestamp>,
    /// What operators said of nodes and was saved.
    pub(crate) set_aside: BTreeMap<NodeId, Option<Cordon>>,
    /// Tasks whose good end no longer counts, because somebody restarted their job.
    pub(crate) restarted: BTreeSet<model::JobId>,
    /// Ends that were acknowledged while their seat was open.
    pub(crate) promised: BTreeSet<AttemptId>,
    /// Nodes that operators fenced, with the boot id that they meant.
    pub(crate) fenced: BTreeMap<NodeId, Option<String>>,
    /// Seats that were given up by an operator's word.
    pub(crate) given_up: BTreeSet<(AttemptId, NodeId)>,
    said: BTreeMap<NodeId, Option<Cordon>>,
    said_fenced: BTreeMap<NodeId, Option<String>>,
    revived: BTreeSet<model::JobId>,
    mutation: Option<Mutation>,
}

pub(crate) fn policy() -> Policy {
    Policy {
        suspect_after_ms: 3_000,
        lost_after_ms: 10_000,
        fence_margin_ms: 5_000,
        failure_grace_ms: 1_000,
        engine_tasks_per_node: 2,
        keep_ended_jobs: 100,
        stop_grace_ms: 2_000,
        ahead_ms: 2_000,
        most_ahead: 5,
        confirm_ms: 1_000,
    }
}

impl Driver {
    pub(crate) fn new(mutation: Option<Mutation>, now: Timestamp) -> Self {
        let mut driver = Self {
            world: World::new(policy(), now),
            saved: Saved::default(),
            wake: None,
            sessions: 0,
            leaders: 1,
            open: BTreeMap::new(),
            contact: BTreeMap::new(),
            set_aside: BTreeMap::new(),
            restarted: BTreeSet::new(),
            promised: BTreeSet::new(),
            fenced: BTreeMap::new(),
            given_up: BTreeSet::new(),
            said: BTreeMap::new(),
            said_fenced: BTreeMap::new(),
            revived: BTreeSet::new(),
            mutation,
        };
        driver.world.mutation = mutation;
        driver
    }

    /// Decide, save, act.
    pub(crate) fn batch(
        &mut self,
        inputs: &[(Input, Option<u64>)],
        now: Timestamp,
        fate: Fate,
        agents: &BTreeMap<NodeId, Agent>,
        truth: &mut Truth,
    ) -> Result<Vec<(NodeId, u64, Down)>, String> {
        let mut writes: BTreeSet<Write> = BTreeSet::new();
        let mut events = Vec::new();
        let mut downs = Vec::new();
        let mut acks = Vec::new();
        let mut promises = Vec::new();
        for (input, seq) in inputs {
            let open_end = self.open_end(input);
            let fence = if let Input::Fence { node, .. } = input { Some(node) } else { None };
            let seats: Vec<AttemptId> = fence.into_iter().flat_map(|node| self.world.seats_on(node)).collect();
            let mut step = take(&mut self.world, input, now);
            let broken = invariants(&self.world);
            if !broken.is_empty() {
                return Err(format!("{broken:?} after {input:?}"));
            }
            self.note_contact(input, now);
            self.note_word(input, step.reply.as_ref());
            if let (Input::Fence { node, .. }, Some(Reply::NodeChanged)) = (input, &step.reply) {
                checks::fenced(node, &self.contact, now)?;
                self.given_up.extend(seats.into_iter().map(|attempt| (attempt, node.clone())));
            }
            checks::after_input(&self.world, input, agents)?;
            checks::failures(&self.world, &step.events, agents, &self.contact, now)?;
            writes.append(&mut step.writes);
            events.append(&mut step.events);
            downs.extend(self.downs(&mut step));
            if step.reply == Some(Reply::Taken)
                && let (Input::Report { node, session, .. }, Some(seq)) = (input, seq)
            {
                acks.push((node.clone(), *session, Down::Ack(*seq)));
                promises.extend(open_end);
            }
        }
        let mut step = conclude(&mut self.world, now);
        checks::placed(&self.world, &step.events, now)?;
        let broken = invariants(&self.world);
        if !broken.is_empty() {
            return Err(format!("{broken:?} after the queue was gone through"));
        }
        writes.append(&mut step.writes);
        events.append(&mut step.events);
        downs.extend(self.downs(&mut step));
        self.wake = step.wake_at.map(|(at, _)| at);
        checks::overs(self, agents, truth, now)?;
        let (said, revived) = (std::mem::take(&mut self.said), std::mem::take(&mut self.revived));
        if fate != Fate::Refused {
            self.set_aside.extend(said);
            self.fenced.append(&mut self.said_fenced);
            // An end that was promised before may begin again; the history still holds it.
            self.restarted.extend(revived);
            self.saved.apply(&self.world, writes.iter(), &events);
            checks::saved_all(&self.world, &self.saved)?;
        }
        self.said_fenced.clear();
        if fate == Fate::Saved {
            self.promised.extend(promises);
            downs.extend(acks);
            return Ok(downs);
        }
        let mut escaped = Vec::new();
        if self.mutation == Some(Mutation::EffectsBeforeCommit) {
            escaped.extend(downs);
        }
        if self.mutation == Some(Mutation::AckBeforeCommit) {
            self.promised.extend(promises);
            escaped.extend(acks);
        }
        escaped.extend(self.new_leader(now));
        Ok(escaped)
    }

    /// Effects on their way, through the sessions that are open.
    fn downs(&self, step: &mut Step) -> Vec<(NodeId, u64, Down)> {
        let to = |effect: &Effect| match effect {
            Effect::Prepare { node, .. } | Effect::Start { node, .. } | Effect::Recall { node, .. } => node.clone(),
            Effect::Stop { node, .. } | Effect::Forget { node, .. } => node.clone(),
        };
        let effects = std::mem::take(&mut step.effects).into_iter().map(|effect| (to(&effect), effect));
        effects
            .filter_map(|(node, effect)| {
                let session = *self.open.get(&node)?;
                Some((node, session, Down::Effect(effect)))
            })
            .collect()
    }

    /// Everything volatile is gone; agents find the new leader by their own.
    fn new_leader(&mut self, now: Timestamp) -> Vec<(NodeId, u64, Down)> {
        self.leaders += 1;
        self.world = World::new(policy(), now);
        self.world.mutation = self.mutation;
        self.saved.nodes.values().for_each(|node| self.world.restore_node(node.clone()));
        self.saved.jobs.values().for_each(|job| self.world.restore_job(job.clone()));
        self.wake = Some(now);
        std::mem::take(&mut self.open).into_iter().map(|(node, session)| (node, session, Down::Closed)).collect()
    }

    fn note_contact(&mut self, input: &Input, now: Timestamp) {
        match input {
            Input::Hello { node, session, .. } => {
                if self.world.nodes.get(&node.id).is_some_and(|view| view.session == Some(*session)) {
                    self.open.insert(node.id.clone(), *session);
                    self.contact.insert(node.id.clone(), now);
                }
            }
            Input::Beat { node, session, .. } | Input::Report { node, session, .. } => {
                if self.world.nodes.get(node).is_some_and(|view| view.session == Some(*session)) {
                    self.contact.insert(node.clone(), now);
                }
            }
            Input::SessionLost { node, session } => {
                if self.open.get(node) == Some(session) {
                    self.open.remove(node);
                }
            }
            Input::Submit(_)
            | Input::Cancel { .. }
            | Input::Restart(_)
            | Input::Checkpoint(_)
            | Input::Cordon { .. }
            | Input::Drain { .. }
            | Input::Fence { .. }
            | Input::Spare { .. }
            | Input::Groups { .. }
            | Input::Uncordon { .. }
            | Input::Unfit { .. }
            | Input::Tick => {}
        }
    }

    /// What must hold after an operator's or user's word, once it is saved.
    fn note_word(&mut self, input: &Input, reply: Option<&Reply>) {
        match (input, reply) {
            (Input::Cordon { node, .. } | Input::Drain { node, .. }, Some(Reply::NodeChanged)) => {
                _ = self.said.insert(node.clone(), self.world.nodes[node].record.cordon.clone());
            }
            (Input::Fence { node, .. }, Some(Reply::NodeChanged)) => {
                let boot = self.world.nodes[node].record.boot_id.clone();
                _ = self.said_fenced.insert(node.clone(), Some(boot));
            }
            (Input::Uncordon { node, .. }, Some(Reply::NodeChanged)) => {
                _ = self.said.insert(node.clone(), None);
                _ = self.said_fenced.insert(node.clone(), None);
            }
            (Input::Restart(wish), Some(Reply::Restarted(_))) => _ = self.revived.insert(wish.job.clone()),
            _ => {}
        }
    }

    /// The attempt, if this reports the good end of an open lone seat.
    fn open_end(&self, input: &Input) -> Option<AttemptId> {
        let Input::Report { node, session, attempt, what: Report::Ended { ok: true, .. } } = input else { return None };
        let current = self.world.nodes.get(node).is_some_and(|view| view.session == Some(*session));
        let stage = self.world.jobs.get(&attempt.task.job)?.stages.iter().find(|s| s.name == attempt.task.stage)?;
        let TaskState::Active(active) = &stage.tasks.get(attempt.task.index as usize)?.state else { return None };
        let open = active.number == attempt.number
            && active.first_failure.is_none()
            && !matches!(active.state, AttemptState::Draining(Drain::Restarted { .. }))
            && active.seats.len() == 1
            && active.seats.iter().any(|seat| seat.node == *node && !seat.state.is_over());
        (current && open).then(|| attempt.clone())
    }

    /// Whether the node has a seat in the attempt, as far as is saved.
    pub(crate) fn seated(&self, id: &AttemptId, node: &NodeId) -> bool {
        let Some(job) = self.saved.jobs.get(&id.task.job) else { return false };
        let Some(stage) = job.stages.iter().find(|stage| stage.name == id.task.stage) else { return false };
        let Some(task) = stage.tasks.get(id.task.index as usize) else { return false };
        let past = task.history.iter().any(|past| past.number == id.number && past.nodes.contains(node));
        past || match &task.state {
            TaskState::Active(now) => now.number == id.number && now.seats.iter().any(|seat| seat.node == *node),
            TaskState::Waiting { .. }
            | TaskState::Done { .. }
            | TaskState::Failed { .. }
            | TaskState::Cancelled { .. }
            | TaskState::Skipped => false,
        }
    }

    /// What the assignment that goes with an effect says.
    pub(crate) fn told(&self, effect: &Effect) -> Told {
        let (Effect::Prepare { attempt, seat, .. } | Effect::Start { attempt, seat, .. }) = effect else {
            return (Vec::new(), 0, false);
        };
        let job = self.saved.jobs.get(&attempt.task.job);
        let stage = job.and_then(|job| job.stages.iter().find(|stage| stage.name == attempt.task.stage));
        let task = stage.and_then(|stage| stage.tasks.get(attempt.task.index as usize));
        let alone = task.is_some_and(|task| {
            matches!(task.body, Body::Run { .. }) && task.shape.ranks() == 1 && task.shape.slots_per_rank == 0
        });
        match task.map(|task| &task.state) {
            Some(TaskState::Active(now)) if now.number == attempt.number => {
                let slots = now.seats.get(*seat).map(|seat| seat.slots.clone()).unwrap_or_default();
                (slots, now.seats.len(), alone)
            }
            _ => (Vec::new(), usize::MAX, alone),
        }
    }
}
