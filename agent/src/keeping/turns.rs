//! Whose turn it is among what is asked about checkpoints.

use std::path::Path;
use std::sync::Arc;

use proto::v1::{CheckpointAnswer, CheckpointOrder, checkpoint_order::What};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// One checkpoint is read at a time, and one is removed. They wait for their own kind alone: a
/// reading may take hours.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    readings: Arc<Semaphore>,
    removals: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        let [readings, removals] = [(); 2].map(|()| Arc::new(Semaphore::new(1)));
        Self { readings, removals }
    }
}

impl Turns {
    /// Does what the order says when its turn comes; `None` if its session is `over` before.
    ///
    /// Nobody waits for the answer then, and a removal may not be wanted any more. One that has
    /// begun is finished; a reading is not.
    pub(crate) async fn answer(
        &self,
        bin_dir: &Path,
        node: &str,
        order: CheckpointOrder,
        over: &CancellationToken,
    ) -> Option<CheckpointAnswer> {
        match &order.what {
            Some(What::Remove(_)) => {
                let _turn = over.run_until_cancelled(self.removals.acquire()).await?.ok()?;
                if over.is_cancelled() {
                    return None;
                }
                Some(super::answer(bin_dir, node, order).await)
            }
            Some(What::Verify(_)) | None => {
                let reading = async {
                    let _turn = self.readings.acquire().await.ok()?;
                    Some(super::answer(bin_dir, node, order).await)
                };
                over.run_until_cancelled(reading).await?
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use futures::poll;
    use proto::v1::{RemoveIteration, VerifyShards};

    use super::*;

    fn order(dir: &Path, what: What) -> CheckpointOrder {
        let workdir = dir.to_string_lossy().into_owned();
        let what = Some(what);
        CheckpointOrder { workdir, save_dir: "ckpt".into(), iteration: 5, what, ..CheckpointOrder::default() }
    }

    #[tokio::test]
    async fn a_removal_waits_for_no_reading_and_ends_with_its_session_while_it_waits() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let iteration = dir.join("ckpt/iter_0000005");
        let (turns, over) = (Turns::default(), CancellationToken::new());
        let remove = || turns.answer(dir, "n1", order(dir, What::Remove(RemoveIteration { tracker: None })), &over);
        let read = turns.readings.acquire().await.unwrap();
        fs::create_dir_all(&iteration).unwrap();
        assert_eq!(remove().await.unwrap().faults, []);
        assert!(!iteration.exists(), "removed while one is read");

        fs::create_dir_all(&iteration).unwrap();
        let removing = turns.removals.acquire().await.unwrap();
        let mut queued = std::pin::pin!(remove());
        let mut reading = std::pin::pin!(turns.answer(dir, "n1", order(dir, What::Verify(VerifyShards {})), &over));
        assert!(poll!(queued.as_mut()).is_pending() && poll!(reading.as_mut()).is_pending());
        over.cancel();
        drop((removing, read));
        assert_eq!((queued.await, reading.await), (None, None));
        assert_eq!(remove().await, None, "nothing is begun for a session that is over");
        assert!(iteration.exists());
    }
}
