//! One step: an input, and everything that follows from it.

use std::ops::Bound;

use model::{
    Attempt, AttemptId, AttemptState, Body, Cause, Drain, Event, Failure, Job, JobId, NodeId, Seat, SeatState, Stage,
    Task, TaskState, Timestamp,
    event::{Kind, Level},
};

use crate::index::Place;
use crate::input::{Effect, Input, Reply, Step, Why, Write};
use crate::limit;
use crate::world::World;

/// Applies `input` to `world` at `now` and says what must be saved, answered
/// and done.
///
/// `now` never runs backwards between steps of one world. Silence is judged on
/// [`Input::Tick`] alone, so the driver steps what is in its inbox before it
/// ticks: a late beat then still counts.
#[must_use]
pub fn step(world: &mut World, input: &Input, now: Timestamp) -> Step {
    let mut out = take(world, input, now);
    out.append(conclude(world, now));
    out
}

/// Like [`step`], but leaves the queue to [`conclude`]: whoever saves many
/// inputs at once goes through it once for all of them.
#[must_use]
pub fn take(world: &mut World, input: &Input, now: Timestamp) -> Step {
    world.stepped = now;
    let mut work = Work { world, now, out: Step::default() };
    match input {
        Input::Submit(job) => work.submit(job),
        Input::Cancel { job, by, reason, grace_ms } => work.cancel(job, by, reason, *grace_ms),
        Input::Restart(wish) => work.restart(wish),
        Input::Checkpoint(about) => work.about_checkpoint(about),
        Input::Cordon { node, by, reason } => work.cordon(node, by, reason),
        Input::Drain { node, by, reason, deadline_ms } => work.drain_node(node, by, reason, *deadline_ms),
        Input::Fence { node, by, reason } => work.fence_node(node, by, reason),
        Input::Spare { node, by, spare } => work.spare(node, by, *spare),
        Input::Uncordon { node, by } => work.uncordon(node, by),
        Input::Hello { node, session, live } => work.hello(node, *session, live),
        Input::Beat { node, session, live } => work.beat(node, *session, live),
        Input::Report { node, session, attempt, what } => work.report(node, *session, attempt, what),
        Input::Unfit { node, session, slots } => work.unfit(node, *session, slots),
        Input::Groups { node, session, groups } => work.groups(node, *session, groups),
        Input::SessionLost { node, session } => work.session_lost(node, *session),
        Input::Tick => work.tick(),
    }
    work.out
}

/// Places what the inputs taken since the last time have made room for, and
/// says when to step again. Before the commit of what was taken.
#[must_use]
pub fn conclude(world: &mut World, now: Timestamp) -> Step {
    world.stepped = now;
    let mut work = Work { world, now, out: Step::default() };
    if work.world.reconsider || work.backoff_passed() {
        work.world.reconsider = false;
        work.schedule();
    }
    work.spread();
    work.out.wake_at = work.wake_at();
    work.out
}

/// A step under way.
pub(crate) struct Work<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) now: Timestamp,
    pub(crate) out: Step,
}

/// What an attempt's name refers to.
pub(crate) enum Standing {
    /// Nothing that this controller knows of, or a later attempt than it knows.
    Unknown,
    /// The attempt that holds the task now.
    Current(Place),
    /// An attempt that is over.
    Over {
        /// Whether the node asked about had a seat in it.
        seated: bool,
        /// Whether all its seats ended well.
        succeeded: bool,
    },
}

