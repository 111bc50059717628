//! Who goes next.

use std::collections::BTreeSet;

use model::event::{Kind, Level};
use model::{
    Attempt, AttemptState, Body, DeviceKind, Job, JobId, Liveness, NodeId, Seat, SeatState, Stage, Task, TaskState,
};

use crate::Mutation;
use crate::backfill::Head;
use crate::checkpoint::newest_complete;
use crate::index::{Place, Tally};
use crate::input::Effect;
use crate::phase;
use crate::place::{self, Chosen};
use crate::step::{Work, is_gang};
use crate::text;
use crate::world::{NodeView, World};

/// What one pass over the queue has learnt.
#[derive(Default)]
struct Pass {
    /// The first task with slots that found no room, and the nodes kept for it.
    head: Option<Head>,
    /// Shapes that found no room: room only shrinks within a pass. Those that may use kept nodes for themselves.
    full: Vec<(DeviceKind, u32, u32, bool)>,
    /// Whether a task without slots found no room: nothing is sent ahead past it.
    waits: bool,
}

impl Work<'_> {
    /// Places what fits: by priority, then age, then id; stages and tasks in
    /// their order.
    ///
    /// The first task that needs slots and finds none keeps every node that it
    /// could use, so that later ones cannot starve it; tasks without slots go
    /// on past it, and so does what is surely over before it can have its room
    /// (`backfill`). A task that no set of known nodes could ever hold keeps none.
    pub(crate) fn schedule(&mut self) {
        self.world.scheduled = self.now;
        let jobs: Vec<JobId> = self.world.index.queue.iter().map(|(_, _, id)| id.clone()).collect();
        let mut pass = Pass::default();
        for id in jobs {
            self.schedule_job(&id, &mut pass);
        }
        self.world.head = pass.head;
    }

    fn schedule_job(&mut self, id: &JobId, pass: &mut Pass) {
        let Some(job) = self.world.jobs.get(id) else { return };
        if job.cancel.is_some() {
            return;
        }
        let open: Vec<usize> = (0..job.stages.len())
            .filter(|stage| self.world.index.tally(id, *stage).is_some_and(|tally| !tally.waiting.is_empty()))
            .filter(|stage| phase::may_start(self.world, job, *stage))
            .collect();
        for stage in open {
            self.schedule_stage(id, stage, pass);
        }
    }

    fn schedule_stage(&mut self, id: &JobId, stage: usize, pass: &mut Pass) {
        let mut after: Option<u32> = None;
        while let Some(task) = self.next_waiting(id, stage, after) {
            after = Some(task);
            let place = Place { job: id.clone(), stage, task };
            if !self.may_place(&place) {
                continue;
            }
            // Tasks of a stage are alike, so the first without room speaks for the rest.
            let pinned = self.task(&place).is_some_and(|task| task.shape.pinned.is_some());
            if !self.place_task(&place, pass) && !pinned {
                return;
            }
        }
    }

    fn next_waiting(&self, id: &JobId, stage: usize, after: Option<u32>) -> Option<u32> {
        let from = after.map_or(0, |after| after.saturating_add(1));
        self.world.index.tally(id, stage)?.waiting.range(from..).next().copied()
    }

    fn may_place(&self, place: &Place) -> bool {
        let (Some(task), Some(stage)) = (self.task(place), self.stage(place)) else { return false };
        let TaskState::Waiting { not_before } = task.state else { return false };
        not_before.is_none_or(|at| at <= self.now)
            && (!task.closing
                || self.world.index.tally(&place.job, place.stage).is_some_and(|t| only_one_left(stage, t)))
    }

    fn place_task(&mut self, place: &Place, pass: &mut Pass) -> bool {
        let (Some(job), Some(task)) = (self.job(place), self.task(place)) else { return false };
        let (device, shape) = (job.runtime.device, task.shape.clone());
        let per_node = shape.ranks_per_node.saturating_mul(shape.slots_per_rank);
        // Without slots any node will do.
        let lets = pass.head.as_ref().is_some_and(|head| head.lets(self.world, task, self.now));
        let key = (if per_node == 0 { DeviceKind::Cpu } else { device }, shape.nodes, per_node, lets);
        let anchors = self.stage(place).and_then(|stage| anchors(self.world, job, stage, task));
        let anchors = anchors.map(|(_, nodes)| nodes).unwrap_or_default();
        // What must go to certain nodes says nothing about others of its shape.
        let alike = shape.pinned.is_none()
            && anchors.is_empty()
            && job.placement.labels.is_empty()
            && place::spares(self.world, task) == 0;
        if alike && pass.full.contains(&key) {
            return false;
        }
        let ahead = (!pass.waits).then(|| place.stage_key());
        let none = BTreeSet::new();
        let kept = pass.head.as_ref().filter(|_| !lets).map_or(&none, |head| &head.nodes);
        if let Some(seats) = place::choose(self.world, job, task, kept, &anchors, ahead) {
            self.seat(place, seats);
            return true;
        }
        if shape.slots_per_rank > 0 && pass.head.as_ref().is_none_or(|head| head.nodes.is_empty()) {
            let holders = could_hold(self.world, job, task);
            // What waits for a node that nothing can be placed on now has no use for others.
            if anchors.iter().all(|anchor| holders.contains(anchor)) {
                pass.head = Some(Head::new(self.world, job, task, holders, &anchors));
            }
        }
        // What waits for a node that is down or set aside has no use for the room of others.
        if per_node == 0 && could_take(self.world, job, task) {
            self.make_way(place);
            pass.waits = true;
        }
        if alike {
            pass.full.push(key);
        }
        false
    }

    fn seat(&mut self, place: &Place, chosen: Vec<Chosen>) {
        let (Some(job), Some(stage), Some(task)) = (self.job(place), self.stage(place), self.task(place)) else {
            return;
        };
        let gang = is_gang(task);
        let ranks = task.shape.ranks_per_node;
        let seats: Vec<Seat> = chosen
            .into_iter()
            .zip(0_u32..)
            .map(|(chosen, position)| Seat {
                node: chosen.node,
                first_rank: position.saturating_mul(ranks),
                ranks,
                slots: chosen.slots,
                state: SeatState::Assigned,
            })
            .collect();
        let last = task.history.last().map_or(0, |past| past.number);
        let reuse = self.world.broken(Mutation::ReuseAttemptNumber) && last > 0;
        let (resume, left_behind) = resume(stage, task, &seats, job.runtime.shared_storage);
        let attempt = Attempt {
            number: if reuse { last } else { last.saturating_add(1) },
            placed: self.now,
            state: if gang { AttemptState::Preparing } else { AttemptState::Running },
            seats,
            resume,
            port: 0,
            first_failure: None,
        };
        let nodes = text::nodes(&attempt);
        let first = attempt.seats.first().map(|seat| seat.node.clone());
        self.edit(place, |task| task.state = TaskState::Active(attempt));
        if let Some(first) = &first {
            self.expect_overdue(first);
        }
        let from = resume.map(|at| format!(", from iteration {at}")).unwrap_or_default();
        let message = format!("{} is placed on {nodes}{from}", self.name(place));
        if let Some(event) = self.stage_event(place, Kind::AttemptPlaced, Level::Info, message) {
            event.node = first;
        }
        if let Some(iteration) = left_behind {
            let message = format!(
                "the checkpoint of iteration {iteration} lies on nodes that this attempt does not use, \
                 and the storage is not shared"
            );
            self.stage_event(place, Kind::Warning, Level::Warn, message);
        }
        if gang { self.prepare_seats(place) } else { self.start_seats(place) }
    }

    fn prepare_seats(&mut self, place: &Place) {
        let (Some(id), Some(attempt)) = (self.world.attempt_id(place), self.attempt(place)) else { return };
        let prepares: Vec<Effect> = attempt
            .seats
            .iter()
            .enumerate()
            .map(|(seat, at)| Effect::Prepare { node: at.node.clone(), attempt: id.clone(), seat })
            .collect();
        self.out.effects.extend(prepares);
    }
}

