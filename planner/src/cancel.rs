//! Somebody asks to end a job.

use model::event::{Kind, Level};
use model::{Cancel, Drain, JobId, TaskState};

use crate::index::Place;
use crate::input::{Reply, Write};
use crate::step::Work;

impl Work<'_> {
    /// Waiting tasks end at once, active ones drain.
    ///
    /// Asked again, only a nearer deadline counts: it is told to the seats that
    /// still run.
    pub(crate) fn cancel(&mut self, id: &JobId, by: &str, reason: &str, grace_ms: u64) {
        let now = self.now;
        let Some(job) = self.world.jobs.get_mut(id) else { return self.reply(Reply::NoSuchJob) };
        if job.ended.is_some() {
            return self.reply(Reply::AlreadyEnded);
        }
        self.out.reply = Some(Reply::Cancelling);
        let sooner = |cancel: &Cancel| now.after_ms(grace_ms) < cancel.at.after_ms(cancel.grace_ms);
        if job.cancel.as_ref().is_some_and(|cancel| !sooner(cancel)) {
            return;
        }
        job.cancel = Some(Cancel { by: by.to_owned(), reason: reason.to_owned(), at: now, grace_ms });
        self.out.writes.insert(Write::Job(id.clone()));
        let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        self.event(id, Kind::CancelAsked, Level::Info, format!("`{by}` asked to cancel the job{because}"));
        self.end_tasks(id, Drain::Cancelled);
        self.finish_job(id);
    }

    /// Ends what waits and drains what runs, of the whole job.
    ///
    /// A seat that drains for a failure of its own is left to do so, except
    /// that a cancellation's deadline is told to seats it concerns.
    pub(crate) fn end_tasks(&mut self, id: &JobId, drain: Drain) {
        let now = self.now;
        for place in self.places(id, |tally| tally.waiting.iter().copied().collect()) {
            self.edit(&place, |task| {
                let skip = drain == Drain::Failed && task.history.is_empty();
                task.state = if skip { TaskState::Skipped } else { TaskState::Cancelled { at: now } };
            });
        }
        for place in self.places(id, |tally| tally.active.iter().copied().collect()) {
            self.drain(&place, drain);
        }
        self.world.reconsider = true;
    }

    fn places(&self, id: &JobId, which: impl Fn(&crate::index::Tally) -> Vec<u32>) -> Vec<Place> {
        let tallies = self.world.index.tallies(id).iter().enumerate();
        tallies
            .flat_map(|(stage, tally)| which(tally).into_iter().map(move |task| Place { job: id.clone(), stage, task }))
            .collect()
    }
}
