//! Agents come, beat and go; each time, what should run is compared with what does.

use std::collections::BTreeSet;

use model::event::{Kind, Level};
use model::{AttemptId, AttemptState, JobId, Liveness, Node, NodeId, SeatState};

use crate::Mutation;
use crate::index::Place;
use crate::input::{Effect, Write};
use crate::step::{Standing, Work};
use crate::text;
use crate::world::NodeView;

impl Work<'_> {
    pub(crate) fn hello(&mut self, node: &Node, session: u64, live: &BTreeSet<AttemptId>) {
        let id = &node.id;
        let known = self.world.nodes.get(id);
        let stale = known.is_some_and(|view| session <= view.newest_session);
        if stale && !self.world.broken(Mutation::IgnoreSession) {
            return;
        }
        let rebooted = known.is_some_and(|view| view.record.boot_id != node.boot_id);
        let mut record = node.clone();
        record.joined = known.map_or(self.now, |view| view.record.joined);
        if !self.world.broken(Mutation::ForgetCordonAtHello) {
            record.cordon = known.and_then(|view| view.record.cordon.clone());
        }
        record.spare_word = known.and_then(|view| view.record.spare_word);
        if record.groups.is_empty() {
            let groups = known.filter(|view| view.record.slots == record.slots).map(|view| view.record.groups.clone());
            record.groups = groups.unwrap_or_default();
        }
        if !rebooted && !self.world.broken(Mutation::ForgetFenceAtHello) {
            record.fence = known.and_then(|view| view.record.fence.clone());
        }
        if known.is_none_or(|view| view.record != record) {
            self.out.writes.insert(Write::Node(id.clone()));
        }
        let now = self.now;
        let view = self.world.nodes.entry(id.clone()).or_insert_with(|| NodeView::unheard(record.clone(), now));
        view.record = record;
        view.session = Some(session);
        view.newest_session = session;
        view.missing.clear();
        if rebooted {
            view.ended.clear();
        }
        self.heard(id);
        if rebooted && !self.world.broken(Mutation::IgnoreBootId) {
            for place in self.places_on(id) {
                let failure = text::lost(id, now, "the node was rebooted", "");
                self.give_up(&place, id, failure);
            }
        }
        self.reconcile(id, live, true);
        self.tell_undead(id);
        self.world.reconsider = true;
    }

    pub(crate) fn beat(&mut self, node: &NodeId, session: u64, live: &BTreeSet<AttemptId>) {
        if self.speaks(node, session) {
            self.heard(node);
            self.reconcile(node, live, false);
        }
    }

    /// What runs on a device in alarm goes on: it may be the alarm of a fan.
    pub(crate) fn unfit(&mut self, node: &NodeId, session: u64, slots: &BTreeSet<u32>) {
        if !self.speaks(node, session) {
            return;
        }
        let Some(view) = self.world.nodes.get_mut(node) else { return };
        if view.unfit != *slots {
            view.unfit.clone_from(slots);
            self.world.reconsider = true;
        }
    }

    /// Silence is counted from the last word, not from the end of the session.
    pub(crate) fn session_lost(&mut self, node: &NodeId, session: u64) {
        if let Some(view) = self.world.nodes.get_mut(node).filter(|view| view.session == Some(session)) {
            view.session = None;
        }
    }

    /// Whether `session` is the node's present one.
    pub(crate) fn speaks(&self, node: &NodeId, session: u64) -> bool {
        let lax = self.world.broken(Mutation::IgnoreSession);
        self.world.nodes.get(node).is_some_and(|view| view.session == Some(session) || lax)
    }

    /// A node that speaks is ready at once.
    pub(crate) fn heard(&mut self, node: &NodeId) {
        let now = self.now;
        let Some(view) = self.world.nodes.get_mut(node) else { return };
        view.last_heard = now;
        let before = std::mem::replace(&mut view.liveness, Liveness::Ready);
        let returned = match before {
            Liveness::Ready => return,
            Liveness::Unheard => false,
            Liveness::Suspect | Liveness::Lost => true,
        };
        self.world.expect_silence(now.after_ms(self.world.policy.suspect_after_ms));
        self.world.reconsider = true;
        if returned {
            self.tell_jobs_on(node, Kind::NodeReturned, Level::Info, format!("node `{node}` is back"));
        }
        for place in self.places_on(node) {
            self.review_fence(&place);
        }
    }

    pub(crate) fn places_on(&self, node: &NodeId) -> Vec<Place> {
        self.world.index.places(node).cloned().collect()
    }

    /// An event in the history of every job with a seat on `node`.
    pub(crate) fn tell_jobs_on(&mut self, node: &NodeId, kind: Kind, level: Level, message: String) {
        let jobs: BTreeSet<JobId> = self.world.index.places(node).map(|place| place.job.clone()).collect();
        for job in jobs {
            if let Some(event) = self.event(&job, kind, level, message.clone()) {
                event.node = Some(node.clone());
            }
        }
    }

    /// Wanted minus running, and running minus wanted, of one node.
    fn reconcile(&mut self, node: &NodeId, live: &BTreeSet<AttemptId>, hello: bool) {
        if let Some(view) = self.world.nodes.get_mut(node) {
            if view.live != *live {
                view.live.clone_from(live);
            }
            view.ended.retain(|id| live.contains(id));
            view.missing.retain(|id| !live.contains(id));
        }
        for place in self.places_on(node) {
            self.reconcile_seat(&place, node, live, hello);
        }
        self.recall_again(node, live);
        self.unwanted(node, live);
    }

    fn reconcile_seat(&mut self, place: &Place, node: &NodeId, live: &BTreeSet<AttemptId>, hello: bool) {
        let (Some(id), Some(attempt)) = (self.world.attempt_id(place), self.attempt(place)) else { return };
        let Some((seat, at)) = self.seat_on(place, node) else { return };
        let is_live = live.contains(&id);
        let runs = at.state == SeatState::Running;
        match (attempt.state, at.state.clone()) {
            (_, SeatState::Running) if !is_live && self.missing_again(node, &id, hello) => {
                let message = "its agent no longer knows the attempt";
                let hint = "was the agent's state directory emptied?";
                return self.give_up(place, node, text::lost(node, self.now, message, hint));
            }
            (AttemptState::Draining(_), _) => {
                let grace_ms = self.grace_ms(place);
                self.out.effects.push(Effect::Stop { node: node.clone(), attempt: id, grace_ms });
                return;
            }
            (AttemptState::Preparing, SeatState::Assigned | SeatState::Prepared { .. }) => {
                if !is_live {
                    self.out.effects.push(Effect::Prepare { node: node.clone(), attempt: id.clone(), seat });
                }
            }
            // An agent that prepared a seat lists it before it starts it, so the list proves no start.
            (AttemptState::Running, SeatState::Prepared { .. }) => {
                self.out.effects.push(Effect::Start { node: node.clone(), attempt: id.clone(), seat });
            }
            (AttemptState::Running, SeatState::Assigned) => {
                if !is_live {
                    self.out.effects.push(Effect::Start { node: node.clone(), attempt: id.clone(), seat });
                }
            }
            (AttemptState::Preparing | AttemptState::Running, SeatState::Running)
            | (_, SeatState::Ended(_) | SeatState::GivenUp) => {}
        }
        if hello && is_live && runs {
            let message = format!("{} goes on on node `{node}`, whose agent is back", self.name(place));
            if let Some(event) = self.stage_event(place, Kind::AttemptAdopted, Level::Info, message) {
                event.node = Some(node.clone());
            }
        }
    }

    /// Whether a running seat is left out by two beats of one session in a row.
    ///
    /// An agent lists an attempt until it is told to forget it, and sends a
    /// seat's end before the beat that leaves it out; once may still be a race
    /// between its parts, twice is a lost memory.
    fn missing_again(&mut self, node: &NodeId, id: &AttemptId, hello: bool) -> bool {
        let Some(view) = self.world.nodes.get_mut(node) else { return false };
        !hello && !view.missing.insert(id.clone())
    }

    /// What the node runs or holds that it need not.
    fn unwanted(&mut self, node: &NodeId, live: &BTreeSet<AttemptId>) {
        let mut leftover = BTreeSet::new();
        let mut unknown = BTreeSet::new();
        for id in live {
            let over = match self.standing(id, node) {
                Standing::Unknown | Standing::Over { seated: false, .. } => None,
                Standing::Over { succeeded, .. } => Some(succeeded),
                Standing::Current(place) => match self.seat_on(&place, node).map(|(_, seat)| &seat.state) {
                    Some(SeatState::Assigned | SeatState::Prepared { .. } | SeatState::Running) => continue,
                    Some(SeatState::Ended(_)) => Some(true),
                    Some(SeatState::GivenUp) => Some(false),
                    None => None,
                },
            };
            let ended = self.world.nodes.get(node).is_some_and(|view| view.ended.contains(id));
            match over {
                None => _ = unknown.insert((node.clone(), id.clone())),
                Some(true) => self.out.effects.push(Effect::Forget { node: node.clone(), attempt: id.clone() }),
                Some(false) if ended => {
                    self.out.effects.push(Effect::Forget { node: node.clone(), attempt: id.clone() });
                }
                Some(false) => {
                    let grace_ms = self.world.policy.failure_grace_ms;
                    self.out.effects.push(Effect::Stop { node: node.clone(), attempt: id.clone(), grace_ms });
                    leftover.insert(id.clone());
                }
            }
        }
        if let Some(view) = self.world.nodes.get_mut(node)
            && view.leftover != leftover
        {
            view.leftover = leftover;
            self.world.reconsider = true;
        }
        self.requarantine(node, unknown);
    }

    fn requarantine(&mut self, node: &NodeId, unknown: BTreeSet<(NodeId, AttemptId)>) {
        let quarantined = &mut self.world.quarantined;
        if quarantined.is_empty() && unknown.is_empty() {
            return;
        }
        let before = quarantined.len();
        quarantined.retain(|entry| entry.0 != *node || unknown.contains(entry));
        self.world.reconsider |= quarantined.len() < before;
        quarantined.extend(unknown);
    }
}