/// Whether all tasks of the stage but the closing one are done.
pub(crate) fn only_one_left(stage: &Stage, tally: &Tally) -> bool {
    usize::try_from(tally.done).is_ok_and(|done| done + 1 == stage.tasks.len())
}

/// Nodes that are neither lost nor set aside and could hold a share of the
/// task when empty; none if there are too few of them.
fn could_hold(world: &World, job: &Job, task: &Task) -> BTreeSet<NodeId> {
    let open = |view: &&NodeView| view.liveness != Liveness::Lost && !view.is_set_aside();
    let holders = world.nodes.values().filter(open).filter(|view| place::could_hold(world, view, job, task));
    let nodes: BTreeSet<NodeId> = holders.map(|view| view.record.id.clone()).collect();
    if u32::try_from(nodes.len()).is_ok_and(|found| found < task.shape.nodes) { BTreeSet::new() } else { nodes }
}

/// Whether enough nodes take work for a task without slots, had they room.
fn could_take(world: &World, job: &Job, task: &Task) -> bool {
    let takes = |view: &&NodeView| view.takes_work() && place::could_hold(world, view, job, task);
    u32::try_from(world.nodes.values().filter(takes).count()).is_ok_and(|open| open >= task.shape.nodes)
}

/// Iteration that a new attempt resumes from, and a newer complete one that it
/// cannot reach, if any.
///
/// Without shared storage a checkpoint is of use only where its shards lie.
fn resume(stage: &Stage, task: &Task, seats: &[Seat], shared: bool) -> (Option<u64>, Option<u64>) {
    if !resumes(task) {
        return (None, None);
    }
    let newest = newest_complete(stage);
    let here = |node: &NodeId| shared || seats.iter().any(|seat| seat.node == *node);
    let reachable = stage
        .checkpoints
        .iter()
        .rev()
        .find(|(_, checkpoint)| checkpoint.is_usable() && checkpoint.shards.values().all(|shard| here(&shard.node)))
        .map(|(at, _)| *at);
    (reachable, newest.filter(|newest| Some(*newest) != reachable))
}

