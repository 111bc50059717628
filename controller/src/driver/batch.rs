//! What one commit carries, and what follows it.

use std::collections::{BTreeMap, BTreeSet};

use model::{Event, JobId};
use planner::{Effect, Input, Reply, World, Write};
use store::{Store, record};
use tokio_util::sync::CancellationToken;

use super::request::{AccessWaiter, Request, Waiter};
use super::{Driver, Error, Stepped, now};
use crate::access::{Answer, Change};
use crate::{assignment, ids};

/// Inputs that were stepped, and what waits for their commit.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) dirty: BTreeSet<Write>,
    pub(super) events: Vec<Event>,
    pub(super) effects: Vec<Effect>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) later: Vec<Request>,
    /// Who asked who is let in.
    pub(super) granted: Vec<(AccessWaiter, Answer)>,
    /// What changed of that.
    pub(super) access: Vec<Change>,
    /// Old jobs that were taken out of the world.
    pub(super) forgotten: BTreeSet<JobId>,
}

/// A caller, and what to tell it once the commit is through.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) waiter: Waiter,
    pub(super) reply: Option<Reply>,
    /// A user's input, kept so that it can be stepped again after a reload.
    /// Agents say theirs again in their next session.
    pub(super) again: Option<Box<Input>>,
    pub(super) tries: u32,
}

/// What one commit writes.
#[derive(Debug)]
pub(super) struct Writes {
    puts: Vec<(String, Vec<u8>)>,
    deletes: Vec<String>,
    gone: BTreeSet<JobId>,
}

/// Old jobs taken out by one batch at most.
const FORGOTTEN: usize = 16;

impl Batch {
    /// Records that a commit of this batch would write.
    pub(super) fn writes(&self) -> usize {
        self.dirty.len() + self.events.len() + self.forgotten.len() + self.access.len()
    }

    /// Takes what came of a step; its reply is for whoever asked.
    pub(super) fn add(&mut self, step: planner::Step) -> Option<Reply> {
        self.dirty.extend(step.writes);
        self.events.extend(step.events);
        self.effects.extend(step.effects);
        step.reply
    }
}

impl<S: Store> Driver<S> {
    /// Steps or sets aside one request.
    pub(super) fn take(&mut self, batch: &mut Batch, request: Request) {
        match request {
            Request::Step(input, waiter) => self.take_input(batch, input, waiter, 0),
            Request::Access(ask, waiter) => {
                let (answer, changes) = self.ledger.take(*ask, now());
                batch.access.extend(changes);
                batch.granted.push((waiter, answer));
            }
            request @ (Request::Read(_) | Request::Events { .. }) => batch.later.push(request),
        }
    }

    pub(super) fn take_input(&mut self, batch: &mut Batch, mut input: Box<Input>, waiter: Waiter, tries: u32) {
        if let Input::Submit(job) = input.as_mut() {
            job.id = ids::fresh(&self.world);
            job.submitted = now();
        }
        let reply = self.step(batch, &input);
        let again = match *input {
            Input::Submit(_)
            | Input::Cancel { .. }
            | Input::Restart(_)
            | Input::Checkpoint(_)
            | Input::Cordon { .. }
            | Input::Drain { .. }
            | Input::Fence { .. }
            | Input::Spare { .. }
            | Input::Uncordon { .. } => Some(input),
            Input::Hello { .. }
            | Input::Beat { .. }
            | Input::Unfit { .. }
            | Input::Groups { .. }
            | Input::Report { .. }
            | Input::SessionLost { .. }
            | Input::Tick => None,
        };
        batch.waiting.push(Waiting { waiter, reply, again, tries });
    }

    /// Takes the oldest ended jobs out, beyond those that are kept.
    pub(super) fn forget_old(&mut self, batch: &mut Batch) {
        let keep = self.config.policy.keep_ended_jobs;
        let ends = batch.dirty.iter().any(|write| matches!(write, Write::Job(_)));
        if !ends || self.world.jobs.len() <= keep {
            return;
        }
        let ended = self.world.jobs.values().filter_map(|job| Some((job.ended?, job.id.clone())));
        let mut ended: Vec<_> = ended.collect();
        ended.sort_unstable();
        let excess = ended.len().saturating_sub(keep).min(FORGOTTEN);
        for (_, id) in ended.into_iter().take(excess) {
            self.world.forget_job(&id);
            batch.forgotten.insert(id);
        }
    }

    /// Commits a batch, then answers and tells; or recovers.
    pub(super) async fn save(&mut self, mut batch: Batch, stop: &CancellationToken) -> Result<(), Error> {
        self.conclude(&mut batch);
        self.forget_old(&mut batch);
        match self.commit(self.encode(&batch)).await {
            Ok(()) => {
                self.finish(batch).await;
                Ok(())
            }
            Err(error) => self.recover(batch, error, stop).await,
        }
    }

