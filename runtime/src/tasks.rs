//! Asynchronous tasks with an owner.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// A group of tasks that are told to stop together and waited for.
///
/// Clones share the group. The one place of the workspace that spawns.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A group that is told to stop when `stop` is, or by itself.
    #[must_use]
    pub fn under(stop: &CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), stop: stop.child_token() }
    }

    /// Runs `future` as a task of this group, in a span named `name`.
    ///
    /// The handle may be dropped: the group still waits for the task.
    #[allow(clippy::disallowed_methods, reason = "this is the owner that the ban asks for")]
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let span = tracing::debug_span!("task", name);
        tokio::spawn(self.tracker.track_future(future.instrument(span)))
    }

    /// What the tasks watch to know when to stop.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Tells all tasks to stop and waits for them, at most `grace`.
    ///
    /// Returns whether all had ended in time.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_waits_for_tasks_that_obey() {
        let tasks = Tasks::new();
        let stop = tasks.stop_token();
        let handle = tasks.spawn("waiter", async move {
            stop.cancelled().await;
            7
        });
        assert!(tasks.shutdown(Duration::from_secs(5)).await);
        assert_eq!(handle.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn shutdown_gives_up_on_tasks_that_do_not() {
        let tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending::<()>());
        assert!(!tasks.shutdown(Duration::from_millis(10)).await);
    }
}
