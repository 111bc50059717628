//! Which of the nodes that could take a gang do, and in which order they sit.

use std::collections::{BTreeMap, BTreeSet};

use model::{Body, Labels, NodeId, Task};

use crate::place::Chosen;
use crate::world::World;

/// Where a node stands, as its label says; all without one stand together.
pub(crate) fn rack<'w>(world: &'w World, node: &NodeId) -> &'w str {
    world.nodes.get(node).and_then(|view| view.record.labels.get(Labels::RACK)).unwrap_or("")
}

/// The racks that a gang of `wanted` nodes should use: the fullest one that
/// holds it, so that emptier ones stay so for larger gangs; where none does,
/// as few as possible.
pub(crate) fn racks<'w>(world: &'w World, fitting: &[&NodeId], wanted: usize) -> BTreeSet<&'w str> {
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for node in fitting {
        *sizes.entry(rack(world, node)).or_default() += 1;
    }
    let holds = sizes.iter().filter(|(_, size)| **size >= wanted).min_by_key(|(rack, size)| (**size, **rack));
    if let Some((rack, _)) = holds {
        return BTreeSet::from([*rack]);
    }
    let mut by_size: Vec<(&str, usize)> = sizes.into_iter().collect();
    by_size.sort_by_key(|(rack, size)| (std::cmp::Reverse(*size), *rack));
    let mut room = 0;
    let used = by_size.into_iter().take_while(|(_, size)| {
        let needed = room < wanted;
        room += size;
        needed
    });
    used.map(|(rack, _)| rack).collect()
}

/// Seats of a gang, in rank order.
///
/// Nodes of its last attempt keep their places, and others fill the gaps:
/// what they hold on their disks is of those ranks. Else by rack and name; in
/// several racks the nodes of one pipeline follow each other, since stages of
/// a pipeline are `seats / pp` apart in rank order.
pub(crate) fn seats(world: &World, task: &Task, chosen: Vec<Chosen>, before: &[NodeId]) -> Vec<Chosen> {
    if chosen.len() < 2 {
        return chosen;
    }
    let (back, mut others): (Vec<Chosen>, Vec<Chosen>) =
        chosen.into_iter().partition(|chosen| before.contains(&chosen.node));
    others.sort_by(|a, b| key(world, &a.node).cmp(&key(world, &b.node)));
    if back.is_empty() {
        return pipelines(world, task, others);
    }
    let count = back.len() + others.len();
    let mut seats: Vec<Option<Chosen>> = std::iter::repeat_with(|| None).take(count).collect();
    for chosen in back {
        let at = before.iter().position(|node| *node == chosen.node);
        match at.and_then(|at| seats.get_mut(at)) {
            Some(seat) if seat.is_none() => *seat = Some(chosen),
            Some(_) | None => others.push(chosen),
        }
    }
    let mut others = others.into_iter();
    seats.into_iter().filter_map(|seat| seat.or_else(|| others.next())).collect()
}

fn pipelines(world: &World, task: &Task, nodes: Vec<Chosen>) -> Vec<Chosen> {
    let stages = match &task.body {
        Body::Train(train) => usize::try_from(train.parallel.pp()).unwrap_or(1),
        Body::Preflight(_) | Body::Engine(_) | Body::Run { .. } => 1,
    };
    let racks: BTreeSet<&str> = nodes.iter().map(|chosen| rack(world, &chosen.node)).collect();
    let apart = nodes.len() / stages.max(1);
    if racks.len() < 2 || stages < 2 || apart < 2 || apart * stages != nodes.len() {
        return nodes;
    }
    let mut seats: Vec<(usize, Chosen)> =
        nodes.into_iter().enumerate().map(|(at, chosen)| (at % stages * apart + at / stages, chosen)).collect();
    seats.sort_by_key(|(seat, _)| *seat);
    seats.into_iter().map(|(_, chosen)| chosen).collect()
}

/// Racks together, and names as people count: `n2` before `n10`.
fn key<'w>(world: &'w World, node: &'w NodeId) -> (&'w str, Vec<(&'w str, u64)>) {
    let mut parts = Vec::new();
    let mut rest = node.as_str();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, from) = rest.split_at(digits);
        let end = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (number, after) = from.split_at(end);
        parts.push((text, number.parse().unwrap_or(u64::MAX)));
        rest = after;
    }
    (rack(world, node), parts)
}
