//! Look-up tables beside the jobs, so that a step costs what it changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use model::{AttemptId, Job, JobId, JobName, NodeId, StageName, Task, TaskId, TaskState, Timestamp};

/// Where a task is kept: its job, and positions of its stage and itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) job: JobId,
    pub(crate) stage: usize,
    pub(crate) task: u32,
}

impl Place {
    pub(crate) fn stage_key(&self) -> StageKey {
        (self.job.clone(), self.stage)
    }

    pub(crate) fn attempt_id(&self, stage: &StageName, number: u32) -> AttemptId {
        AttemptId { task: TaskId { job: self.job.clone(), stage: stage.clone(), index: self.task }, number }
    }
}

/// A stage of a job.
pub(crate) type StageKey = (JobId, usize);

/// What the seats on one node hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Slots taken.
    pub(crate) slots: BTreeSet<u32>,
    /// Seats that take no slot, by stage.
    engines: BTreeMap<StageKey, u32>,
}

impl Load {
    /// Seats that take no slot.
    pub(crate) fn engines(&self) -> u32 {
        self.engines.values().sum()
    }

    /// Whether all seats that take no slot are of one stage.
    pub(crate) fn is_only(&self, stage: &StageKey) -> bool {
        self.engines.keys().all(|other| other == stage)
    }
}

/// How the tasks of one stage stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Positions of the waiting tasks.
    pub(crate) waiting: BTreeSet<u32>,
    /// Positions of the active tasks.
    pub(crate) active: BTreeSet<u32>,
    pub(crate) done: u32,
    pub(crate) failed: u32,
    pub(crate) cancelled: u32,
    pub(crate) skipped: u32,
}

impl Tally {
    pub(crate) fn open(&self) -> usize {
        self.waiting.len() + self.active.len()
    }
}

/// A job's place in the queue: priority, then age, then id.
pub(crate) type Turn = (Reverse<i32>, Timestamp, JobId);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// Jobs that have not ended, by name.
    pub(crate) names: BTreeMap<JobName, JobId>,
    /// Jobs by owner and idempotency key: a key is its owner's alone.
    pub(crate) keys: BTreeMap<(String, String), JobId>,
    /// Jobs that have not ended, in the order in which they are served.
    pub(crate) queue: BTreeSet<Turn>,
    /// Ends of back-offs, passed ones included until the task is placed.
    pub(crate) backoffs: BTreeMap<Timestamp, BTreeSet<Place>>,
    /// When attempts reach their time limits, those that are being stopped left out.
    pub(crate) ends: BTreeMap<Timestamp, BTreeSet<Place>>,
    tallies: BTreeMap<JobId, Vec<Tally>>,
    seats: BTreeMap<NodeId, BTreeSet<Place>>,
    loads: BTreeMap<NodeId, Load>,
}

