//! Why no set of nodes takes a task now.

use model::{Job, JobName, Liveness, NodeId, Purpose, Task, TaskShape};

use crate::phase;
use crate::place;
use crate::reason::{Away, Lack, Needs, Reason, Word};
use crate::world::{NodeView, World};

/// Most nodes that a sentence names.
const MOST_NAMED: usize = 4;
/// Most jobs that a sentence names of one node.
const MOST_JOBS: usize = 3;

/// The constraint that binds a waiting task that nothing else holds back.
pub(crate) fn none(world: &World, job: &Job, task: &Task) -> Reason {
    let shape = &task.shape;
    let device = job.runtime.device;
    let per_node = place::per_node(shape);
    if let Some(pinned) = &shape.pinned {
        match world.nodes.get(pinned) {
            None => return Reason::PinnedAbsent(pinned.clone()),
            Some(view) if per_node > 0 && view.record.device != device => {
                return Reason::PinnedKind(pinned.clone(), device);
            }
            Some(view) if !view.takes_work() => return Reason::PinnedAway(pinned.clone(), away(view)),
            Some(_) => {}
        }
    }
    let fit: Vec<&NodeView> = world.nodes.values().filter(|view| place::could_hold(world, view, job, task)).collect();
    let needs = Needs { nodes: shape.nodes.max(1), per_node, device, labels: job.placement.labels.clone() };
    let wanted = usize::try_from(shape.nodes.max(1)).unwrap_or(usize::MAX);
    if fit.len() < wanted {
        let joined = world.nodes.values().filter(|view| per_node == 0 || view.record.device == device);
        let spares = world.nodes.values().filter(|view| view.record.is_spare());
        let spares = spares.filter(|view| place::is_of_kind(world, view, job, shape) && view.record.slots >= per_node);
        let spares = if place::spares(world, task) == 0 { spares.count() } else { 0 };
        return Reason::TooFew { needs, fit: fit.len(), joined: joined.count(), spares };
    }
    let open = fit.iter().filter(|view| view.takes_work()).count();
    if open >= wanted && per_node == 0 {
        return Reason::Full(world.policy.engine_tasks_per_node);
    }
    if open >= wanted
        && let Some(ahead) = ahead_in_queue(world, job)
    {
        let at = world.head.as_ref().filter(|head| head.job == ahead.id).and_then(|head| head.at);
        let wait_ms = at.map(|at| at.since(world.stepped));
        return Reason::Behind { needs, job: ahead.name.clone(), wait_ms };
    }
    let mut lacks: Vec<(NodeId, Lack)> =
        fit.iter().filter_map(|view| Some((view.record.id.clone(), lack(world, view, shape)?))).collect();
    let have = fit.len() - lacks.len();
    lacks.sort_by_key(|(_, lack)| match lack {
        Lack::Away(_) => 0,
        Lack::Strangers => 1,
        Lack::Taken { alarmed, .. } => 2 + usize::from(alarmed.is_empty()),
    });
    let more = lacks.len().saturating_sub(MOST_NAMED);
    lacks.truncate(MOST_NAMED);
    Reason::Short { needs, have, fit: fit.len(), lacks, more }
}

/// What keeps a node that is large enough from taking a share of a task of
/// this shape; `None` if nothing does.
pub(crate) fn lack(world: &World, view: &NodeView, shape: &TaskShape) -> Option<Lack> {
    if !view.takes_work() {
        return Some(Lack::Away(away(view)));
    }
    let wanted = usize::try_from(place::per_node(shape)).unwrap_or(usize::MAX);
    if wanted == 0 {
        return None;
    }
    if !place::slots_are_known(world, view) {
        return Some(Lack::Strangers);
    }
    let free = place::free_slots(world, view).count();
    (free < wanted).then(|| Lack::Taken {
        free,
        slots: view.record.slots,
        jobs: holders(world, &view.record.id),
        alarmed: view.unfit.iter().copied().collect(),
    })
}

/// Jobs that hold slots of the node, by id.
fn holders(world: &World, node: &NodeId) -> Vec<JobName> {
    let holds = world.index.places(node).filter(|place| {
        world.task(place).is_some_and(|task| {
            task.state
                .attempt()
                .is_some_and(|now| now.seats.iter().any(|seat| seat.node == *node && !seat.slots.is_empty()))
        })
    });
    let mut names: Vec<JobName> = Vec::new();
    for job in holds.filter_map(|place| world.jobs.get(&place.job)) {
        if names.last() != Some(&job.name) {
            names.push(job.name.clone());
        }
        if names.len() == MOST_JOBS {
            break;
        }
    }
    names
}

/// Why a node gets no new work.
fn away(view: &NodeView) -> Away {
    if let Some(fence) = &view.record.fence {
        return Away::Fenced(Word { by: fence.by.clone(), reason: fence.reason.clone() });
    }
    if let Some(cordon) = &view.record.cordon {
        let word = Word { by: cordon.by.clone(), reason: cordon.reason.clone() };
        return match cordon.purpose {
            Purpose::Keep => Away::Cordoned(word),
            Purpose::Empty { .. } => Away::Drained(word),
        };
    }
    match view.liveness {
        Liveness::Unheard => Away::Unheard,
        Liveness::Ready => Away::BetweenSessions,
        Liveness::Suspect => Away::Silent,
        Liveness::Lost => Away::Lost,
    }
}

/// An earlier job in the queue that waits for slots of the same kind.
fn ahead_in_queue<'a>(world: &'a World, job: &Job) -> Option<&'a Job> {
    let earlier = world.index.queue.iter().take_while(|(_, _, id)| *id != job.id);
    earlier.filter_map(|(_, _, id)| world.jobs.get(id)).find(|other| {
        other.runtime.device == job.runtime.device
            && other.cancel.is_none()
            && other.stages.iter().enumerate().any(|(position, stage)| {
                let first = world.index.tally(&other.id, position).and_then(|tally| tally.waiting.first().copied());
                let first = first.and_then(|first| stage.tasks.get(usize::try_from(first).ok()?));
                first.is_some_and(|task| task.shape.slots_per_rank > 0) && phase::may_start(world, other, position)
            })
    })
}
