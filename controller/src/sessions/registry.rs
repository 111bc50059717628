//! Which node is connected through which session.

use dashmap::DashMap;
use model::NodeId;
use proto::v1;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// What goes out to one agent; boxed, because a queue of thousands of agents each has room for some.
pub(crate) type Outbound = Box<Result<v1::ControllerMessage, Status>>;

/// The connected agents. A look-up table at the rim: losing it loses nothing.
#[derive(Debug, Default)]
pub struct Registry {
    sessions: DashMap<NodeId, Entry>,
    arrivals: watch::Sender<u64>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    out: mpsc::Sender<Outbound>,
    over: CancellationToken,
}

impl Registry {
    /// Makes `number` the node's session; an earlier one of it is told to end.
    ///
    /// Returns what is cancelled once this session must end.
    pub(crate) fn register(&self, node: &NodeId, number: u64, out: mpsc::Sender<Outbound>) -> CancellationToken {
        let over = CancellationToken::new();
        let entry = Entry { number, out, over: over.clone() };
        if let Some(earlier) = self.sessions.insert(node.clone(), entry) {
            earlier.over.cancel();
        }
        over
    }

    /// Notes that a greeting was saved: the node may be given work.
    pub(crate) fn arrived(&self) {
        self.arrivals.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Changes whenever an agent arrives.
    pub(crate) fn arrivals(&self) -> watch::Receiver<u64> {
        self.arrivals.subscribe()
    }

    /// Forgets a session, unless a later one has taken its place.
    pub(crate) fn unregister(&self, node: &NodeId, number: u64) {
        self.sessions.remove_if(node, |_, entry| entry.number == number);
    }

    /// Number of the node's session.
    pub(crate) fn session(&self, node: &NodeId) -> Option<u64> {
        self.sessions.get(node).map(|entry| entry.number)
    }

    /// Sends a hint, if the agent is connected and keeps up; never waits.
    pub(crate) fn tell(&self, node: &NodeId, message: v1::ControllerMessage) -> bool {
        self.sessions.get(node).is_some_and(|entry| entry.out.try_send(Box::new(Ok(message))).is_ok())
    }

    /// Ends all sessions: their agents begin anew.
    pub(crate) fn close_all(&self) {
        self.sessions.retain(|_, entry| {
            entry.over.cancel();
            false
        });
    }

    /// Number of connected agents.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.sessions.len()
    }
}
