//! Errands that agents do with the checkpoints on their nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use model::NodeId;
use proto::v1;
use tokio::sync::oneshot;

use super::Registry;

/// How long an errand may take: reading a large checkpoint takes its time.
const LIMIT: Duration = Duration::from_secs(6 * 3600);

/// Faults of one answer that are taken.
const FAULTS: usize = 64;
/// Longest text of a fault, in characters.
const LONGEST: usize = 4096;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErrandFailed {
    /// It is not connected, or its queue is full.
    #[error("node `{0}` cannot be asked: its agent is not connected")]
    Unreachable(NodeId),
    /// Its session ended, or it did not answer for hours.
    #[error("node `{0}` went before it answered")]
    NoAnswer(NodeId),
}

/// Errands under way. Clones share them.
#[derive(Clone, Debug)]
pub struct Errands {
    agents: Arc<Registry>,
    next: Arc<AtomicU64>,
    open: Arc<DashMap<u64, Errand>>,
}

/// An errand, by its id; whoever drops it gives it up.
#[derive(Debug)]
struct Errand {
    node: NodeId,
    session: u64,
    sender: oneshot::Sender<v1::CheckpointAnswer>,
}

/// Takes an errand out of the table however its asker ends.
struct Open<'a>(&'a Errands, u64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.remove(&self.1);
    }
}

impl Errands {
    /// Asks through the sessions of `agents`.
    #[must_use]
    pub fn new(agents: Arc<Registry>) -> Self {
        // An agent may still answer what an earlier controller asked: no number is ever given twice.
        let next = Arc::new(AtomicU64::new(rand::random::<u64>() >> 1));
        Self { agents, next, open: Arc::default() }
    }

    /// Whether the node's agent is connected.
    pub(crate) fn can_ask(&self, node: &NodeId) -> bool {
        self.agents.session(node).is_some()
    }

    /// Sends one agent; the order's id is chosen here.
    ///
    /// # Errors
    ///
    /// [`ErrandFailed`] if it cannot be sent or does not come back.
    pub async fn send(
        &self,
        node: &NodeId,
        mut order: v1::CheckpointOrder,
    ) -> Result<v1::CheckpointAnswer, ErrandFailed> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        order.id = id;
        let (sender, answer) = oneshot::channel();
        let session = self.agents.session(node).ok_or_else(|| ErrandFailed::Unreachable(node.clone()))?;
        self.open.insert(id, Errand { node: node.clone(), session, sender });
        let _open = Open(self, id);
        let message = v1::ControllerMessage { kind: Some(v1::controller_message::Kind::Checkpoint(order)) };
        if !self.agents.tell(node, message) {
            return Err(ErrandFailed::Unreachable(node.clone()));
        }
        let waited = tokio::time::timeout(LIMIT, answer).await;
        waited.ok().and_then(Result::ok).ok_or_else(|| ErrandFailed::NoAnswer(node.clone()))
    }

    /// Takes an answer; only the node that was sent may give it, and it speaks for itself alone.
    pub(crate) fn answer(&self, node: &NodeId, mut answer: v1::CheckpointAnswer) {
        answer.faults.truncate(FAULTS);
        for fault in &mut answer.faults {
            fault.node = node.to_string();
            for text in [&mut fault.path, &mut fault.message, &mut fault.hint] {
                *text = text.chars().take(LONGEST).collect();
            }
        }
        if let Some((_, errand)) = self.open.remove_if(&answer.id, |_, errand| errand.node == *node) {
            // The asker may have given up.
            let _ = errand.sender.send(answer);
        }
    }

    /// Gives up what was asked through a session that ended; a later one of the node keeps its own errands.
    pub(crate) fn give_up(&self, node: &NodeId, session: u64) {
        self.open.retain(|_, errand| errand.node != *node || errand.session > session);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_its_own_node_s_and_speaks_for_it_alone() {
        let agents = Arc::new(Registry::default());
        let errands = Errands::new(agents.clone());
        let [ours, other] = ["n1", "n2"].map(|name| NodeId::new(name).unwrap());
        let away = errands.send(&ours, v1::CheckpointOrder::default()).await;
        assert_eq!(away.unwrap_err(), ErrandFailed::Unreachable(ours.clone()));
        let (out, mut orders) = mpsc::channel(1);
        let _over = agents.register(&ours, 7, out);
        let asked =
            |errands: Errands, node: NodeId| async move { errands.send(&node, v1::CheckpointOrder::default()).await };
        let mut asking = std::pin::pin!(asked(errands.clone(), ours.clone()));
        assert!(futures::poll!(asking.as_mut()).is_pending());
        let Ok(v1::ControllerMessage { kind: Some(v1::controller_message::Kind::Checkpoint(order)) }) =
            *orders.recv().await.unwrap()
        else {
            panic!("another order");
        };
        let fault = v1::CheckpointFault { node: "n2".into(), message: "x".repeat(9_000), ..Default::default() };
        let answer = v1::CheckpointAnswer { id: order.id, faults: vec![fault; 100], bytes: 3 };
        errands.answer(&other, answer.clone());
        assert!(futures::poll!(asking.as_mut()).is_pending(), "another node's word is no answer");
        errands.answer(&ours, answer);
        let heard = asking.await.unwrap();
        assert_eq!((heard.faults.len(), heard.bytes), (FAULTS, 3));
        assert!(heard.faults.iter().all(|fault| fault.node == "n1" && fault.message.len() == LONGEST));
        let mut asking = std::pin::pin!(asked(errands.clone(), ours.clone()));
        assert!(futures::poll!(asking.as_mut()).is_pending());
        errands.give_up(&ours, 7);
        assert_eq!(asking.await.unwrap_err(), ErrandFailed::NoAnswer(ours));
        assert!(errands.open.is_empty());
    }

    #[test]
    fn an_earlier_controller_s_errand_has_another_number() {
        let numbers = [(); 2].map(|()| Errands::new(Arc::default()).next.load(Ordering::Relaxed));
        assert!(numbers[0].abs_diff(numbers[1]) > 1 << 20, "{numbers:?}");
    }
}
