//! Who wants to know when a job changed.

use dashmap::DashMap;
use model::JobId;
use tokio::sync::watch;

/// Wakes those who watch a job. A look-up table at the rim: it knows that
/// something changed, never what.
#[derive(Debug, Default)]
pub struct Changes {
    jobs: DashMap<JobId, watch::Sender<u64>>,
}

impl Changes {
    /// A receiver that changes whenever `job` does.
    #[must_use]
    pub fn subscribe(&self, job: &JobId) -> watch::Receiver<u64> {
        self.jobs.entry(job.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Tells those who watch `job`; costs nothing where nobody does.
    pub fn touch(&self, job: &JobId) {
        let alone = match self.jobs.get(job) {
            Some(sender) => {
                sender.send_modify(|count| *count = count.wrapping_add(1));
                sender.receiver_count() == 0
            }
            None => false,
        };
        if alone {
            self.jobs.remove_if(job, |_, sender| sender.receiver_count() == 0);
        }
    }

    /// Tells everybody.
    pub fn touch_all(&self) {
        self.jobs.retain(|_, sender| {
            sender.send_modify(|count| *count = count.wrapping_add(1));
            sender.receiver_count() > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_are_woken_and_forgotten() {
        let (changes, job) = (Changes::default(), JobId::new("j1").unwrap());
        let receiver = changes.subscribe(&job);
        changes.touch(&JobId::new("j2").unwrap());
        assert!(!receiver.has_changed().unwrap());
        changes.touch(&job);
        assert!(receiver.has_changed().unwrap());
        drop(receiver);
        changes.touch(&job);
        assert!(changes.jobs.is_empty());
    }
}
