//! An honest agent: obeys, spools its reports, outlives restarts, forgets at a reboot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{AttemptId, Cause, Failure, Node, NodeId, Output, Timestamp};
use planner::{Effect, Report};

use super::Truth;
use super::random::Random;
use crate::common;

/// Small tasks that run at once.
const AT_ONCE: usize = 2;

/// What an assignment says of a seat: its slots, the attempt's seats, and
/// whether it goes through the queue of small tasks.
pub(crate) type Told = (Vec<u32>, usize, bool);

/// A seat as the agent keeps it on disk.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) slots: Vec<u32>,
    pub(crate) nodes: usize,
    /// It goes through the queue of small tasks.
    queued: bool,
    pub(crate) state: State,
    /// It will fail with this at the end of its time.
    doom: Option<Cause>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    Prepared,
    /// Begins when fewer than [`AT_ONCE`] of its kind run.
    Queued,
    Running {
        since: Timestamp,
        done_at: Timestamp,
    },
    Stopping {
        until: Timestamp,
    },
    Ended,
}

pub(crate) struct Agent {
    pub(crate) id: NodeId,
    pub(crate) slots: u32,
    boots: u32,
    pub(crate) session: Option<u64>,
    pub(crate) cut_until: Timestamp,
    pub(crate) down_until: Timestamp,
    pub(crate) beat_at: Timestamp,
    /// When the last message of this session arrives, so that none overtakes it.
    pub(crate) arrives: Timestamp,
    seats: BTreeMap<AttemptId, Seat>,
    /// Queued seats, the next one first; on disk like the seats.
    queue: VecDeque<AttemptId>,
    seq: u64,
    pub(crate) spool: VecDeque<(u64, AttemptId, Report)>,
    /// Newest report sent in this session.
    pub(crate) sent: Option<u64>,
    /// Attempts forgotten or stopped unseen in this session: a late start is refused.
    pub(crate) tombs: BTreeSet<AttemptId>,
}

impl Agent {
    pub(crate) fn new(id: NodeId, slots: u32) -> Self {
        Self {
            id,
            slots,
            boots: 1,
            session: None,
            cut_until: Timestamp(0),
            down_until: Timestamp(0),
            beat_at: Timestamp(0),
            arrives: Timestamp(0),
            seats: BTreeMap::new(),
            queue: VecDeque::new(),
            seq: 0,
            spool: VecDeque::new(),
            sent: None,
            tombs: BTreeSet::new(),
        }
    }

    pub(crate) fn record(&self) -> Node {
        let mut node = common::node(self.id.as_str(), self.slots, &format!("b{}", self.boots));
        let odd = !self.id.as_str().ends_with(['2', '4']);
        node.labels = common::labels(if odd { "rack:a,odd:yes" } else { "rack:b" });
        node.groups = if odd { (0..self.slots).map(|slot| slot / 2).collect() } else { Vec::new() };
        node.spare = self.id.as_str() == "n4";
        node
    }

    pub(crate) fn live(&self) -> BTreeSet<AttemptId> {
        self.seats.keys().cloned().collect()
    }

    pub(crate) fn known(&self) -> impl Iterator<Item = AttemptId> {
        self.seats.keys().cloned()
    }

    pub(crate) fn holds(&self, id: &AttemptId) -> bool {
        self.seats.contains_key(id)
    }

    pub(crate) fn refuses(&self, id: &AttemptId) -> bool {
        self.tombs.contains(id)
    }

    /// Attempts with processes, and the slots that these hold.
    pub(crate) fn running(&self) -> impl Iterator<Item = (&AttemptId, &Seat)> {
        self.seats.iter().filter(|(_, seat)| match seat.state {
            State::Running { .. } | State::Stopping { .. } => true,
            State::Prepared | State::Queued | State::Ended => false,
        })
    }

    pub(crate) fn holds_running(&self, id: &AttemptId) -> bool {
        self.running().any(|(running, _)| running == id)
    }

    /// Whether the attempt runs, or begins when its turn comes.
    pub(crate) fn may_run(&self, id: &AttemptId) -> bool {
        self.holds_running(id) || self.queue.contains(id)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.seats.is_empty() && self.spool.is_empty()
    }

    pub(crate) fn is_down(&self, now: Timestamp) -> bool {
        self.down_until > now
    }

    pub(crate) fn is_cut(&self, now: Timestamp) -> bool {
        self.cut_until > now
    }

