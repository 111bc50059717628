//! How attempts end, and what that means for their task, stage and job.

use model::event::{Kind, Level};
use model::{
    Attempt, AttemptState, AttemptSummary, Body, Cause, Drain, Failure, JobId, NodeId, Outcome, SeatEnd, SeatState,
    TaskState, Timestamp,
};

use crate::Mutation;
use crate::index::Place;
use crate::input::Write;
use crate::retry;
use crate::step::{Work, is_draining};
use crate::text;

impl Work<'_> {
    /// Records an attempt's first failure and has its other seats stopped.
    ///
    /// While an attempt drains, later failures are consequences. One is looked
    /// at all the same: where the first report came from a victim (its words
    /// name a lost peer) and a later one did not, the later one is the cause.
    pub(crate) fn fail(&mut self, place: &Place, failure: Failure, drain: Drain) {
        let Some(attempt) = self.attempt(place) else { return };
        if is_draining(attempt) {
            return self.find_cause(place, failure);
        }
        let node = failure.node.clone();
        self.edit_attempt(place, |attempt| {
            attempt.state = AttemptState::Draining(drain);
            attempt.first_failure = Some(failure.clone());
        });
        let message = format!("{} failed: {}", self.name(place), text::failure(&failure));
        self.failure_event(place, message, failure);
        self.stop_seats(place, Some(&node));
        self.review_fence(place);
    }

    fn find_cause(&mut self, place: &Place, failure: Failure) {
        let first = self.attempt(place).and_then(|attempt| attempt.first_failure.as_ref());
        if !first.is_some_and(|first| text::blames_a_peer(first) && !text::blames_a_peer(&failure)) {
            return;
        }
        self.edit_attempt(place, |attempt| attempt.first_failure = Some(failure.clone()));
        let message = format!("{} failed because of this: {}", self.name(place), text::failure(&failure));
        self.failure_event(place, message, failure);
    }

    pub(crate) fn failure_event(&mut self, place: &Place, message: String, failure: Failure) {
        if let Some(event) = self.stage_event(place, Kind::AttemptFailed, Level::Error, message) {
            event.node = Some(failure.node);
            event.rank = failure.rank;
            event.evidence = failure.evidence;
        }
    }

    /// Has a whole attempt stopped for a reason that is not its own.
    pub(crate) fn drain(&mut self, place: &Place, drain: Drain) {
        let Some(attempt) = self.attempt(place) else { return };
        match attempt.state {
            AttemptState::Preparing | AttemptState::Running => {
                self.edit_attempt(place, |attempt| attempt.state = AttemptState::Draining(drain));
            }
            // A cancellation's grace replaces that of work another failure ended.
            AttemptState::Draining(Drain::Failed) if attempt.first_failure.is_none() && drain == Drain::Cancelled => {
                self.edit_attempt(place, |attempt| attempt.state = AttemptState::Draining(drain));
            }
            AttemptState::Draining(Drain::Cancelled) => {}
            // What would have run again ends with its job, or sooner than asked for.
            AttemptState::Draining(Drain::Moved { .. } | Drain::Restarted { .. }) if !is_requeue(drain) => {
                self.edit_attempt(place, |attempt| attempt.state = AttemptState::Draining(drain));
            }
            AttemptState::Draining(Drain::Moved { .. }) if matches!(drain, Drain::Restarted { .. }) => {
                self.edit_attempt(place, |attempt| attempt.state = AttemptState::Draining(drain));
            }
            AttemptState::Draining(Drain::Moved { .. } | Drain::Restarted { .. }) => {}
            AttemptState::Draining(Drain::Failed | Drain::NodeLost) => return,
        }
        self.stop_seats(place, None);
        self.review_fence(place);
    }

    /// Gives a seat up that nobody can ask any more.
    pub(crate) fn give_up(&mut self, place: &Place, node: &NodeId, failure: Failure) {
        let Some((seat, _)) = self.seat_on(place, node) else { return };
        self.edit_attempt(place, |attempt| {
            if let Some(seat) = attempt.seats.get_mut(seat) {
                seat.state = SeatState::GivenUp;
            }
        });
        self.world.reconsider = true;
        if self.attempt(place).is_some_and(|attempt| !is_draining(attempt)) {
            self.fail(place, failure, Drain::NodeLost);
        }
        self.settle(place);
    }

    /// Ends a seat by its node's word.
    pub(crate) fn end_seat(&mut self, place: &Place, seat: usize, end: SeatEnd) {
        self.edit_attempt(place, |attempt| {
            if let Some(seat) = attempt.seats.get_mut(seat) {
                seat.state = SeatState::Ended(end);
            }
        });
        self.world.reconsider = true;
        self.settle(place);
    }

    /// Ends the attempt once all its seats are over.
    pub(crate) fn settle(&mut self, place: &Place) {
        let Some(attempt) = self.attempt(place) else { return };
        let over = attempt.seats.iter().all(|seat| seat.state.is_over())
            || (self.world.broken(Mutation::OverWithFirstSeat)
                && attempt.seats.iter().any(|seat| seat.state.is_over()));
        if !over {
            return self.review_fence(place);
        }
        let outcome = outcome(attempt);
        self.world.fences.remove(place);
        let next = self.next_state(place, &outcome);
        if let TaskState::Failed { failure, .. } = &next
            && self.failed_alike(place, failure)
        {
            let message = format!(
                "{} failed in the same words as the attempt before, with no checkpoint in between: it is not tried again",
                self.name(place)
            );
            self.stage_event(place, Kind::Warning, Level::Warn, message);
        }
        let retried = match &next {
            TaskState::Waiting { not_before } => *not_before,
            TaskState::Active(_)
            | TaskState::Done { .. }
            | TaskState::Failed { .. }
            | TaskState::Cancelled { .. }
            | TaskState::Skipped => None,
        };
        let now = self.now;
        self.edit(place, |task| {
            if let TaskState::Active(attempt) = std::mem::replace(&mut task.state, next) {
                task.history.push(AttemptSummary {
                    number: attempt.number,
                    placed: attempt.placed,
                    ended: now,
                    outcome,
                    nodes: attempt.seats.into_iter().map(|seat| seat.node).collect(),
                });
            }
        });
        self.world.reconsider = true;
        if let Some(at) = retried {
            self.retried(place, at);
        }
        self.after_task(place);
    }

    fn next_state(&self, place: &Place, outcome: &Outcome) -> TaskState {
        let at = self.now;
        let (Some(job), Some(task), Some(attempt)) = (self.job(place), self.task(place), self.attempt(place)) else {
            return TaskState::Skipped;
        };
        let failure = match outcome {
            Outcome::Succeeded => {
                return TaskState::Done { attempt: attempt.number, at, output: output(attempt) };
            }
            Outcome::Cancelled => return TaskState::Cancelled { at },
            Outcome::Requeued if self.world.broken(Mutation::MovedIsCancelled) => return TaskState::Cancelled { at },
            Outcome::Requeued => return TaskState::Waiting { not_before: None },
            Outcome::Failed(failure) => failure,
        };
        if job.cancel.is_some() {
            return TaskState::Cancelled { at };
        }
        let failed_before = retry::lately(job, task, at);
        let job_failed = self.world.index.tallies(&place.job).iter().any(|tally| tally.failed > 0);
        if job_failed || failed_before >= task.retries.max || !self.may_help(place, failure) {
            return TaskState::Failed { failure: failure.clone(), at };
        }
        TaskState::Waiting { not_before: Some(at.after_ms(task.retries.pause_ms(failed_before))) }
    }

    /// Whether trying again may help after such a failure.
    ///
    /// A lost device ends a rank with the same exit code as a mistake in the
    /// script does, so training that left with a code is tried again; what then
    /// fails in the same words, with no checkpoint in between, is the script's
    /// own. A command's code is its user's, who said how often to try.
    fn may_help(&self, place: &Place, failure: &Failure) -> bool {
        let Some(task) = self.task(place) else { return false };
        match &task.body {
            Body::Preflight(_) | Body::Engine(_) => failure.cause.is_transient(),
            Body::Run { .. } => failure.cause.is_transient() || matches!(failure.cause, Cause::Exit(_)),
            Body::Train(_) => match failure.cause {
                Cause::Exit(_) => !self.failed_alike(place, failure),
                Cause::Signal(_) | Cause::Refused | Cause::NodeLost | Cause::Hang | Cause::Overrun => {
                    failure.cause.is_transient()
                }
            },
        }
    }

    /// Whether the attempt of training before this one left with the same code in the same words, and no checkpoint
    /// came after it.
    fn failed_alike(&self, place: &Place, failure: &Failure) -> bool {
        if !self.task(place).is_some_and(|task| matches!(task.body, Body::Train(_)))
            || !matches!(failure.cause, Cause::Exit(_))
        {
            return false;
        }
        let (Some(job), Some(task)) = (self.job(place), self.task(place)) else { return false };
        let Some((past, before)) = retry::failures(job, task).next_back() else { return false };
        let checkpoints = self.stage(place).into_iter().flat_map(|stage| stage.checkpoints.values());
        let progressed = checkpoints.filter_map(|checkpoint| checkpoint.complete).any(|at| at > past.ended);
        before.cause == failure.cause && before.evidence.last() == failure.evidence.last() && !progressed
    }

    fn retried(&mut self, place: &Place, at: Timestamp) {
        let (Some(job), Some(task)) = (self.job(place), self.task(place)) else { return };
        let (wait, which) = (text::span(at.since(self.now)), retry::next(job, task, self.now));
        let message = format!("{} is tried again in {wait} ({which})", self.task_name(place));
        self.stage_event(place, Kind::TaskRetried, Level::Warn, message);
        self.drop_incomplete_checkpoints(place);
    }

    /// What the end of a task means for its stage and job.
    fn after_task(&mut self, place: &Place) {
        let Some(tally) = self.world.index.tally(&place.job, place.stage) else { return };
        let (all_done, failed) = (tally.open() + unfinished(tally) == 0, tally.failed);
        let state = self.task(place).map(|task| &task.state);
        let failure = match state {
            Some(TaskState::Failed { failure, .. }) => Some(failure.clone()),
            Some(
                TaskState::Waiting { .. }
                | TaskState::Active(_)
                | TaskState::Done { .. }
                | TaskState::Cancelled { .. }
                | TaskState::Skipped,
            )
            | None => None,
        };
        let stage = self.stage(place).map(|stage| stage.name.to_string()).unwrap_or_default();
        if all_done {
            self.stage_event(place, Kind::StageSucceeded, Level::Info, format!("stage `{stage}` succeeded"));
        }
        if let Some(failure) = failure {
            if failed == 1 {
                let message = format!("stage `{stage}` failed: {}", text::failure(&failure));
                if let Some(event) = self.stage_event(place, Kind::StageFailed, Level::Error, message) {
                    event.node = Some(failure.node);
                    event.rank = failure.rank;
                }
            }
            self.end_tasks(&place.job, Drain::Failed);
        }
        self.finish_job(&place.job);
    }

    /// Ends the job once all its tasks are over: failed if one failed, else
    /// cancelled if one was, else succeeded. A job that finished all its work
    /// after somebody asked to cancel it has succeeded.
    pub(crate) fn finish_job(&mut self, id: &JobId) {
        let tallies = self.world.index.tallies(id);
        let open: usize = tallies.iter().map(crate::index::Tally::open).sum();
        let failed = tallies.iter().any(|tally| tally.failed > 0);
        let cancelled = tallies.iter().any(|tally| tally.cancelled > 0);
        let Some(job) = self.world.jobs.get_mut(id) else { return };
        if open > 0 || job.ended.is_some() {
            return;
        }
        job.ended = Some(self.now);
        let took = text::span(self.now.since(job.submitted));
        self.world.index.end_job(job);
        self.out.writes.insert(Write::Job(id.clone()));
        let (kind, level, word) = if failed {
            (Kind::JobFailed, Level::Error, "failed")
        } else if cancelled {
            (Kind::JobCancelled, Level::Warn, "was cancelled")
        } else {
            (Kind::JobSucceeded, Level::Info, "succeeded")
        };
        self.event(id, kind, level, format!("the job {word} after {took}"));
        self.world.reconsider = true;
    }
}

