//! Where a task's seats go: all of them, or none.

use std::collections::BTreeSet;

use model::{Job, JobId, Liveness, NodeId, Outcome, Task, TaskShape};

use crate::Mutation;
use crate::ahead;
use crate::index::{Load, StageKey};
use crate::order;
use crate::slots;
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
/// it may be sent ahead of its room. A spare gives slots only in place of a node that the last attempt had and that
/// cannot take it again. Order of preference, ties by id:
/// 1. after one failure of a gang its earlier nodes (checkpoint shards lie
///    there); after more failures, or for a lone rank, the node of the last
///    failure comes last;
/// 2. spares last; then nodes in the rack of those that stay;
/// 3. work without slots: the node with the fewest such tasks, so that shards
///    of a stage spread; work with slots: the node that keeps groups of ranks
///    in groups of slots, then the one with the fewest free slots, so that
///    whole nodes stay free for gangs.
///
/// A gang that has no earlier nodes goes to few racks.
#[must_use]
pub fn choose(
    world: &World,
    job: &Job,
    task: &Task,
    kept: &BTreeSet<NodeId>,
    anchors: &[NodeId],
    ahead: Option<(JobId, usize)>,
) -> Option<Vec<Chosen>> {
    let ahead = ahead.filter(|_| ahead::is_queued(task));
    let shape = &task.shape;
    let wanted = usize::try_from(shape.nodes.max(1)).ok()?;
    let take = |view| fit(world, view, job, task, kept, ahead.as_ref());
    let mut fitting: Vec<(Preference, Chosen)> = match &shape.pinned {
        Some(node) => world.nodes.get(node).into_iter().filter_map(take).collect(),
        None => world.nodes.values().filter_map(take).collect(),
    };
    let anchored = anchors.iter().all(|node| fitting.iter().any(|(_, chosen)| chosen.node == *node));
    if fitting.len() < wanted || !anchored {
        return None;
    }
    let past = Past::of(task, anchors);
    let stay: Vec<&NodeId> =
        past.back_to.iter().filter(|node| fitting.iter().any(|(_, chosen)| chosen.node == **node)).collect();
    if wanted > 1 && past.back_to.is_empty() {
        let nodes: Vec<&NodeId> = fitting.iter().filter(|(of, _)| !of.spare).map(|(_, chosen)| &chosen.node).collect();
        let near = order::racks(world, &nodes, wanted);
        fitting.iter_mut().for_each(|(of, chosen)| of.far = !near.contains(order::rack(world, &chosen.node)));
    } else {
        let near: BTreeSet<&str> = stay.iter().map(|node| order::rack(world, node)).collect();
        let far = |node: &NodeId| !near.is_empty() && !near.contains(order::rack(world, node));
        fitting.iter_mut().for_each(|(of, chosen)| of.far = far(&chosen.node));
    }
    fitting.sort_by_cached_key(|(of, chosen)| (past.rank(&chosen.node), *of, chosen.node.clone()));
    let mut others = wanted.saturating_sub(anchors.len());
    let mut spares = spares(world, task);
    let chosen: Vec<Chosen> = fitting
        .into_iter()
        .filter(|(of, chosen)| {
            let anchor = anchors.contains(&chosen.node);
            let taken = anchor || (others > 0 && (!of.spare || spares > 0));
            others -= usize::from(!anchor && taken);
            spares = spares.saturating_sub(usize::from(of.spare && taken));
            taken
        })
        .map(|(_, chosen)| chosen)
        .collect();
    (chosen.len() == wanted).then(|| order::seats(world, task, chosen, past.back_to))
}

/// Smaller goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    spare: bool,
    far: bool,
    splits: u32,
    load: u32,
}

fn fit(
    world: &World,
    view: &NodeView,
    job: &Job,
    task: &Task,
    kept: &BTreeSet<NodeId>,
    ahead: Option<&StageKey>,
) -> Option<(Preference, Chosen)> {
    let node = &view.record.id;
    let wanted = per_node(&task.shape);
    let lax = match (&view.record.cordon, &view.record.fence) {
        (Some(_), None) => world.broken(Mutation::PlaceOnCordonedNode),
        (None, Some(_)) => world.broken(Mutation::PlaceOnFencedNode),
        (None, None) | (Some(_), Some(_)) => false,
    };
    let lax = lax && view.liveness == Liveness::Ready;
    if !(view.takes_work() || lax) || !is_of_kind(world, view, job, &task.shape) {
        return None;
    }
    let spare = view.record.is_spare();
    if spare && spares(world, task) == 0 && !world.broken(Mutation::PlaceOnSpare) {
        return None;
    }
    let load = world.index.load(node);
    if wanted == 0 {
        let engines = load.map_or(0, Load::engines);
        let more = |load: &Load| ahead.is_some_and(|stage| ahead::reaches(world, view, load, stage));
        let room = engines < world.policy.engine_tasks_per_node || load.is_some_and(more);
        let of = Preference { load: engines, ..Preference::default() };
        return room.then(|| (of, Chosen { node: node.clone(), slots: Vec::new() }));
    }
    if kept.contains(node) || !slots_are_known(world, view) {
        return None;
    }
    let free: Vec<u32> = free_slots(world, view).collect();
    let unit = if world.broken(Mutation::TearUnits) { 1 } else { slots::unit(task) };
    let picked = slots::pick(&view.record, &free, usize::try_from(wanted).ok()?, usize::try_from(unit).ok()?)?;
    let load = u32::try_from(free.len()).unwrap_or(u32::MAX);
    let of = Preference { spare, far: false, splits: picked.splits, load };
    Some((of, Chosen { node: node.clone(), slots: picked.slots }))
}

/// Whether a node is what the job asks for, however busy it is.
///
/// What takes no slot needs only processors, and those every node has.
pub(crate) fn is_of_kind(world: &World, view: &NodeView, job: &Job, shape: &TaskShape) -> bool {
    let labelled = view.record.labels.have(&job.placement.labels) || world.broken(Mutation::IgnoreLabels);
    labelled && (per_node(shape) == 0 || view.record.device == job.runtime.device)
}

/// Whether a node could hold a share of the task if nothing ran there.
pub(crate) fn could_hold(world: &World, view: &NodeView, job: &Job, task: &Task) -> bool {
    is_of_kind(world, view, job, &task.shape)
        && view.record.slots >= per_node(&task.shape)
        && task.shape.pinned.as_ref().is_none_or(|pinned| *pinned == view.record.id)
        && (!view.record.is_spare() || spares(world, task) > 0)
}

/// Slots that a task of this shape takes on each of its nodes.
pub(crate) fn per_node(shape: &TaskShape) -> u32 {
    shape.ranks_per_node.max(1).saturating_mul(shape.slots_per_rank)
}

/// Spares that a task may take: one for each node of its last failed attempt
/// that cannot take it again. A pinned one, and work without slots, run where
/// they must or anywhere.
pub(crate) fn spares(world: &World, task: &Task) -> usize {
    if task.shape.pinned.is_some() {
        return usize::MAX;
    }
    let Some(last) = task.history.last().filter(|_| task.shape.slots_per_rank > 0) else { return 0 };
    if matches!(last.outcome, Outcome::Succeeded | Outcome::Cancelled) {
        return 0;
    }
    let avoid = Past::of(task, &[]).avoid;
    let well = |view: &NodeView| view.takes_work() && view.unfit.is_empty();
    let gone = |node: &&NodeId| avoid == Some(*node) || !world.nodes.get(*node).is_some_and(well);
    last.nodes.iter().filter(gone).count()
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
