//! What may use the nodes that are kept for the head of the queue.

use std::collections::BTreeSet;

use model::{Job, JobId, NodeId, Task, Timestamp};

use crate::Mutation;
use crate::limit;
use crate::place;
use crate::world::World;

/// The first task with slots that found no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its job.
    pub job: JobId,
    /// Nodes that are kept for it; empty if it has no use for room that others give.
    pub nodes: BTreeSet<NodeId>,
    /// When it has room at the latest, by the time limits of what runs there;
    /// `None` if nobody knows.
    pub at: Option<Timestamp>,
}

impl Head {
    pub(crate) fn new(world: &World, job: &Job, task: &Task, nodes: BTreeSet<NodeId>, anchors: &[NodeId]) -> Self {
        let at = room_at(world, task, &nodes, anchors);
        Self { job: job.id.clone(), nodes, at }
    }

    /// Whether a later task is surely over before the head can count on its
    /// nodes, so that it may use them meanwhile.
    ///
    /// The head's instant is counted from limits alone and the task's with
    /// grace and confirmation, so it never moves because of it.
    pub(crate) fn lets(&self, world: &World, task: &Task, now: Timestamp) -> bool {
        let over = limit::surely_over(world, task, now);
        over.is_some_and(|over| self.at.is_some_and(|at| over <= at)) || world.broken(Mutation::BackfillPastTheHead)
    }
}

/// When enough of `nodes` have room for a task's seats at the latest: the
/// limits of what holds their slots, without the graces of stops.
fn room_at(world: &World, task: &Task, nodes: &BTreeSet<NodeId>, anchors: &[NodeId]) -> Option<Timestamp> {
    let times: Vec<(&NodeId, Timestamp)> =
        nodes.iter().filter_map(|node| Some((node, node_room_at(world, task, node)?))).collect();
    let mut sorted: Vec<Timestamp> = times.iter().map(|(_, at)| *at).collect();
    sorted.sort_unstable();
    let enough = usize::try_from(task.shape.nodes.max(1)).ok()?;
    let mut at = *sorted.get(enough - 1)?;
    for anchor in anchors {
        at = at.max(times.iter().find(|(node, _)| *node == anchor)?.1);
    }
    Some(at)
}

fn node_room_at(world: &World, task: &Task, node: &NodeId) -> Option<Timestamp> {
    let view = world.nodes.get(node).filter(|view| view.takes_work() && place::slots_are_known(world, view))?;
    let wanted = usize::try_from(place::per_node(&task.shape)).ok()?;
    let mut free = place::free_slots(world, view).count();
    let mut ends: Vec<(Timestamp, usize)> = Vec::new();
    for held in world.index.places(node) {
        let Some(task) = world.task(held) else { continue };
        let (Some(attempt), Some(limit)) = (task.state.attempt(), task.limit_ms) else { continue };
        let well = |slot: &&u32| !view.unfit.contains(slot);
        let slots = attempt.seats.iter().filter(|seat| seat.node == *node && !seat.state.is_over());
        let slots = slots.flat_map(|seat| &seat.slots).filter(well).count();
        ends.push((attempt.placed.after_ms(limit), slots));
    }
    ends.sort_unstable();
    let mut at = world.scheduled;
    for (end, slots) in ends {
        if free >= wanted {
            break;
        }
        free += slots;
        at = at.max(end);
    }
    (free >= wanted).then_some(at)
}
