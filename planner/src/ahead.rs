//! Work that a node is sent before it has room for it.
//!
//! A task of a millisecond must not wait for its controller's answer. Where the
//! commands of a stage end quickly, a node gets some more of them: its agent
//! keeps them in a queue and begins the next one without asking. How many
//! follows from how long they ran there, so that a wrong guess holds little up.
//!
//! What has not begun can be taken back, and is: when somebody earlier in the
//! queue wants the node, when the node is set aside, and when it has waited for
//! long while another node has room. It is over only by the agent's word, as
//! anything else: a recall is a question, not an end.

use std::collections::BTreeSet;

use model::{AttemptId, Body, NodeId, SeatState, Task, Timestamp};

use crate::Mutation;
use crate::index::{Load, Place, StageKey, Turn, turn};
use crate::input::Effect;
use crate::step::Work;
use crate::world::{NodeView, Policy, World};

/// So many times the work that is sent ahead, it has waited for long.
const PATIENCE: u64 = 5;

/// What a node may be sent ahead: tasks of one stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    stage: StageKey,
    /// How long its tasks run, in milliseconds: longer ones count at once,
    /// shorter ones little by little.
    ran_ms: u64,
    /// So many beyond what runs at once.
    depth: u32,
}

impl Ahead {
    /// Learns from a task that ended. It grows by one task an end, so that a
    /// stage whose first task is quick does not lie on one node as a whole.
    fn learn(&mut self, ran_ms: u64, policy: &Policy) {
        self.ran_ms = ran_ms.max(self.ran_ms - self.ran_ms.div_ceil(8));
        let fits = u64::from(policy.engine_tasks_per_node) * policy.ahead_ms / self.ran_ms.max(1);
        let fits = if self.ran_ms > policy.ahead_ms { 0 } else { u32::try_from(fits).unwrap_or(u32::MAX) };
        self.depth = self.depth.saturating_add(1).min(fits).min(policy.most_ahead);
    }
}

/// Whether agents keep a queue of such tasks.
pub(crate) fn is_queued(task: &Task) -> bool {
    let lone = task.shape.nodes <= 1 && task.shape.ranks_per_node <= 1 && task.shape.slots_per_rank == 0;
    lone && match task.body {
        Body::Run { .. } => true,
        Body::Preflight(_) | Body::Engine(_) | Body::Train(_) => false,
    }
}

/// Whether a node that is full may be sent one more task of `stage` ahead.
///
/// Tasks of one stage share a queue, which keeps the node's limit; so nothing
/// else that counts towards the limit may be there.
pub(crate) fn reaches(world: &World, view: &NodeView, load: &Load, stage: &StageKey) -> bool {
    let alone = load.is_only(stage) || world.broken(Mutation::MixStagesAhead);
    alone
        && view.ahead.as_ref().is_some_and(|ahead| {
            ahead.stage == *stage && load.engines() < world.policy.engine_tasks_per_node.saturating_add(ahead.depth)
        })
}

