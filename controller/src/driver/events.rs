//! The newest events of the jobs that people look at.

use std::collections::{BTreeMap, VecDeque};

use model::{Event, JobId};
use store::{Store, record};

use super::Error;

/// Events kept of one job; older ones are read from the store.
const PER_JOB: usize = 256;
/// Jobs kept.
const JOBS: usize = 256;

/// A bounded memory of events in front of the store.
#[derive(Debug, Default)]
pub(super) struct EventCache {
    jobs: BTreeMap<JobId, VecDeque<Event>>,
}

impl EventCache {
    /// Remembers events that were saved.
    pub(super) fn append(&mut self, events: Vec<Event>) {
        for event in events {
            if self.jobs.len() >= JOBS && !self.jobs.contains_key(&event.job) {
                self.jobs.pop_first();
            }
            let kept = self.jobs.entry(event.job.clone()).or_default();
            kept.push_back(event);
            if kept.len() > PER_JOB {
                kept.pop_front();
            }
        }
    }

    /// Events of `job` above `after`, whose newest is number `newest`.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if older ones cannot be read.
    pub(super) async fn after<S: Store>(
        &self,
        store: &mut S,
        job: &JobId,
        after: u64,
        newest: u64,
    ) -> Result<Vec<Event>, Error> {
        if after >= newest {
            return Ok(Vec::new());
        }
        let kept = self.jobs.get(job);
        if let Some(kept) = kept
            && kept.front().is_some_and(|first| first.seq <= after.saturating_add(1))
            && kept.back().is_some_and(|last| last.seq >= newest)
        {
            return Ok(kept.iter().filter(|event| event.seq > after).cloned().collect());
        }
        let entries = store.load(&format!("events/{job}/")).await.map_err(Error::store)?;
        let mut events = record::load_events(&entries).map_err(Error::store)?;
        events.retain(|event| event.seq > after);
        events.sort_by_key(|event| event.seq);
        Ok(events)
    }
}