/// Whether a new attempt of the task would go on where an earlier one was.
fn resumes(task: &Task) -> bool {
    match &task.body {
        Body::Train(train) => !train.resume_args.is_empty() && !task.history.is_empty(),
        Body::Preflight(_) | Body::Engine(_) | Body::Run { .. } => false,
    }
}

/// The iteration that a new attempt should resume from, and the nodes that it
/// must have for that; `None` if any nodes will do.
///
/// Without shared storage the newest complete checkpoint is worth waiting for
/// while its nodes may come back: starting afresh elsewhere throws its work
/// away. Once one of them is lost, the attempt goes where there is room.
pub(crate) fn anchors(world: &World, job: &Job, stage: &Stage, task: &Task) -> Option<(u64, Vec<NodeId>)> {
    if job.runtime.shared_storage || !resumes(task) {
        return None;
    }
    let newest = newest_complete(stage)?;
    let shards = stage.checkpoints.get(&newest)?.shards.values();
    let nodes: Vec<NodeId> = shards.map(|shard| shard.node.clone()).collect::<BTreeSet<_>>().into_iter().collect();
    let lost = |node: &NodeId| world.nodes.get(node).is_none_or(|view| view.liveness == Liveness::Lost);
    let too_many = u32::try_from(nodes.len()).is_ok_and(|nodes| nodes > task.shape.nodes);
    (!too_many && !nodes.iter().any(lost)).then_some((newest, nodes))
}