impl Work<'_> {
    /// Learns from the end of a task how much may be sent ahead.
    pub(crate) fn note_pace(&mut self, place: &Place, node: &NodeId, ran_ms: Option<u64>) {
        if !self.task(place).is_some_and(is_queued) {
            return;
        }
        let World { nodes, policy, .. } = &mut *self.world;
        let (Some(view), Some(ran_ms)) = (nodes.get_mut(node), ran_ms) else { return };
        let stage = place.stage_key();
        let known = view.ahead.take().filter(|ahead| ahead.stage == stage);
        let mut ahead = known.unwrap_or(Ahead { stage, ran_ms: 0, depth: 0 });
        ahead.learn(ran_ms, policy);
        view.ahead = Some(ahead);
    }

    /// Notes that `node` may have been given more than it runs at once.
    pub(crate) fn expect_overdue(&mut self, node: &NodeId) {
        if self.world.next_overdue.is_none() && self.is_ahead(node) {
            self.world.next_overdue = Some(self.now.after_ms(self.patience()));
        }
    }

    fn is_ahead(&self, node: &NodeId) -> bool {
        self.world.index.load(node).is_some_and(|load| load.engines() > self.world.policy.engine_tasks_per_node)
    }

    fn patience(&self) -> u64 {
        self.world.policy.ahead_ms.saturating_mul(PATIENCE)
    }

    /// Takes back what stands in the way of a task without slots: what was sent
    /// ahead of jobs that are served after it. A node without a queue has room for as many tasks as it
    /// runs at once, so as many nodes are asked as the waiting tasks of the stage can fill.
    pub(crate) fn make_way(&mut self, place: &Place) {
        let (Some(job), Some(task)) = (self.job(place), self.task(place)) else { return };
        let (mine, pinned, lone) = (turn(job), task.shape.pinned.clone(), task.shape.nodes <= 1);
        let waiting = self.world.index.tally(&place.job, place.stage).map_or(1, |tally| tally.waiting.len());
        let at_once = usize::try_from(self.world.policy.engine_tasks_per_node).unwrap_or(usize::MAX);
        let enough = if lone { waiting.div_ceil(at_once.max(1)) } else { usize::MAX };
        let open = self.world.nodes.values().filter(|view| view.takes_work()).map(|view| &view.record.id);
        let of_use = open.filter(|node| pinned.as_ref().is_none_or(|pinned| pinned == *node));
        let nodes: Vec<NodeId> = of_use.filter(|node| self.is_ahead(node)).cloned().collect();
        let mut asked = 0;
        for node in nodes {
            if asked == enough {
                return;
            }
            let places: Vec<Place> = self.unbegun(&node).filter(|place| self.is_after(place, &mine)).cloned().collect();
            asked += usize::from(!places.is_empty());
            places.iter().for_each(|place| self.recall(place, &node));
        }
    }

    fn is_after(&self, place: &Place, mine: &Turn) -> bool {
        self.job(place).is_some_and(|other| turn(other) > *mine)
    }

    /// Takes back all that a node has not begun.
    pub(crate) fn recall_all(&mut self, node: &NodeId) {
        let places: Vec<Place> = self.unbegun(node).cloned().collect();
        places.iter().for_each(|place| self.recall(place, node));
    }

    /// Once what was sent ahead has waited for long, takes back as much of it
    /// as has room elsewhere. The queue was gone through just before, so nobody
    /// else wants that room.
    pub(crate) fn spread(&mut self) {
        if self.world.next_overdue.is_none_or(|due| due > self.now) {
            return;
        }
        let limit = self.world.policy.engine_tasks_per_node;
        let engines = |node: &NodeId| self.world.index.load(node).map_or(0, Load::engines);
        let open = self.world.nodes.values().filter(|view| view.takes_work());
        let mut room: u32 = open.map(|view| limit.saturating_sub(engines(&view.record.id))).sum();
        let full: Vec<NodeId> =
            self.world.index.loads().filter(|(_, load)| load.engines() > limit).map(|(node, _)| node.clone()).collect();
        self.world.next_overdue = (!full.is_empty()).then(|| self.now.after_ms(self.patience()));
        for node in full {
            for place in self.overdue(&node) {
                if room == 0 {
                    return;
                }
                room -= 1;
                self.recall(&place, &node);
            }
        }
    }

    /// What has waited for long at a node, last in its queue first.
    fn overdue(&self, node: &NodeId) -> Vec<Place> {
        let sent = |place: &Place| self.attempt(place).map(|attempt| attempt.placed);
        let late = |sent: &Option<Timestamp>| sent.is_some_and(|at| at.after_ms(self.patience()) <= self.now);
        let mut waiting: Vec<(Option<Timestamp>, &Place)> = self
            .unbegun(node)
            .filter(|place| self.task(place).is_some_and(|task| task.shape.pinned.is_none()))
            .map(|place| (sent(place), place))
            .filter(|(sent, _)| late(sent))
            .collect();
        waiting.sort_unstable_by(|a, b| b.cmp(a));
        waiting.into_iter().map(|(_, place)| place.clone()).collect()
    }

    /// Tasks at a node that may wait in its queue, as far as is known here.
    fn unbegun(&self, node: &NodeId) -> impl Iterator<Item = &Place> {
        self.world.index.places(node).filter(|place| {
            self.task(place).is_some_and(is_queued)
                && self.attempt(place).is_some_and(|attempt| {
                    !crate::step::is_draining(attempt)
                        && attempt.seats.iter().all(|seat| seat.state == SeatState::Assigned)
                })
        })
    }

    /// Asks for one task back, once; beats repeat the question.
    fn recall(&mut self, place: &Place, node: &NodeId) {
        let Some(attempt) = self.world.attempt_id(place) else { return };
        let Some(view) = self.world.nodes.get_mut(node) else { return };
        if !view.recalled.insert(attempt.clone()) {
            return;
        }
        self.out.effects.push(Effect::Recall { node: node.clone(), attempt });
        if self.world.broken(Mutation::TakeBackUnanswered) {
            self.hand_back(place);
        }
    }

    /// Asks again for what was asked for and has neither begun nor come back.
    pub(crate) fn recall_again(&mut self, node: &NodeId, live: &BTreeSet<AttemptId>) {
        let Some(asked) = self.world.nodes.get(node).map(|view| &view.recalled).filter(|asked| !asked.is_empty())
        else {
            return;
        };
        let open: BTreeSet<AttemptId> = self
            .unbegun(node)
            .filter_map(|place| self.world.attempt_id(place))
            .filter(|attempt| asked.contains(attempt))
            .collect();
        let again = open.iter().filter(|attempt| live.contains(*attempt));
        let again: Vec<Effect> =
            again.map(|attempt| Effect::Recall { node: node.clone(), attempt: attempt.clone() }).collect();
        self.out.effects.extend(again);
        if let Some(view) = self.world.nodes.get_mut(node) {
            view.recalled = open;
        }
    }

    /// The task of an attempt that never began waits again.
    pub(crate) fn hand_back(&mut self, place: &Place) {
        let message = format!("{} is given back by its node, which had not begun it", self.name(place));
        self.stage_event(place, model::event::Kind::AttemptRequeued, model::event::Level::Info, message);
        let kill_at = self.now;
        self.edit_attempt(place, |attempt| {
            attempt.state = model::AttemptState::Draining(model::Drain::Moved { kill_at })
        });
        self.end_seat(place, 0, model::SeatEnd { ok: false, output: model::Output::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::JobId;

    fn depth_after(ran: &[u64]) -> Vec<u32> {
        let stage = (JobId::new("j1").unwrap(), 0);
        let mut ahead = Ahead { stage, ran_ms: 0, depth: 0 };
        let learn = |ms: &u64| {
            ahead.learn(*ms, &Policy::default());
            ahead.depth
        };
        ran.iter().map(learn).collect()
    }

    #[test]
    fn the_queue_grows_with_each_quick_end_and_shrinks_at_once() {
        assert_eq!(depth_after(&[1, 0, 1]), [1, 2, 3]);
        assert_eq!(depth_after(&[1; 200]).last(), Some(&128), "never more than the policy says");
        assert_eq!(depth_after(&[50; 9]).last(), Some(&4), "two at once for 100 ms");
        assert_eq!(depth_after(&[1, 1, 1, 101, 1]), [1, 2, 3, 0, 1]);
        let mut ran = vec![1; 64];
        ran.push(60_000);
        ran.extend([1; 40]);
        assert_eq!(depth_after(&ran)[64..].iter().max(), Some(&0), "one long task is remembered for a while");
    }
}