    /// The agent dies; the ranks and the disk stay.
    pub(crate) fn restart(&mut self, back: Timestamp) {
        self.down_until = self.down_until.max(back);
        // What was only prepared was in memory.
        self.seats.retain(|_, seat| seat.state != State::Prepared);
    }

    /// The host dies: what ran is gone, what had ended is on disk.
    pub(crate) fn reboot(&mut self, back: Timestamp, truth: &mut Truth) {
        self.down_until = self.down_until.max(back);
        self.boots += 1;
        let gone: Vec<AttemptId> = self.running().map(|(id, _)| id.clone()).collect();
        truth.broken.extend(gone);
        self.seats.retain(|_, seat| seat.state == State::Ended);
        self.queue.clear();
    }

    pub(crate) fn obey(&mut self, effect: &Effect, told: Told, now: Timestamp, random: &mut Random, truth: &mut Truth) {
        match effect {
            Effect::Prepare { attempt, .. } => {
                if !self.holds(attempt) && !self.refuses(attempt) {
                    let (slots, nodes, queued) = told;
                    let seat = Seat { slots, nodes, queued, state: State::Prepared, doom: None };
                    self.seats.insert(attempt.clone(), seat);
                    let port = u16::try_from(7_000 + random.below(100)).unwrap();
                    self.say(attempt, Report::Prepared { port });
                }
            }
            Effect::Start { attempt, .. } => self.start(attempt, told, now, random, truth),
            Effect::Stop { attempt, grace_ms, .. } => self.stop(attempt, *grace_ms, now, random, truth),
            Effect::Recall { attempt, .. } => {
                if let Some(at) = self.queue.iter().position(|queued| queued == attempt) {
                    self.queue.remove(at);
                    self.set(attempt, State::Ended);
                    truth.returned += 1;
                    self.say(attempt, Report::Returned);
                }
            }
            Effect::Forget { attempt, .. } => {
                if !self.holds_running(attempt) {
                    self.seats.remove(attempt);
                    self.tombs.insert(attempt.clone());
                }
            }
        }
    }

    /// Whether a start of the attempt begins anything: one that comes again, even behind the end, does not.
    pub(crate) fn would_start(&self, id: &AttemptId) -> bool {
        match self.seats.get(id).map(|seat| &seat.state) {
            None => !self.refuses(id),
            Some(State::Prepared) => true,
            Some(State::Queued | State::Running { .. } | State::Stopping { .. } | State::Ended) => false,
        }
    }

    fn start(
        &mut self,
        id: &AttemptId,
        (slots, nodes, queued): Told,
        now: Timestamp,
        random: &mut Random,
        truth: &mut Truth,
    ) {
        if !self.would_start(id) {
            return;
        }
        if queued {
            self.seats.insert(id.clone(), Seat { slots, nodes, queued, state: State::Queued, doom: None });
            return self.queue.push_back(id.clone());
        }
        self.begin(id, (slots, nodes, queued), now, random, truth);
    }

    fn begin(
        &mut self,
        id: &AttemptId,
        (slots, nodes, queued): Told,
        now: Timestamp,
        random: &mut Random,
        truth: &mut Truth,
    ) {
        let doom = match random.below(14) {
            0 => Some(Cause::Signal(9)),
            1 => Some(Cause::Exit(1)),
            2 => Some(Cause::Signal(11)),
            _ => None,
        };
        // Some work outlasts every window, so that silent nodes still run it when they are back.
        let longest = match queued {
            true if !random.one_in(8) => 1_000,
            true | false if random.one_in(3) => 45_000,
            true | false => 8_000,
        };
        let since = now;
        let done_at = now.after_ms(if queued { 1 } else { 500 } + random.below(longest));
        self.seats.insert(id.clone(), Seat { slots, nodes, queued, state: State::Running { since, done_at }, doom });
        truth.started.entry(id.clone()).or_default().insert(self.id.clone());
        self.say(id, Report::Started);
    }

