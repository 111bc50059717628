//! Leading, and what to do when a commit fails.
//!
//! A failed commit leaves a world that runs ahead of the store: it is thrown
//! away and loaded anew, and every session begins anew with it.

use std::sync::Arc;
use std::time::Duration;

use model::Epoch;
use planner::World;
use store::{Kind, Store, record};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Waiting};
use super::events::EventCache;
use super::request::Request;
use super::{Driver, Error, Stepped, now};
use crate::access::Ledger;

/// How often one input may be stepped in all.
const TRIES: u32 = 3;

/// What became of a batch in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applied {
    Yes,
    No,
    Unknown,
}

impl<S: Store> Driver<S> {
    /// Becomes the leader; where another leads, what is asked meanwhile is refused.
    pub(super) async fn campaign(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let shared = self.config.leader.clone();
        let epoch = {
            let mut campaign = std::pin::pin!(self.store.campaign());
            loop {
                let request = tokio::select! {
                    biased; // stop wins: another may lead for ever
                    () = stop.cancelled() => return Err(Error::Stopped),
                    led = &mut campaign => break led.map_err(Error::store)?,
                    request = self.inbox.recv(), if shared.is_some() => request,
                };
                match request {
                    Some(request) => request.refuse(&elsewhere(shared.as_ref())),
                    None => return Err(Error::Stopped),
                }
            }
        };
        self.epoch = epoch;
        self.seq = 0;
        self.epochs.send_replace(self.epoch);
        tracing::info!(epoch = %self.epoch, "leads");
        Ok(())
    }

    /// Follows until this controller leads, and has loaded what the store remembers.
    pub(super) async fn follow(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        loop {
            let led = match self.campaign(stop).await {
                Ok(()) => self.reload().await,
                Err(error) => Err(error),
            };
            let Err(error) = led else {
                self.pause.reset();
                return Ok(());
            };
            self.epochs.send_replace(Epoch::default());
            if matches!(error, Error::Stopped | Error::Moved(_)) {
                return Err(error);
            }
            tracing::error!(error = %crate::api::chain(&error), "the store is in trouble; trying again");
            let pause = self.pause.pause();
            self.refuse_for(pause, stop, &error).await?;
        }
    }

    /// Forgets what only the leader may say. Sessions end, and begin anew with whoever leads.
    pub(super) fn step_down(&mut self, reason: &store::Error) {
        tracing::warn!(epoch = %self.epoch, %reason, "leads no more");
        self.epochs.send_replace(Epoch::default());
        self.world = World::new(self.config.policy.clone(), now());
        self.events = EventCache::default();
        self.wake = None;
        self.agents.close_all();
        self.changes.touch_all();
    }

