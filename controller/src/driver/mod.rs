//! The one owner of world and store: decide, save, act.
//!
//! Requests are taken in batches; each is stepped, all writes go into one
//! commit guarded by the leader's epoch, and only then callers are answered
//! and agents are told (group commit).

mod batch;
mod error;
mod events;
mod handle;
mod lead;
mod request;

use std::sync::Arc;
use std::time::Duration;

use model::{Epoch, Timestamp};
use planner::{Input, Policy, World};
use runtime::backoff::Backoff;
use runtime::clock::steady_ms;
use store::Store;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use error::Error;
pub use handle::{Handle, Pending, Stepped};

use crate::access::{Board, Ledger};
use crate::changes::Changes;
use crate::sessions::Registry;
use batch::Batch;
use events::EventCache;
use request::Request;

/// How the driver batches and leads.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long things may take.
    pub policy: Policy,
    /// Most records of one commit; a batch is split between inputs beyond it.
    pub most_writes: usize,
    /// Where controllers share the store: the address of the one that leads, as far as this one has seen. Such a
    /// driver refuses what it is asked until it leads, and after another took over.
    pub leader: Option<watch::Receiver<Option<String>>>,
}

impl Default for Config {
    fn default() -> Self {
        Self { policy: Policy::default(), most_writes: 512, leader: None }
    }
}

/// Requests that may wait for their turn.
const INBOX: usize = 4096;
/// Most requests of one turn.
const TURN: usize = 1024;

/// The owner of world and store. Made by [`Driver::open`], run by [`Driver::run`].
#[derive(Debug)]
pub struct Driver<S> {
    config: Config,
    store: S,
    world: World,
    epoch: Epoch,
    seq: u64,
    inbox: mpsc::Receiver<Request>,
    wake: Option<Timestamp>,
    events: EventCache,
    agents: Arc<Registry>,
    changes: Arc<Changes>,
    epochs: watch::Sender<Epoch>,
    pause: Backoff,
    ledger: Ledger,
    board: Board,
}

impl<S: Store> Driver<S> {
    /// Becomes the leader and loads what the store remembers; where controllers share the store, [`Driver::run`]
    /// does so.
    ///
    /// # Errors
    ///
    /// [`Error`] if the store cannot be led or read.
    pub async fn open(
        config: Config,
        store: S,
        agents: Arc<Registry>,
        changes: Arc<Changes>,
    ) -> Result<(Self, Handle), Error> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let epochs = watch::Sender::new(Epoch::default());
        let board = Board::default();
        let handle = Handle::new(sender, epochs.subscribe(), config.leader.clone(), board.clone());
        let mut driver = Self {
            world: World::new(config.policy.clone(), now()),
            config,
            store,
            epoch: Epoch::default(),
            seq: 0,
            inbox,
            wake: None,
            events: EventCache::default(),
            agents,
            changes,
            epochs,
            pause: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            ledger: Ledger::default(),
            board,
        };
        if driver.config.leader.is_none() {
            driver.campaign(&CancellationToken::new()).await?;
            driver.reload().await?;
        }
        Ok((driver, handle))
    }

    /// Takes turns until `stop`, or until the last handle is gone; then hands the lead over.
    ///
    /// # Errors
    ///
    /// [`Error`] if the store is in trouble that does not pass.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let ended = loop {
            if self.config.leader.is_some()
                && let Err(error) = self.follow(&stop).await
            {
                break Err(error);
            }
            match self.lead(&stop).await {
                Err(Error::Deposed(reason)) if self.config.leader.is_some() => self.step_down(&reason),
                ended => break ended,
            }
        };
        self.epochs.send_replace(Epoch::default());
        self.store.resign().await;
        match ended {
            Err(Error::Stopped) => Ok(()),
            ended => ended,
        }
    }

    /// Takes turns for as long as this controller leads.
    async fn lead(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let mut requests = Vec::with_capacity(TURN);
        let mut over = Box::pin(self.store.lead_over());
        loop {
            let wake = self.sleep();
            let taken = tokio::select! {
                biased; // stop wins, then the loss of the lead; time that passed is looked at in every turn, so a busy inbox cannot starve it
                () = stop.cancelled() => return Ok(()),
                () = &mut over => return Err(lead::lost()),
                taken = self.inbox.recv_many(&mut requests, TURN) => Some(taken),
                () = tokio::time::sleep(wake) => None,
            };
            if taken == Some(0) {
                return Ok(());
            }
            // A process that was paused finds its inbox full before its timers.
            if !self.store.still_leads() {
                let error = self.elsewhere();
                requests.drain(..).for_each(|request| request.refuse(&error));
                return Err(lead::lost());
            }
            self.turn(&mut requests, stop).await?;
        }
    }

    /// One turn: everything that was asked, and the time that passed.
    async fn turn(&mut self, requests: &mut Vec<Request>, stop: &CancellationToken) -> Result<(), Error> {
        let mut batch = Batch::default();
        let mut requests = requests.drain(..);
        while let Some(request) = requests.next() {
            self.take(&mut batch, request);
            if batch.writes() >= self.config.most_writes
                && let Err(error) = self.save(std::mem::take(&mut batch), stop).await
            {
                let told = if matches!(error, Error::Stopped) { Error::Stopped } else { self.elsewhere() };
                requests.for_each(|request| request.refuse(&told));
                return Err(error);
            }
        }
        if self.wake.is_some_and(|at| at <= now()) {
            self.wake = None;
            self.step(&mut batch, &Input::Tick);
        }
        self.save(batch, stop).await
    }

    /// Time until somebody must be woken.
    fn sleep(&self) -> Duration {
        let longest = Duration::from_secs(3600);
        self.wake.map_or(longest, |at| Duration::from_millis(at.since(now())).min(longest))
    }

    /// Steps one input: the world changes, the rest waits for the commit.
    fn step(&mut self, batch: &mut Batch, input: &Input) -> Option<planner::Reply> {
        let step = planner::take(&mut self.world, input, now());
        batch.add(step)
    }

    /// Goes through the queue, once for all inputs of the batch.
    fn conclude(&mut self, batch: &mut Batch) {
        let step = planner::conclude(&mut self.world, now());
        if let Some((at, why)) = step.wake_at {
            tracing::trace!(?why, at = at.0, "will wake");
            self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
        }
        batch.add(step);
    }
}

/// The planner's time: it looks like wall-clock time and never goes backwards.
pub(crate) fn now() -> Timestamp {
    Timestamp(steady_ms())
}