fn unfinished(tally: &crate::index::Tally) -> usize {
    usize::try_from(tally.failed + tally.cancelled + tally.skipped).unwrap_or(usize::MAX)
}

/// How an attempt whose seats are all over ended.
///
/// Work that every seat finished is done, whoever asked to stop it meanwhile.
fn outcome(attempt: &Attempt) -> Outcome {
    let finished = attempt.seats.iter().all(|seat| match &seat.state {
        SeatState::Ended(end) => end.ok,
        SeatState::Assigned | SeatState::Prepared { .. } | SeatState::Running | SeatState::GivenUp => false,
    });
    let restarted = matches!(attempt.state, AttemptState::Draining(Drain::Restarted { .. }));
    match &attempt.first_failure {
        Some(failure) => Outcome::Failed(failure.clone()),
        None if finished && !restarted => Outcome::Succeeded,
        None => match attempt.state {
            AttemptState::Draining(Drain::Moved { .. } | Drain::Restarted { .. }) => Outcome::Requeued,
            AttemptState::Preparing
            | AttemptState::Running
            | AttemptState::Draining(Drain::Failed | Drain::Cancelled | Drain::NodeLost) => Outcome::Cancelled,
        },
    }
}

/// Whether the task runs again after such a drain.
fn is_requeue(drain: Drain) -> bool {
    match drain {
        Drain::Moved { .. } | Drain::Restarted { .. } => true,
        Drain::Failed | Drain::Cancelled | Drain::NodeLost => false,
    }
}

fn output(attempt: &Attempt) -> model::Output {
    match attempt.seats.first().map(|seat| &seat.state) {
        Some(SeatState::Ended(end)) => end.output.clone(),
        Some(SeatState::Assigned | SeatState::Prepared { .. } | SeatState::Running | SeatState::GivenUp) | None => {
            model::Output::default()
        }
    }
}
