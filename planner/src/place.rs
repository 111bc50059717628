//! Where a task's seats go: all of them, or none.

use std::collections::BTreeSet;

use model::{DeviceKind, JobId, Liveness, NodeId, Outcome, Task, TaskShape};

use crate::Mutation;
use crate::ahead;
use crate::index::{Load, StageKey};
use crate::step::is_gang;
use crate::world::{NodeView, World};

/// A node that takes a seat, and the slots it gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The node.
    pub node: NodeId,
    /// Device slots, lowest first; empty for work without slots.
    pub slots: Vec<u32>,
}

/// Finds seats for `task` on distinct nodes, or `None` if it does not fit now.
///
/// Nodes in `kept` give no slots; those in `anchors` must be among the chosen. `ahead` names the task's stage where
/// it may be sent ahead of its room. Order of preference, ties by id:
/// 1. after one failure of a gang its earlier nodes in their earlier order
///    (checkpoint shards lie there); after more failures, or for a lone rank,
///    the node of the last failure comes last;
/// 2. work without slots: the node with the fewest such tasks, so that shards
///    of a stage spread; work with slots: the node with the fewest free slots,
///    so that whole nodes stay free for gangs.
#[must_use]
pub fn choose(
    world: &World,
    device: DeviceKind,
    task: &Task,
    kept: &BTreeSet<NodeId>,
    anchors: &[NodeId],
    ahead: Option<(JobId, usize)>,
) -> Option<Vec<Chosen>> {
    let ahead = ahead.filter(|_| ahead::is_queued(task));
    let shape = &task.shape;
    let wanted = usize::try_from(shape.nodes.max(1)).ok()?;
    let mut fitting: Vec<(Preference, Chosen)> = match &shape.pinned {
        Some(node) => world
            .nodes
            .get(node)
            .into_iter()
            .filter_map(|view| fit(world, view, device, shape, kept, ahead.as_ref()))
            .collect(),
        None => world.nodes.values().filter_map(|view| fit(world, view, device, shape, kept, ahead.as_ref())).collect(),
    };
    let anchored = anchors.iter().all(|node| fitting.iter().any(|(_, chosen)| chosen.node == *node));
    if fitting.len() < wanted || !anchored {
        return None;
    }
    let past = Past::of(task, anchors);
    fitting.sort_by_cached_key(|(preference, chosen)| (past.rank(&chosen.node), *preference, chosen.node.clone()));
    let mut others = wanted.saturating_sub(anchors.len());
    let chosen = fitting.into_iter().map(|(_, chosen)| chosen).filter(|chosen| {
        let anchor = anchors.contains(&chosen.node);
        let taken = anchor || others > 0;
        others -= usize::from(!anchor && taken);
        taken
    });
    Some(chosen.collect())
}

/// Smaller goes first.
type Preference = u32;

fn fit(
    world: &World,
    view: &NodeView,
    device: DeviceKind,
    shape: &TaskShape,
    kept: &BTreeSet<NodeId>,
    ahead: Option<&StageKey>,
) -> Option<(Preference, Chosen)> {
    let node = &view.record.id;
    let wanted = shape.ranks_per_node.max(1).saturating_mul(shape.slots_per_rank);
    // What takes no slot needs only processors, and those every node has.
    let lax = match (&view.record.cordon, &view.record.fence) {
        (Some(_), None) => world.broken(Mutation::PlaceOnCordonedNode),
        (None, Some(_)) => world.broken(Mutation::PlaceOnFencedNode),
        (None, None) | (Some(_), Some(_)) => false,
    };
    let lax = lax && view.liveness == Liveness::Ready;
    if !(view.takes_work() || lax) || (wanted > 0 && view.record.device != device) {
        return None;
    }
    let load = world.index.load(node);
    if wanted == 0 {
        let engines = load.map_or(0, Load::engines);
        let more = |load: &Load| ahead.is_some_and(|stage| ahead::reaches(world, view, load, stage));
        let room = engines < world.policy.engine_tasks_per_node || load.is_some_and(more);
        return room.then(|| (engines, Chosen { node: node.clone(), slots: Vec::new() }));
    }
    if kept.contains(node) || !slots_are_known(world, view) {
        return None;
    }
    let free: Vec<u32> = free_slots(world, view).collect();
    let wanted = usize::try_from(wanted).ok()?;
    let slots = free.get(..wanted)?.to_vec();
    Some((u32::try_from(free.len()).unwrap_or(u32::MAX), Chosen { node: node.clone(), slots }))
}

/// Slots of a node that no seat holds and whose device is well, lowest first.
pub(crate) fn free_slots<'w>(world: &'w World, view: &'w NodeView) -> impl Iterator<Item = u32> + 'w {
    let load = world.index.load(&view.record.id);
    let fit = (0..view.record.slots).filter(|slot| !view.unfit.contains(slot));
    fit.filter(move |slot| load.is_none_or(|load| !load.slots.contains(slot)))
}

/// Whether nothing runs on the node whose slots nobody has on record.
pub(crate) fn slots_are_known(world: &World, view: &NodeView) -> bool {
    let strangers = world.quarantined.iter().any(|(node, _)| *node == view.record.id);
    (view.leftover.is_empty() || world.broken(Mutation::ReleaseSlotsOfLostNode)) && !strangers
}

/// What earlier attempts say about nodes.
struct Past<'a> {
    back_to: &'a [NodeId],
    avoid: Option<&'a NodeId>,
}

impl<'a> Past<'a> {
    fn of(task: &'a Task, anchors: &[NodeId]) -> Self {
        let holds = |nodes: &[NodeId]| anchors.iter().all(|anchor| nodes.contains(anchor));
        let failures = || {
            task.history.iter().filter_map(|past| match &past.outcome {
                Outcome::Failed(failure) => Some((past, failure)),
                Outcome::Succeeded | Outcome::Cancelled | Outcome::Requeued => None,
            })
        };
        let Some((last, failure)) = failures().next_back() else { return Self { back_to: &[], avoid: None } };
        if !anchors.is_empty() {
            let wrote = task.history.iter().rev().find(|past| holds(&past.nodes));
            return Self { back_to: wrote.map_or(&[], |past| &past.nodes), avoid: None };
        }
        let again = is_gang(task);
        let avoid = (failures().count() > 1 || !again).then_some(&failure.node);
        Self { back_to: if again { &last.nodes } else { &[] }, avoid }
    }

    /// Position in the order of preference, before load is looked at.
    fn rank(&self, node: &NodeId) -> usize {
        if self.avoid == Some(node) {
            return usize::MAX;
        }
        self.back_to.iter().position(|earlier| earlier == node).unwrap_or(self.back_to.len())
    }
}