impl Work<'_> {
    pub(crate) fn reply(&mut self, reply: Reply) {
        self.out.reply = Some(reply);
    }

    /// Appends an event to the job's history; the caller may fill in more.
    pub(crate) fn event(&mut self, job: &JobId, kind: Kind, level: Level, message: String) -> Option<&mut Event> {
        let head = self.world.jobs.get_mut(job)?;
        head.last_event += 1;
        let event = Event {
            job: job.clone(),
            seq: head.last_event,
            at: self.now,
            level,
            kind,
            stage: None,
            node: None,
            rank: None,
            message,
            evidence: Vec::new(),
        };
        self.out.writes.insert(Write::Job(job.clone()));
        self.out.events.push(event);
        self.out.events.last_mut()
    }

    /// Like [`Work::event`], about the stage of `place`.
    pub(crate) fn stage_event(
        &mut self,
        place: &Place,
        kind: Kind,
        level: Level,
        message: String,
    ) -> Option<&mut Event> {
        let stage = self.stage(place)?.name.clone();
        let event = self.event(&place.job, kind, level, message)?;
        event.stage = Some(stage);
        Some(event)
    }

    /// Changes a task, and keeps tables and writes in step with it.
    pub(crate) fn edit<R>(&mut self, place: &Place, change: impl FnOnce(&mut Task) -> R) -> Option<R> {
        let World { jobs, index, .. } = &mut *self.world;
        let stage = jobs.get_mut(&place.job)?.stages.get_mut(place.stage)?;
        let task = stage.tasks.get_mut(usize::try_from(place.task).ok()?)?;
        index.remove_task(place, task);
        let result = change(task);
        index.add_task(place, task);
        self.out.writes.insert(Write::Tasks { job: place.job.clone(), stage: place.stage, chunk: place.task / 64 });
        Some(result)
    }

    /// Changes the active attempt of a task; nothing if there is none.
    pub(crate) fn edit_attempt<R>(&mut self, place: &Place, change: impl FnOnce(&mut Attempt) -> R) -> Option<R> {
        self.attempt(place)?;
        self.edit(place, |task| match &mut task.state {
            TaskState::Active(attempt) => Some(change(attempt)),
            TaskState::Waiting { .. }
            | TaskState::Done { .. }
            | TaskState::Failed { .. }
            | TaskState::Cancelled { .. }
            | TaskState::Skipped => None,
        })
        .flatten()
    }

    pub(crate) fn job(&self, place: &Place) -> Option<&Job> {
        self.world.jobs.get(&place.job)
    }

    pub(crate) fn stage(&self, place: &Place) -> Option<&Stage> {
        self.job(place)?.stages.get(place.stage)
    }

    pub(crate) fn task(&self, place: &Place) -> Option<&Task> {
        self.world.task(place)
    }

    pub(crate) fn attempt(&self, place: &Place) -> Option<&Attempt> {
        match &self.task(place)?.state {
            TaskState::Active(attempt) => Some(attempt),
            TaskState::Waiting { .. }
            | TaskState::Done { .. }
            | TaskState::Failed { .. }
            | TaskState::Cancelled { .. }
            | TaskState::Skipped => None,
        }
    }

    pub(crate) fn seat_on(&self, place: &Place, node: &NodeId) -> Option<(usize, &Seat)> {
        self.attempt(place)?.seats.iter().enumerate().find(|(_, seat)| seat.node == *node)
    }

    /// What `id` refers to, as seen from `node`.
    pub(crate) fn standing(&self, id: &AttemptId, node: &NodeId) -> Standing {
        let Some(job) = self.world.jobs.get(&id.task.job) else { return Standing::Unknown };
        let Some(stage) = job.stages.iter().position(|stage| stage.name == id.task.stage) else {
            return Standing::Unknown;
        };
        let place = Place { job: job.id.clone(), stage, task: id.task.index };
        let Some(task) = self.task(&place) else { return Standing::Unknown };
        if let Some(attempt) = self.attempt(&place)
            && (attempt.number == id.number || self.world.broken(crate::Mutation::IgnoreAttemptNumber))
        {
            return Standing::Current(place);
        }
        // A number that no record mentions can only be one that this store has not seen.
        let Some(past) = task.history.iter().rev().find(|past| past.number == id.number) else {
            return if task.history.has_dropped(id.number) {
                Standing::Over { seated: true, succeeded: false }
            } else {
                Standing::Unknown
            };
        };
        Standing::Over {
            seated: past.nodes.contains(node),
            succeeded: match past.outcome {
                model::Outcome::Succeeded => true,
                model::Outcome::Failed(_) | model::Outcome::Cancelled | model::Outcome::Requeued => false,
            },
        }
    }

    /// Tells every seat that is not over to stop, but for the one on `except`.
    pub(crate) fn stop_seats(&mut self, place: &Place, except: Option<&NodeId>) {
        let Some(attempt) = self.world.attempt_id(place) else { return };
        let grace_ms = self.grace_ms(place);
        let Some(now) = self.attempt(place) else { return };
        let nodes: Vec<NodeId> = now
            .seats
            .iter()
            .filter(|seat| !seat.state.is_over() && Some(&seat.node) != except)
            .map(|seat| seat.node.clone())
            .collect();
        let stops = nodes.into_iter().map(|node| Effect::Stop { node, attempt: attempt.clone(), grace_ms });
        self.out.effects.extend(stops);
    }

    /// Grace of a stop sent at this instant.
    ///
    /// What is left of a cancellation's, so that repeating the stop moves no
    /// deadline; a trainer's own where another task's failure ends it.
    pub(crate) fn grace_ms(&self, place: &Place) -> u64 {
        let after_failure = self.world.policy.failure_grace_ms;
        let (Some(job), Some(task), Some(attempt)) = (self.job(place), self.task(place), self.attempt(place)) else {
            return after_failure;
        };
        match attempt.state {
            AttemptState::Draining(Drain::Cancelled) => {
                job.cancel.as_ref().map_or(after_failure, |cancel| cancel.at.after_ms(cancel.grace_ms).since(self.now))
            }
            AttemptState::Draining(Drain::Moved { kill_at } | Drain::Restarted { kill_at }) => kill_at.since(self.now),
            AttemptState::Draining(Drain::Failed) if attempt.first_failure.is_none() => match &task.body {
                Body::Train(train) => train.grace_ms,
                Body::Preflight(_) | Body::Engine(_) | Body::Run { .. } => after_failure,
            },
            AttemptState::Draining(Drain::Failed) if attempt.first_failure.as_ref().is_some_and(is_overrun) => {
                let limit = task.limit_ms.unwrap_or_default();
                let kill_at = attempt.placed.after_ms(limit).after_ms(limit::planned_grace_ms(self.world, task));
                kill_at.since(self.now)
            }
            AttemptState::Draining(Drain::Failed | Drain::NodeLost)
            | AttemptState::Preparing
            | AttemptState::Running => after_failure,
        }
    }

    /// Grace of a stop that nobody named a grace for and no failure caused.
    pub(crate) fn planned_grace_ms(&self, place: &Place) -> u64 {
        self.task(place).map_or(self.world.policy.stop_grace_ms, |task| limit::planned_grace_ms(self.world, task))
    }

    /// Whether a back-off ended since the queue was gone through last: the
    /// instant asked for may come with any input, not only with a tick.
    fn backoff_passed(&self) -> bool {
        let passed = (Bound::Excluded(self.world.scheduled), Bound::Included(self.now));
        self.world.scheduled < self.now && self.world.index.backoffs.range(passed).next().is_some()
    }

    fn wake_at(&self) -> Option<(Timestamp, Why)> {
        let later = (Bound::Excluded(self.now), Bound::Unbounded);
        let backoff = self.world.index.backoffs.range(later).next().map(|(at, _)| (*at, Why::Backoff));
        let margin = self.world.policy.fence_margin_ms;
        let fence = self.world.fences.values().min().map(|at| (at.after_ms(margin), Why::Fence));
        let silence = self.world.next_silence.map(|at| (at, Why::Silence));
        let emptied = self.world.next_deadline.map(|at| (at, Why::Emptied));
        let overdue = self.world.next_overdue.map(|at| (at, Why::Overdue));
        let limit = self.world.index.ends.keys().next().map(|at| (*at, Why::Limit));
        [silence, backoff, fence, emptied, overdue, limit].into_iter().flatten().min()
    }
}

/// Whether the ranks of a task find each other, so that they start in two
/// phases and none is replaced alone.
pub(crate) fn is_gang(task: &Task) -> bool {
    task.shape.nodes > 1
        || match task.body {
            Body::Train(_) => true,
            Body::Preflight(_) | Body::Engine(_) | Body::Run { .. } => false,
        }
}

fn is_overrun(failure: &Failure) -> bool {
    failure.cause == Cause::Overrun
}

pub(crate) fn is_draining(attempt: &Attempt) -> bool {
    match attempt.state {
        AttemptState::Draining(_) => true,
        AttemptState::Preparing | AttemptState::Running => false,
    }
}

pub(crate) fn is_prepared(state: &SeatState) -> bool {
    match state {
        SeatState::Prepared { .. } | SeatState::Running => true,
        SeatState::Assigned | SeatState::Ended(_) | SeatState::GivenUp => false,
    }
}
