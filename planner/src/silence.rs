//! Time passes: silent nodes, and the seats on them.

use model::event::{Kind, Level};
use model::{AttemptState, Liveness, NodeId, Timestamp};

use crate::Mutation;
use crate::index::Place;
use crate::step::{Work, is_draining, is_gang};
use crate::text;

impl Work<'_> {
    pub(crate) fn tick(&mut self) {
        if let Some(due) = self.world.next_silence.filter(|due| *due <= self.now) {
            self.sweep(due);
        }
        self.fence();
        self.empty_nodes();
        self.end_overruns();
        // A new leader does not know since when; it begins to count now.
        let loaded: Vec<NodeId> = match self.world.next_overdue {
            None => self.world.index.loads().map(|(node, _)| node.clone()).collect(),
            Some(_) => Vec::new(),
        };
        loaded.iter().for_each(|node| self.expect_overdue(node));
        self.world.reconsider = true;
    }

    /// Moves every node's liveness along with its silence.
    ///
    /// A tick far behind the instant that was asked for means that this
    /// controller itself stood still, and beats with it: then every window
    /// starts afresh, for nobody is lost by our own absence.
    fn sweep(&mut self, due: Timestamp) {
        let (suspect, lost) = (self.world.policy.suspect_after_ms, self.world.policy.lost_after_ms);
        let overslept = self.now.since(due) > suspect;
        let mut next: Option<Timestamp> = None;
        let mut fallen: Vec<(NodeId, Liveness)> = Vec::new();
        for (id, view) in &mut self.world.nodes {
            if overslept && view.liveness != Liveness::Lost {
                view.last_heard = self.now;
            }
            let silence = self.now.since(view.last_heard);
            let liveness = match view.liveness {
                Liveness::Lost => continue,
                Liveness::Unheard | Liveness::Ready | Liveness::Suspect if silence >= lost => Liveness::Lost,
                Liveness::Unheard | Liveness::Ready if silence >= suspect => Liveness::Suspect,
                Liveness::Unheard | Liveness::Ready | Liveness::Suspect => view.liveness,
            };
            if liveness != view.liveness {
                view.liveness = liveness;
                fallen.push((id.clone(), liveness));
            }
            let limit = match liveness {
                Liveness::Unheard | Liveness::Ready => suspect,
                Liveness::Suspect => lost,
                Liveness::Lost => continue,
            };
            let at = view.last_heard.after_ms(limit);
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        self.world.next_silence = next;
        for (node, liveness) in fallen {
            if liveness == Liveness::Lost { self.lost(&node) } else { self.suspected(&node) }
        }
    }

    fn suspected(&mut self, node: &NodeId) {
        let silent = text::span(self.world.policy.suspect_after_ms);
        let message = format!("node `{node}` has been silent for {silent}; what runs there is left alone");
        self.tell_jobs_on(node, Kind::NodeSuspected, Level::Warn, message);
        if self.world.broken(Mutation::KillOnSilence) {
            self.replace_work(node, true);
        }
    }

    fn lost(&mut self, node: &NodeId) {
        let silent = text::span(self.world.policy.lost_after_ms);
        let message = format!("node `{node}` has been silent for {silent} and counts as lost");
        self.tell_jobs_on(node, Kind::NodeLost, Level::Warn, message);
        let all = self.world.broken(Mutation::GiveUpGangSeatWhilePeersRun);
        self.replace_work(node, all);
    }

    /// Gives up the seats of a lost node whose work may run again elsewhere:
    /// those of lone ranks, whose results are named after the attempt, and
    /// those of gangs that were never told to start. Other gangs are left
    /// alone until their reachable seats have stopped.
    fn replace_work(&mut self, node: &NodeId, all: bool) {
        for place in self.places_on(node) {
            let (Some(task), Some(attempt)) = (self.task(&place), self.attempt(&place)) else { continue };
            if all || !is_gang(task) || attempt.state == AttemptState::Preparing {
                let failure = text::lost(node, self.now, "the node fell silent", "is its agent running?");
                self.give_up(&place, node, failure);
            } else {
                self.review_fence(&place);
            }
        }
    }

    /// Starts or ends the fence margin of an attempt.
    pub(crate) fn review_fence(&mut self, place: &Place) {
        if !self.is_cut_off(place) {
            self.world.fences.remove(place);
            return;
        }
        let margin = self.margin_ms(place);
        if margin == 0 {
            return self.give_up_silent(place);
        }
        self.world.fences.entry(place.clone()).or_insert(self.now);
    }

    /// Whether every seat that is not over is on a lost node, and nothing that
    /// those seats do can still count: the attempt drains, or a gang lacks
    /// seats that are over.
    ///
    /// A gang that is silent as a whole is not cut off: it may train on.
    fn is_cut_off(&self, place: &Place) -> bool {
        let Some(attempt) = self.attempt(place) else { return false };
        let lost = |node: &NodeId| self.world.nodes.get(node).is_none_or(|view| view.liveness == Liveness::Lost);
        let (over, open): (Vec<_>, Vec<_>) = attempt.seats.iter().partition(|seat| seat.state.is_over());
        !open.is_empty() && open.iter().all(|seat| lost(&seat.node)) && (is_draining(attempt) || !over.is_empty())
    }

    /// A lone rank saves nothing that a successor could trip over.
    fn margin_ms(&self, place: &Place) -> u64 {
        if self.task(place).is_some_and(is_gang) { self.world.policy.fence_margin_ms } else { 0 }
    }

    fn fence(&mut self) {
        let margin = self.world.policy.fence_margin_ms;
        let due: Vec<Place> = self
            .world
            .fences
            .iter()
            .filter(|(_, since)| since.after_ms(margin) <= self.now)
            .map(|(place, _)| place.clone())
            .collect();
        due.iter().for_each(|place| self.give_up_silent(place));
    }

    fn give_up_silent(&mut self, place: &Place) {
        self.world.fences.remove(place);
        let Some(attempt) = self.attempt(place) else { return };
        let nodes: Vec<NodeId> =
            attempt.seats.iter().filter(|seat| !seat.state.is_over()).map(|seat| seat.node.clone()).collect();
        for node in nodes {
            let failure =
                text::lost(&node, self.now, "the node fell silent and its peers have stopped", "is its agent running?");
            self.give_up(place, &node, failure);
        }
    }
}