    fn stop(&mut self, id: &AttemptId, grace_ms: u64, now: Timestamp, random: &mut Random, truth: &mut Truth) {
        let deadline = now.after_ms(random.below(grace_ms.max(1)));
        let state = self.seats.get(id).map(|seat| seat.state.clone());
        match state {
            None => {
                // Nothing to stop: say so, and refuse a start that is still under way.
                self.tombs.insert(id.clone());
                self.say(id, Report::Ended { ok: false, output: Output::default(), failure: None, ran_ms: None });
            }
            Some(State::Prepared | State::Queued) => {
                self.queue.retain(|queued| queued != id);
                self.set(id, State::Ended);
                truth.broken.insert(id.clone());
                self.say(id, Report::Ended { ok: false, output: Output::default(), failure: None, ran_ms: None });
            }
            Some(State::Running { .. }) => {
                truth.broken.insert(id.clone());
                self.set(id, State::Stopping { until: deadline });
            }
            Some(State::Stopping { until }) => self.set(id, State::Stopping { until: until.min(deadline) }),
            Some(State::Ended) => {
                let told = self
                    .spool
                    .iter()
                    .any(|(_, kept, what)| kept == id && matches!(what, Report::Ended { .. } | Report::Returned));
                if !told {
                    self.say(id, Report::Ended { ok: false, output: Output::default(), failure: None, ran_ms: None });
                }
            }
        }
    }

    fn set(&mut self, id: &AttemptId, state: State) {
        if let Some(seat) = self.seats.get_mut(id) {
            seat.state = state;
        }
    }

    /// Processes end in their time, whether or not their agent is there to see.
    pub(crate) fn work(&mut self, now: Timestamp, random: &mut Random, truth: &mut Truth, calm: bool) {
        if self.is_down(now) {
            return;
        }
        let seats: Vec<(AttemptId, Seat)> = self.seats.iter().map(|(id, seat)| (id.clone(), seat.clone())).collect();
        for (id, seat) in seats {
            match seat.state {
                State::Prepared | State::Queued | State::Ended => {}
                State::Stopping { until } if until <= now => {
                    self.set(&id, State::Ended);
                    self.say(&id, Report::Ended { ok: false, output: Output::default(), failure: None, ran_ms: None });
                }
                State::Running { done_at, .. } if done_at <= now => self.finish(&id, &seat, now, truth, calm),
                State::Running { .. } if seat.nodes > 1 && random.one_in(20) => {
                    let iteration = 1 + random.below(40);
                    self.say(&id, Report::Shard { iteration, tp: 0, pp: 0, path: "/ckpt".into(), size: 1 });
                    if random.one_in(2) {
                        self.say(&id, Report::Tracker { iteration });
                    }
                }
                State::Stopping { .. } | State::Running { .. } => {}
            }
        }
        while self.running().filter(|(_, seat)| seat.queued).count() < AT_ONCE {
            let Some(next) = self.queue.pop_front() else { break };
            let seat = self.seats[&next].clone();
            self.begin(&next, (seat.slots, seat.nodes, true), now, random, truth);
        }
        let waits = !self.queue.is_empty();
        truth.ahead += usize::from(waits);
    }

    fn finish(&mut self, id: &AttemptId, seat: &Seat, now: Timestamp, truth: &mut Truth, calm: bool) {
        if let Some(cause) = seat.doom.filter(|_| !calm) {
            truth.broken.insert(id.clone());
            self.fail(id, cause, "it died", now);
            return;
        }
        // Ranks of a gang need each other: they start together or hang, and die of a lost peer.
        if truth.broken.contains(id) {
            let since = match seat.state {
                State::Running { done_at, .. } => now.since(done_at),
                State::Prepared | State::Queued | State::Stopping { .. } | State::Ended => 0,
            };
            if since > 5_000 {
                self.fail(id, Cause::Exit(1), "lost its peer", now);
            }
            return;
        }
        if truth.started.get(id).map_or(0, BTreeSet::len) < seat.nodes {
            return;
        }
        truth.finished.insert((id.clone(), self.id.clone()));
        self.set(id, State::Ended);
        let output = Output { path: format!("/out.{id}"), ..Output::default() };
        let ran_ms = match seat.state {
            State::Running { since, .. } => Some(now.since(since)),
            State::Prepared | State::Queued | State::Stopping { .. } | State::Ended => None,
        };
        self.say(id, Report::Ended { ok: true, output, failure: None, ran_ms });
    }

    fn fail(&mut self, id: &AttemptId, cause: Cause, message: &str, now: Timestamp) {
        let failure = Failure {
            node: self.id.clone(),
            rank: None,
            cause,
            at: now,
            message: message.into(),
            hint: String::new(),
            evidence: Vec::new(),
        };
        self.set(id, State::Ended);
        self.say(id, Report::Failed(failure.clone()));
        self.say(id, Report::Ended { ok: false, output: Output::default(), failure: Some(failure), ran_ms: None });
    }

    fn say(&mut self, id: &AttemptId, what: Report) {
        self.seq += 1;
        self.spool.push_back((self.seq, id.clone(), what));
    }
}
