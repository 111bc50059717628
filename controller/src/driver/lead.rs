//! Leading, and what to do when a commit fails.
//!
//! A failed commit leaves a world that runs ahead of the store: it is thrown
//! away and loaded anew, and every session begins anew with it.

use model::Epoch;
use planner::World;
use store::{Kind, Store, record};
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Waiting};
use super::events::EventCache;
use super::{Driver, Error, Stepped, now};

/// How often one input may be stepped in all.
const TRIES: u32 = 3;

impl<S: Store> Driver<S> {
    /// Becomes the leader.
    pub(super) async fn campaign(&mut self) -> Result<(), Error> {
        self.epoch = self.store.campaign().await.map_err(Error::store)?;
        self.seq = 0;
        self.epochs.send_replace(self.epoch);
        tracing::info!(epoch = %self.epoch, "leads");
        Ok(())
    }

    /// Throws the world away and loads what the store remembers.
    pub(super) async fn reload(&mut self) -> Result<(), Error> {
        let mut world = World::new(self.config.policy.clone(), now());
        let nodes = self.store.load("nodes/").await.map_err(Error::store)?;
        let jobs = self.store.load("jobs/").await.map_err(Error::store)?;
        for node in record::load_nodes(&nodes).map_err(Error::store)? {
            world.restore_node(node);
        }
        for job in record::load_jobs(&jobs).map_err(Error::store)? {
            world.restore_job(job);
        }
        tracing::info!(nodes = world.nodes.len(), jobs = world.jobs.len(), "loaded");
        self.world = world;
        self.events = EventCache::default();
        self.wake = Some(now());
        Ok(())
    }

    /// After a failed commit: find out what holds, answer, step the rest again.
    pub(super) async fn recover(
        &mut self,
        mut batch: Batch,
        mut error: store::Error,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        loop {
            let (epoch, seq) = (self.epoch, self.seq + 1);
            tracing::warn!(%epoch, seq, error = %error, kind = ?error.kind(), "a commit failed; loading anew");
            let retry = self.may_retry(&error)?;
            let refusal = Error::store(error);
            let applied = self.lead_anew(retry, (epoch, seq), stop).await?;
            let waiting = std::mem::take(&mut batch.waiting);
            let later = std::mem::take(&mut batch.later);
            batch = Batch { later, ..Batch::default() };
            for waiting in waiting {
                self.settle(&mut batch, waiting, applied, retry, &refusal);
            }
            match self.commit(self.encode(&batch)).await {
                Ok(()) => {
                    self.pause.reset();
                    self.finish(batch).await;
                    return Ok(());
                }
                Err(again) => error = again,
            }
        }
    }

    /// Whether the failure is one of leadership, so that stepping again helps.
    fn may_retry(&self, error: &store::Error) -> Result<bool, Error> {
        match error.kind() {
            Kind::Fenced if !self.config.lead_again => {
                let told = store::Error::new(Kind::Fenced, error.to_string());
                Err(Error::Deposed(std::sync::Arc::new(told)))
            }
            Kind::Fenced | Kind::Unknown => Ok(true),
            Kind::Corrupt | Kind::Newer | Kind::Full | Kind::InUse | Kind::Io => Ok(false),
        }
    }

    /// Leads and loads again, as often as it takes; callers that ask meanwhile
    /// are refused rather than kept waiting. Returns whether the batch in doubt
    /// was applied after all.
    async fn lead_anew(
        &mut self,
        campaign: bool,
        doubt: (Epoch, u64),
        stop: &CancellationToken,
    ) -> Result<bool, Error> {
        loop {
            let pause = self.pause.pause();
            let failed = match self.try_lead_anew(campaign, doubt).await {
                Ok(applied) => {
                    self.agents.close_all();
                    self.changes.touch_all();
                    // A store in trouble is not hammered.
                    if !campaign {
                        self.refuse_for(pause, stop, &Error::Superseded).await?;
                    }
                    return Ok(applied);
                }
                Err(failed) => failed,
            };
            tracing::error!(error = %failed, "the store is in trouble; trying again");
            self.refuse_for(pause, stop, &failed).await?;
        }
    }

    async fn try_lead_anew(&mut self, campaign: bool, doubt: (Epoch, u64)) -> Result<bool, Error> {
        if campaign {
            // First, so that a commit still in flight cannot land after the look below.
            self.campaign().await?;
        }
        let last = self.store.last_batch().await.map_err(Error::store)?;
        self.reload().await?;
        let applied = last == Some(doubt);
        if applied && !campaign {
            self.seq = doubt.1;
        }
        Ok(applied)
    }

    async fn refuse_for(
        &mut self,
        pause: std::time::Duration,
        stop: &CancellationToken,
        error: &Error,
    ) -> Result<(), Error> {
        let until = tokio::time::Instant::now() + pause;
        loop {
            let request = tokio::select! {
                biased; // stop wins: a broken store must not hold up the end
                () = stop.cancelled() => return Err(Error::Stopped),
                () = tokio::time::sleep_until(until) => return Ok(()),
                request = self.inbox.recv() => request,
            };
            match request {
                Some(request) => request.refuse(error),
                None => return Err(Error::Stopped),
            }
        }
    }

    /// Answers one caller of the failed batch, or steps its input again.
    fn settle(&mut self, batch: &mut Batch, waiting: Waiting, applied: bool, retry: bool, error: &Error) {
        let Waiting { waiter, reply, again, tries } = waiting;
        let outcome = if applied {
            Ok(Stepped { reply, epoch: self.epoch })
        } else {
            match again {
                Some(input) if retry && tries + 1 < TRIES => {
                    return self.take_input(batch, input, waiter, tries + 1);
                }
                Some(_) => Err(error.clone()),
                None => Err(Error::Superseded),
            }
        };
        // A caller that went away needs no answer.
        let _ = waiter.send(outcome);
    }
}
