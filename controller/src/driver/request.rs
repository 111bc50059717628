//! What the driver can be asked.

use model::{Event, JobId};
use planner::{Input, World};
use tokio::sync::oneshot;

use super::{Error, Stepped};
use crate::access::{Answer, Ask};

/// Who waits for the outcome of an input.
pub(super) type Waiter = oneshot::Sender<Result<Stepped, Error>>;

/// Who waits for what came of a question about who is let in.
pub(super) type AccessWaiter = oneshot::Sender<Result<Answer, Error>>;

/// Looks at the world as it was saved, or hears why not.
pub(super) type Look = dyn FnOnce(Result<&World, &Error>) + Send;

/// One thing that the driver is asked.
pub(super) enum Request {
    /// Step this input and answer once it is saved.
    Step(Box<Input>, Waiter),
    /// Ask who is let in, and answer once that is saved.
    Access(Box<Ask>, AccessWaiter),
    /// Look at the world.
    Read(Box<Look>),
    /// A job's events after a sequence number, oldest first.
    Events { job: JobId, after: u64, reply: oneshot::Sender<Result<Vec<Event>, Error>> },
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Step(input, _) => f.debug_tuple("Step").field(input).finish(),
            Self::Access(..) => f.write_str("Access"),
            Self::Read(_) => f.write_str("Read"),
            Self::Events { job, after, .. } => write!(f, "Events({job}, {after})"),
        }
    }
}

impl Request {
    /// Answers with an error.
    pub(super) fn refuse(self, error: &Error) {
        match self {
            Self::Step(_, waiter) => drop(waiter.send(Err(error.clone()))),
            Self::Access(_, waiter) => drop(waiter.send(Err(error.clone()))),
            Self::Read(look) => look(Err(error)),
            Self::Events { reply, .. } => drop(reply.send(Err(error.clone()))),
        }
    }
}