impl Index {
    pub(crate) fn of<'a>(jobs: impl Iterator<Item = &'a Job>) -> Self {
        let mut index = Self::default();
        jobs.for_each(|job| index.add_job(job));
        index
    }

    pub(crate) fn add_job(&mut self, job: &Job) {
        if job.ended.is_none() {
            self.begin_job(job);
        }
        if let Some(key) = &job.idempotency_key {
            self.keys.insert((job.owner.clone(), key.clone()), job.id.clone());
        }
        self.tallies.insert(job.id.clone(), vec![Tally::default(); job.stages.len()]);
        each_task(job, |place, task| self.add_task(place, task));
    }

    pub(crate) fn remove_job(&mut self, job: &Job) {
        each_task(job, |place, task| self.remove_task(place, task));
        self.tallies.remove(&job.id);
        if let Some(key) = &job.idempotency_key {
            self.keys.remove(&(job.owner.clone(), key.clone()));
        }
        self.end_job(job);
    }

    /// Takes the job's name and its place in the queue.
    pub(crate) fn begin_job(&mut self, job: &Job) {
        self.names.insert(job.name.clone(), job.id.clone());
        self.queue.insert(turn(job));
    }

    /// Frees the job's name and its place in the queue.
    pub(crate) fn end_job(&mut self, job: &Job) {
        if self.names.get(&job.name) == Some(&job.id) {
            self.names.remove(&job.name);
        }
        self.queue.remove(&turn(job));
    }

    pub(crate) fn add_task(&mut self, place: &Place, task: &Task) {
        if let TaskState::Waiting { not_before: Some(at) } = task.state {
            self.backoffs.entry(at).or_default().insert(place.clone());
        }
        if let Some(tally) = self.tally_mut(place) {
            match &task.state {
                TaskState::Waiting { .. } => _ = tally.waiting.insert(place.task),
                TaskState::Active(_) => _ = tally.active.insert(place.task),
                TaskState::Done { .. } => tally.done += 1,
                TaskState::Failed { .. } => tally.failed += 1,
                TaskState::Cancelled { .. } => tally.cancelled += 1,
                TaskState::Skipped => tally.skipped += 1,
            }
        }
        if let Some(end) = end(task) {
            self.ends.entry(end).or_default().insert(place.clone());
        }
        let TaskState::Active(attempt) = &task.state else { return };
        for seat in attempt.seats.iter().filter(|seat| !seat.state.is_over()) {
            self.seats.entry(seat.node.clone()).or_default().insert(place.clone());
            let load = self.loads.entry(seat.node.clone()).or_default();
            load.slots.extend(&seat.slots);
            if seat.slots.is_empty() {
                *load.engines.entry(place.stage_key()).or_default() += 1;
            }
        }
    }

    pub(crate) fn remove_task(&mut self, place: &Place, task: &Task) {
        if let TaskState::Waiting { not_before: Some(at) } = task.state
            && let Some(places) = self.backoffs.get_mut(&at)
        {
            places.remove(place);
            if places.is_empty() {
                self.backoffs.remove(&at);
            }
        }
        if let Some(tally) = self.tally_mut(place) {
            match &task.state {
                TaskState::Waiting { .. } => _ = tally.waiting.remove(&place.task),
                TaskState::Active(_) => _ = tally.active.remove(&place.task),
                TaskState::Done { .. } => tally.done -= 1,
                TaskState::Failed { .. } => tally.failed -= 1,
                TaskState::Cancelled { .. } => tally.cancelled -= 1,
                TaskState::Skipped => tally.skipped -= 1,
            }
        }
        if let Some(end) = end(task)
            && let Some(places) = self.ends.get_mut(&end)
        {
            places.remove(place);
            if places.is_empty() {
                self.ends.remove(&end);
            }
        }
        let TaskState::Active(attempt) = &task.state else { return };
        for seat in attempt.seats.iter().filter(|seat| !seat.state.is_over()) {
            if let Some(places) = self.seats.get_mut(&seat.node) {
                places.remove(place);
                if places.is_empty() {
                    self.seats.remove(&seat.node);
                }
            }
            if let Some(load) = self.loads.get_mut(&seat.node) {
                seat.slots.iter().for_each(|slot| _ = load.slots.remove(slot));
                let stage = place.stage_key();
                if let Some(engines) = load.engines.get_mut(&stage).filter(|_| seat.slots.is_empty()) {
                    *engines -= 1;
                    if *engines == 0 {
                        load.engines.remove(&stage);
                    }
                }
                if *load == Load::default() {
                    self.loads.remove(&seat.node);
                }
            }
        }
    }

    pub(crate) fn tally(&self, job: &JobId, stage: usize) -> Option<&Tally> {
        self.tallies.get(job)?.get(stage)
    }

    pub(crate) fn tallies(&self, job: &JobId) -> &[Tally] {
        self.tallies.get(job).map_or(&[], Vec::as_slice)
    }

    /// Tasks with a seat on `node` that is not over.
    pub(crate) fn places(&self, node: &NodeId) -> impl Iterator<Item = &Place> {
        self.seats.get(node).into_iter().flatten()
    }

    pub(crate) fn load(&self, node: &NodeId) -> Option<&Load> {
        self.loads.get(node)
    }

    /// What seats hold, by node.
    pub(crate) fn loads(&self) -> impl Iterator<Item = (&NodeId, &Load)> {
        self.loads.iter()
    }

    fn tally_mut(&mut self, place: &Place) -> Option<&mut Tally> {
        self.tallies.get_mut(&place.job)?.get_mut(place.stage)
    }
}

pub(crate) fn turn(job: &Job) -> Turn {
    (Reverse(job.priority), job.submitted, job.id.clone())
}

/// When the task's attempt is to be stopped for its time limit.
fn end(task: &Task) -> Option<Timestamp> {
    let attempt = task.state.attempt().filter(|attempt| !crate::step::is_draining(attempt))?;
    Some(attempt.placed.after_ms(task.limit_ms?))
}

fn each_task(job: &Job, mut f: impl FnMut(&Place, &Task)) {
    for (stage, tasks) in job.stages.iter().enumerate() {
        for (task, index) in tasks.tasks.iter().zip(0_u32..) {
            f(&Place { job: job.id.clone(), stage, task: index }, task);
        }
    }
}