    /// The records of a batch, as the world has them at its end.
    pub(super) fn encode(&self, batch: &Batch) -> Writes {
        let gone = &batch.forgotten;
        let puts = batch.dirty.iter().filter_map(|write| encode(&self.world, write));
        let events = batch.events.iter().filter(|event| !gone.contains(&event.job)).map(record::event);
        let mut writes = Writes { puts: puts.chain(events).collect(), deletes: Vec::new(), gone: gone.clone() };
        // The last word on each key: a batch may know a token come and go.
        let access: BTreeMap<String, Option<Vec<u8>>> = batch.access.iter().map(Change::record).collect();
        for (key, value) in access {
            match value {
                Some(value) => writes.puts.push((key, value)),
                None => writes.deletes.push(key),
            }
        }
        writes
    }

    pub(super) async fn commit(&mut self, writes: Writes) -> Result<(), store::Error> {
        let Writes { puts, mut deletes, gone } = writes;
        if puts.is_empty() && deletes.is_empty() && gone.is_empty() {
            return Ok(());
        }
        // Before all that can fail: what was sent under a number may still come through, and must not be taken for
        // another batch.
        self.seq += 1;
        for job in &gone {
            deletes.extend(self.keys_of(job).await?);
        }
        self.store.commit(self.epoch, store::Batch { seq: self.seq, puts, deletes }).await?;
        // Not for a batch without writes: that says nothing about the store.
        self.pause.reset();
        Ok(())
    }

    /// Keys of a job that was taken out.
    async fn keys_of(&mut self, job: &JobId) -> Result<Vec<String>, store::Error> {
        let head = record::job_prefix(job);
        let below = [format!("{head}/"), format!("events/{job}/")];
        let mut keys = vec![head];
        for prefix in below {
            keys.extend(self.store.load(&prefix).await?.into_iter().map(|(key, _)| key));
        }
        Ok(keys)
    }

    /// All is saved: agents first, they have work to do.
    pub(super) async fn finish(&mut self, batch: Batch) {
        let changed = changed_jobs(&batch);
        // Before the callers: who was let in may come at once, and who was taken back is out.
        self.board.apply(batch.access);
        for (waiter, answer) in batch.granted {
            // A caller that went away needs no answer.
            let _ = waiter.send(Ok(answer));
        }
        self.tell_agents(&batch.effects);
        self.events.append(batch.events);
        for waiting in batch.waiting {
            // A caller that went away needs no answer.
            let _ = waiting.waiter.send(Ok(Stepped { reply: waiting.reply, epoch: self.epoch }));
        }
        for job in changed {
            self.changes.touch(&job);
        }
        // The commit may have taken longer than the lead lasts.
        let stale = (!self.store.still_leads()).then(|| self.elsewhere());
        for request in batch.later {
            match &stale {
                Some(error) => request.refuse(error),
                None => self.look(request).await,
            }
        }
    }

    fn tell_agents(&self, effects: &[Effect]) {
        for effect in effects {
            let Some((node, message)) = assignment::message(&self.world, self.epoch, effect) else { continue };
            if !self.agents.tell(&node, message) {
                tracing::debug!(%node, "a hint was dropped; the next beat repeats it");
            }
        }
    }

    /// Answers a look at what is saved.
    pub(super) async fn look(&mut self, request: Request) {
        match request {
            Request::Step(_, waiter) => drop(waiter.send(Err(Error::Stopped))),
            Request::Access(_, waiter) => drop(waiter.send(Err(Error::Stopped))),
            Request::Read(look) => look(Ok(&self.world)),
            Request::Events { job, after, reply } => {
                let newest = self.world.jobs.get(&job).map_or(0, |job| job.last_event);
                drop(reply.send(self.events.after(&mut self.store, &job, after, newest).await));
            }
        }
    }
}

fn encode(world: &World, write: &Write) -> Option<(String, Vec<u8>)> {
    match write {
        Write::Node(id) => world.nodes.get(id).map(|node| record::node(&node.record)),
        Write::Plan(id) => world.jobs.get(id).map(record::job_plan),
        Write::Job(id) => world.jobs.get(id).map(record::job_head),
        Write::Tasks { job, stage, chunk } => world.jobs.get(job).map(|job| record::tasks(job, *stage, *chunk)),
        Write::Checkpoints { job, stage } => world.jobs.get(job).map(|job| record::checkpoints(job, *stage)),
    }
}

fn job_of(write: &Write) -> Option<JobId> {
    match write {
        Write::Node(_) => None,
        Write::Plan(job) | Write::Job(job) | Write::Tasks { job, .. } | Write::Checkpoints { job, .. } => {
            Some(job.clone())
        }
    }
}

fn changed_jobs(batch: &Batch) -> BTreeSet<JobId> {
    let told = batch.events.iter().map(|event| event.job.clone());
    told.chain(batch.dirty.iter().filter_map(job_of)).collect()
}