    /// What a controller that does not lead says.
    pub(super) fn elsewhere(&self) -> Error {
        elsewhere(self.config.leader.as_ref())
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
        let tokens = self.store.load("tokens/").await.map_err(Error::store)?;
        let certificates = self.store.load("certificates/").await.map_err(Error::store)?;
        let names = self.store.load("revoked/").await.map_err(Error::store)?;
        self.ledger = Ledger::restore(
            record::load_tokens(&tokens).map_err(Error::store)?,
            record::load_certificates(&certificates).map_err(Error::store)?,
            record::load_revoked_names(&names).map_err(Error::store)?,
        );
        self.board.replace(self.ledger.clone());
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
            let (epoch, seq) = (self.epoch, self.seq);
            tracing::warn!(%epoch, seq, error = %error, kind = ?error.kind(), "a commit failed; loading anew");
            let retry = match self.may_retry(&error) {
                Ok(retry) => retry,
                Err(deposed) => {
                    self.refuse_all(batch);
                    return Err(deposed);
                }
            };
            let refusal = Error::store(error);
            let applied = self.lead_anew(retry, (epoch, seq), &refusal, stop).await?;
            let waiting = std::mem::take(&mut batch.waiting);
            let (later, mut granted) = (std::mem::take(&mut batch.later), std::mem::take(&mut batch.granted));
            batch = Batch { later, ..Batch::default() };
            for waiting in waiting {
                self.settle(&mut batch, waiting, applied, retry, &refusal);
            }
            for (waiter, answer) in std::mem::take(&mut granted) {
                // A caller that went away needs no answer.
                let _ = waiter.send(if applied == Applied::Yes { Ok(answer) } else { Err(refusal.clone()) });
            }
            self.conclude(&mut batch);
            match self.commit(self.encode(&batch)).await {
                Ok(()) => {
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
            Kind::Fenced if self.config.leader.is_some() => {
                let told = store::Error::new(Kind::Fenced, error.to_string());
                Err(Error::Deposed(Arc::new(told)))
            }
            Kind::Fenced | Kind::Unknown => Ok(true),
            Kind::Corrupt | Kind::Newer | Kind::Full | Kind::InUse | Kind::Moved | Kind::Io => Ok(false),
        }
    }

    /// Leads and loads again, as often as it takes; callers that ask meanwhile
    /// are refused rather than kept waiting. Returns whether the batch in doubt
    /// was applied after all.
    async fn lead_anew(
        &mut self,
        campaign: bool,
        doubt: (Epoch, u64),
        refusal: &Error,
        stop: &CancellationToken,
    ) -> Result<Applied, Error> {
        if campaign && self.config.leader.is_some() {
            // Another may lead already: who asks must look for it.
            self.epochs.send_replace(Epoch::default());
        }
        loop {
            let pause = self.pause.pause();
            let failed = match self.try_lead_anew(campaign, doubt, stop).await {
                Ok(applied) => {
                    self.epochs.send_replace(self.epoch);
                    self.agents.close_all();
                    self.changes.touch_all();
                    // A store in trouble is not hammered; what it holds can be looked at.
                    if !campaign {
                        self.only_show_for(pause, stop, refusal).await?;
                    }
                    return Ok(applied);
                }
                Err(end @ (Error::Stopped | Error::Moved(_))) => return Err(end),
                Err(failed) => failed,
            };
            if self.config.leader.is_some() {
                self.epochs.send_replace(Epoch::default());
            }
            tracing::error!(error = %crate::api::chain(&failed), "the store is in trouble; trying again");
            self.refuse_for(pause, stop, &failed).await?;
        }
    }

    async fn try_lead_anew(
        &mut self,
        campaign: bool,
        doubt: (Epoch, u64),
        stop: &CancellationToken,
    ) -> Result<Applied, Error> {
        if campaign {
            // First, so that a commit still in flight cannot land after the look below.
            self.campaign(stop).await?;
        }
        let last = self.store.last_batch().await.map_err(Error::store)?;
        self.reload().await?;
        Ok(match last {
            Some(last) if last == doubt => Applied::Yes,
            // Another led meanwhile, and wrote over the answer.
            Some((epoch, _)) if epoch > doubt.0 => Applied::Unknown,
            Some(_) | None => Applied::No,
        })
    }

    /// Nothing of the batch is known to be saved, and nothing of it will be.
    fn refuse_all(&self, batch: Batch) {
        let error = self.elsewhere();
        for waiting in batch.waiting {
            // A caller that went away needs no answer.
            let _ = waiting.waiter.send(Err(error.clone()));
        }
        for (waiter, _) in batch.granted {
            let _ = waiter.send(Err(error.clone()));
        }
        batch.later.into_iter().for_each(|request| request.refuse(&error));
    }

    /// Refuses all that is asked.
    async fn refuse_for(&mut self, pause: Duration, stop: &CancellationToken, error: &Error) -> Result<(), Error> {
        let until = Instant::now() + pause;
        while let Some(request) = self.asked_until(until, stop).await? {
            request.refuse(error);
        }
        Ok(())
    }

    /// Shows what is saved, and refuses what would have to be saved.
    async fn only_show_for(&mut self, pause: Duration, stop: &CancellationToken, error: &Error) -> Result<(), Error> {
        let until = Instant::now() + pause;
        while let Some(request) = self.asked_until(until, stop).await? {
            match request {
                Request::Step(..) | Request::Access(..) => request.refuse(error),
                Request::Read(_) | Request::Events { .. } => self.look(request).await,
            }
        }
        Ok(())
    }

    /// The next request, or none by then.
    async fn asked_until(&mut self, until: Instant, stop: &CancellationToken) -> Result<Option<Request>, Error> {
        tokio::select! {
            biased; // stop wins: a broken store must not hold up the end
            () = stop.cancelled() => Err(Error::Stopped),
            () = tokio::time::sleep_until(until) => Ok(None),
            request = self.inbox.recv() => request.map(Some).ok_or(Error::Stopped),
        }
    }

    /// Answers one caller of the failed batch, or steps its input again.
    fn settle(&mut self, batch: &mut Batch, waiting: Waiting, applied: Applied, retry: bool, error: &Error) {
        let Waiting { waiter, reply, again, tries } = waiting;
        let outcome = if applied == Applied::Yes {
            Ok(Stepped { reply, epoch: self.epoch })
        } else {
            match again {
                Some(input) if retry && applied == Applied::No && tries + 1 < TRIES => {
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

/// Why a driver stopped leading that nobody has told so.
pub(super) fn lost() -> Error {
    Error::Deposed(Arc::new(store::Error::new(Kind::Fenced, "the lease of the lead has run out")))
}

fn elsewhere(leader: Option<&watch::Receiver<Option<String>>>) -> Error {
    Error::Elsewhere { leader: leader.and_then(|leader| leader.borrow().clone()) }
}
