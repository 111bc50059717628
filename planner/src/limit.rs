//! Attempts that have run for as long as they may.

use model::{AttemptState, Body, Cause, Drain, Failure, Task, Timestamp};

use crate::index::Place;
use crate::step::Work;
use crate::text;
use crate::world::World;

impl Work<'_> {
    /// Stops what outlived its time limit, with the grace of a planned stop: a
    /// trainer may save. It is not tried again.
    pub(crate) fn end_overruns(&mut self) {
        let due = self.world.index.ends.range(..=self.now).flat_map(|(_, places)| places.iter().cloned());
        let due: Vec<Place> = due.collect();
        for place in due {
            let (Some(task), Some(attempt)) = (self.task(&place), self.attempt(&place)) else { continue };
            let (Some(limit), Some(seat)) = (task.limit_ms, attempt.seats.first()) else { continue };
            let failure = Failure {
                node: seat.node.clone(),
                rank: None,
                cause: Cause::Overrun,
                at: self.now,
                message: format!("it did not end within its time limit of {}", text::span(limit)),
                hint: "give the stage a longer `time_limit`".to_owned(),
                evidence: Vec::new(),
            };
            self.edit_attempt(&place, |attempt| {
                attempt.state = AttemptState::Draining(Drain::Failed);
                attempt.first_failure = Some(failure.clone());
            });
            let message = format!("{} is stopped: {}", self.name(&place), failure.message);
            self.failure_event(&place, message, failure);
            self.stop_seats(&place, None);
            self.review_fence(&place);
        }
    }
}

/// Grace of a stop that nobody named a grace for and no failure caused.
pub(crate) fn planned_grace_ms(world: &World, task: &Task) -> u64 {
    match &task.body {
        Body::Train(train) => train.grace_ms,
        Body::Preflight(_) | Body::Engine(_) | Body::Run { .. } => world.policy.stop_grace_ms,
    }
}

/// When an attempt of the task that is placed at `placed` has surely given its
/// slots back; `None` if nobody knows.
pub(crate) fn surely_over(world: &World, task: &Task, placed: Timestamp) -> Option<Timestamp> {
    let grace = planned_grace_ms(world, task);
    Some(placed.after_ms(task.limit_ms?).after_ms(grace).after_ms(world.policy.confirm_ms))
}
