//! How the rest of the controller talks to the driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{Epoch, Event, JobId};
use planner::{Input, Reply, World};
use tokio::sync::{mpsc, oneshot, watch};

use super::Error;
use super::request::Request;
use crate::access::{Answer, Ask, Board};

/// A cheap way to the driver; clones share it.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    epoch: watch::Receiver<Epoch>,
    leader: Option<watch::Receiver<Option<String>>>,
    sessions: Arc<AtomicU64>,
    board: Board,
}

/// What came of an input that was saved.
#[derive(Clone, Debug)]
pub struct Stepped {
    /// The planner's answer, for inputs that have one.
    pub reply: Option<Reply>,
    /// Under which epoch it was saved.
    pub epoch: Epoch,
}

/// An input on its way; wait for it with [`Pending::outcome`].
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Stepped, Error>>);

impl Pending {
    /// Waits until the input was saved, or refused.
    ///
    /// # Errors
    ///
    /// [`Error`] as the driver said.
    pub async fn outcome(self) -> Result<Stepped, Error> {
        self.0.await.unwrap_or(Err(Error::Stopped))
    }
}

impl Handle {
    pub(super) fn new(
        requests: mpsc::Sender<Request>,
        epoch: watch::Receiver<Epoch>,
        leader: Option<watch::Receiver<Option<String>>>,
        board: Board,
    ) -> Self {
        Self { requests, epoch, leader, sessions: Arc::default(), board }
    }

    /// Whether this controller leads.
    ///
    /// # Errors
    ///
    /// [`Error::Elsewhere`] if it follows.
    pub fn leads(&self) -> Result<(), Error> {
        match &self.leader {
            Some(leader) if *self.epoch.borrow() == Epoch::default() => {
                Err(Error::Elsewhere { leader: leader.borrow().clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The epoch under which this controller leads, and its changes; the default while it does not.
    #[must_use]
    pub fn epochs(&self) -> watch::Receiver<Epoch> {
        self.epoch.clone()
    }

    /// Hands over an input; waits only for room, not for the outcome.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] if the driver is gone.
    pub async fn send(&self, input: impl Into<Box<Input>>) -> Result<Pending, Error> {
        let (waiter, outcome) = oneshot::channel();
        self.requests.send(Request::Step(input.into(), waiter)).await.map_err(|_| Error::Stopped)?;
        Ok(Pending(outcome))
    }

    /// Hands over an input and waits until it was saved.
    ///
    /// # Errors
    ///
    /// [`Error`] as the driver said.
    pub async fn step(&self, input: Input) -> Result<Stepped, Error> {
        self.send(input).await?.outcome().await
    }

    /// Looks at the world, of which everything was saved. `look` should be quick.
    ///
    /// # Errors
    ///
    /// [`Error`] if the driver is gone, follows, or its store is in trouble.
    pub async fn read<T: Send + 'static>(&self, look: impl FnOnce(&World) -> T + Send + 'static) -> Result<T, Error> {
        let (seen, value) = oneshot::channel();
        // A caller that no longer waits needs no answer.
        let look =
            Box::new(move |world: Result<&World, &Error>| drop(seen.send(world.map(look).map_err(Error::clone))));
        self.requests.send(Request::Read(look)).await.map_err(|_| Error::Stopped)?;
        value.await.unwrap_or(Err(Error::Stopped))
    }

    /// Asks who is let in, and waits until what changes was saved.
    ///
    /// # Errors
    ///
    /// [`Error`] as the driver said.
    pub(crate) async fn access(&self, ask: Ask) -> Result<Answer, Error> {
        let (waiter, answer) = oneshot::channel();
        self.requests.send(Request::Access(Box::new(ask), waiter)).await.map_err(|_| Error::Stopped)?;
        answer.await.unwrap_or(Err(Error::Stopped))
    }

    /// What of that was saved, for a look.
    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// A job's events with a sequence number above `after`, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error`] if the store cannot be read.
    pub async fn events(&self, job: JobId, after: u64) -> Result<Vec<Event>, Error> {
        let (reply, events) = oneshot::channel();
        self.requests.send(Request::Events { job, after, reply }).await.map_err(|_| Error::Stopped)?;
        events.await.unwrap_or(Err(Error::Stopped))
    }

    /// The epoch under which this controller leads.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        *self.epoch.borrow()
    }

    /// A session number larger than all before it.
    #[must_use]
    pub fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed) + 1
    }
}
