//! Questions to agents about files that only they may see.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use model::NodeId;
use proto::v1;
use tokio::sync::oneshot;

use super::Registry;

/// How long an agent may take to answer.
const LIMIT: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SurveyFailed {
    /// It is not connected, or its queue is full.
    #[error("node `{0}` cannot be asked")]
    Unreachable(NodeId),
    /// It did not answer in time, or its session ended.
    #[error("node `{0}` did not answer within 60 s, or went")]
    NoAnswer(NodeId),
}

/// Questions under way. Clones share them.
#[derive(Clone, Debug)]
pub struct Surveys {
    agents: Arc<Registry>,
    next: Arc<AtomicU64>,
    open: Arc<DashMap<u64, Question>>,
}

/// A question, by its id; whoever drops it gives it up.
#[derive(Debug)]
struct Question {
    node: NodeId,
    session: u64,
    sender: oneshot::Sender<v1::SurveyAnswer>,
}

impl Surveys {
    /// Asks through the sessions of `agents`.
    #[must_use]
    pub fn new(agents: Arc<Registry>) -> Self {
        Self { agents, next: Arc::default(), open: Arc::default() }
    }

    /// Asks one agent; the request's id is chosen here.
    ///
    /// # Errors
    ///
    /// [`SurveyFailed`] if it cannot be asked or does not answer.
    pub async fn ask(&self, node: &NodeId, mut request: v1::SurveyRequest) -> Result<v1::SurveyAnswer, SurveyFailed> {
        request.id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let id = request.id;
        let (sender, answer) = oneshot::channel();
        let session = self.agents.session(node).ok_or_else(|| SurveyFailed::Unreachable(node.clone()))?;
        self.open.insert(id, Question { node: node.clone(), session, sender });
        let message = v1::ControllerMessage { kind: Some(v1::controller_message::Kind::Survey(request)) };
        let outcome = if self.agents.tell(node, message) {
            let waited = tokio::time::timeout(LIMIT, answer).await;
            waited.ok().and_then(Result::ok).ok_or_else(|| SurveyFailed::NoAnswer(node.clone()))
        } else {
            Err(SurveyFailed::Unreachable(node.clone()))
        };
        self.open.remove(&id);
        outcome
    }

    /// Takes an answer; only the node that was asked may give it.
    pub(crate) fn answer(&self, node: &NodeId, answer: v1::SurveyAnswer) {
        if let Some((_, question)) = self.open.remove_if(&answer.id, |_, question| question.node == *node) {
            // The asker may have given up.
            let _ = question.sender.send(answer);
        }
    }

    /// Gives up what was asked through a session that ended; a later one of the node keeps its own questions.
    pub(crate) fn give_up(&self, node: &NodeId, session: u64) {
        self.open.retain(|_, question| question.node != *node || question.session > session);
    }
}
