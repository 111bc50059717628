//! Which of a node's slots a seat gets: ranks that speak most sit near to each other.

use std::collections::BTreeMap;

use model::{Body, Node, Task};

/// Slots that a seat may take, and how often a unit of it is torn apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picked {
    pub(crate) slots: Vec<u32>,
    /// Groups beyond the first that units reach into, all units together.
    pub(crate) splits: u32,
}

/// Slots that should lie in one group: those of a tensor-parallel group of
/// ranks, which exchange every layer; of other work all that a seat takes.
pub(crate) fn unit(task: &Task) -> u32 {
    let all = task.shape.ranks_per_node.max(1).saturating_mul(task.shape.slots_per_rank);
    match &task.body {
        Body::Train(train) => train.parallel.tp().saturating_mul(task.shape.slots_per_rank).clamp(1, all.max(1)),
        Body::Preflight(_) | Body::Engine(_) | Body::Run { .. } => all,
    }
}

/// Takes `wanted` of the `free` slots, or nothing if there are too few.
///
/// Each unit goes where it leaves the least: the fullest group that holds it
/// whole, so that other groups stay whole for larger ones. One that no group
/// holds is laid over as few as possible. Lowest slots first.
pub(crate) fn pick(node: &Node, free: &[u32], wanted: usize, unit: usize) -> Option<Picked> {
    if free.len() < wanted {
        return None;
    }
    let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for slot in free {
        let group = usize::try_from(*slot).ok().and_then(|slot| node.groups.get(slot)).copied().unwrap_or(0);
        groups.entry(group).or_default().push(*slot);
    }
    if groups.len() == 1 {
        return Some(Picked { slots: free.get(..wanted)?.to_vec(), splits: 0 });
    }
    let mut units: Vec<Vec<u32>> = Vec::new();
    let mut splits = 0;
    let mut left = wanted;
    while left > 0 {
        let size = unit.clamp(1, left);
        let whole =
            groups.iter().filter(|(_, slots)| slots.len() >= size).min_by_key(|(id, slots)| (slots.len(), **id));
        let whole = whole.map(|(id, _)| *id);
        let mut taken: Vec<u32> = Vec::new();
        match whole {
            Some(group) => taken.extend(groups.get_mut(&group)?.drain(..size)),
            None => {
                let mut reached = 0_u32;
                while taken.len() < size {
                    let (_, slots) =
                        groups.iter_mut().max_by_key(|(id, slots)| (slots.len(), std::cmp::Reverse(**id)))?;
                    let part = (size - taken.len()).min(slots.len());
                    taken.extend(slots.drain(..part));
                    reached += 1;
                }
                splits += reached.saturating_sub(1);
                taken.sort_unstable();
            }
        }
        left -= taken.len();
        units.push(taken);
    }
    units.sort();
    Some(Picked { slots: units.into_iter().flatten().collect(), splits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(groups: &[u32]) -> Node {
        Node {
            id: model::NodeId::new("n1").unwrap(),
            boot_id: String::new(),
            hostname: String::new(),
            address: String::new(),
            version: String::new(),
            device: model::DeviceKind::Ascend,
            slots: u32::try_from(groups.len()).unwrap(),
            labels: model::Labels::default(),
            groups: groups.to_vec(),
            spare: false,
            spare_word: None,
            cpus: 1,
            memory: 1,
            joined: model::Timestamp(0),
            cordon: None,
            fence: None,
        }
    }

    #[test]
    fn units_stay_in_one_group_where_one_holds_them() {
        type Row = (&'static [u32], &'static [u32], usize, usize, &'static [u32], u32);
        const PAIRS: [u32; 8] = [0, 0, 1, 1, 2, 2, 3, 3];
        let table: [Row; 9] = [
            // Without groups the lowest slots.
            (&[], &[1, 2, 5], 2, 2, &[1, 2], 0),
            (&PAIRS, &[0, 1, 2, 3, 4, 5, 6, 7], 8, 2, &[0, 1, 2, 3, 4, 5, 6, 7], 0),
            // A pair that is whole before two halves.
            (&PAIRS, &[0, 2, 4, 5], 2, 2, &[4, 5], 0),
            // One slot goes to the pair that is broken already.
            (&PAIRS, &[0, 1, 3], 1, 1, &[3], 0),
            // Four ranks in two pairs of two.
            (&PAIRS, &[1, 2, 3, 5, 6, 7], 4, 2, &[2, 3, 6, 7], 0),
            // A unit of four takes whole pairs before halves.
            (&PAIRS, &[1, 2, 3, 5, 6, 7], 4, 4, &[2, 3, 6, 7], 1),
            (&PAIRS, &[0, 2, 4], 2, 2, &[0, 2], 1),
            // Two rings of four: the fuller one is left alone.
            (&[0, 0, 0, 0, 1, 1, 1, 1], &[0, 1, 2, 3, 5, 6], 2, 2, &[5, 6], 0),
            (&[0, 0, 0, 0, 1, 1, 1, 1], &[0, 1, 2, 3, 4, 5, 6, 7], 8, 4, &[0, 1, 2, 3, 4, 5, 6, 7], 0),
        ];
        for (groups, free, wanted, unit, slots, splits) in table {
            let picked = pick(&node(groups), free, wanted, unit).unwrap();
            assert_eq!(
                (picked.slots.as_slice(), picked.splits),
                (slots, splits),
                "{groups:?} {free:?} {wanted} {unit}"
            );
        }
        assert_eq!(pick(&node(&PAIRS), &[0, 1], 3, 1), None);
    }
}
