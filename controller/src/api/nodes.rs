//! The `Nodes` service.

use std::sync::Arc;

use model::NodeId;
use planner::{Input, Reply};
use proto::v1;
use proto::v1::nodes_server::Nodes as Service;
use tonic::{Code, Request, Response, Status};

use super::nearest::did_you_mean;
use super::{peer, refuse};
use crate::driver::Handle;
use crate::sessions::Progress;
use crate::view;

/// Longest deadline of a drain: a year.
const LONGEST_DEADLINE: u64 = 31_536_000_000;

/// Listing nodes, and setting them aside.
#[derive(Clone, Debug)]
pub struct Nodes {
    /// The driver.
    pub driver: Handle,
    /// Health of nodes.
    pub progress: Arc<Progress>,
}

#[tonic::async_trait]
impl Service for Nodes {
    async fn list(&self, request: Request<v1::ListNodesRequest>) -> Result<Response<v1::ListNodesReply>, Status> {
        peer::user(&request)?;
        let progress = self.progress.clone();
        let nodes = self.driver.read(move |world| view::nodes(world, &progress)).await?;
        Ok(Response::new(v1::ListNodesReply { nodes }))
    }
    async fn cordon(&self, request: Request<v1::CordonRequest>) -> Result<Response<v1::NodeReply>, Status> {
        let by = peer::user(&request)?;
        let v1::CordonRequest { node, reason } = request.into_inner();
        let node = self.known(&node).await?;
        let reason = bounded(&reason);
        self.change(node.clone(), "cordoned", Input::Cordon { node, by, reason }).await
    }

    async fn uncordon(&self, request: Request<v1::UncordonRequest>) -> Result<Response<v1::NodeReply>, Status> {
        let by = peer::user(&request)?;
        let node = self.known(&request.get_ref().node).await?;
        self.change(node.clone(), "uncordoned", Input::Uncordon { node, by }).await
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::NodeReply>, Status> {
        let by = peer::user(&request)?;
        let v1::DrainRequest { node, reason, deadline_ms } = request.into_inner();
        let node = self.known(&node).await?;
        let reason = bounded(&reason);
        let deadline_ms = deadline_ms.map(|millis| millis.min(LONGEST_DEADLINE));
        self.change(node.clone(), "draining", Input::Drain { node, by, reason, deadline_ms }).await
    }
}

impl Nodes {
    /// The node that a word names.
    async fn known(&self, word: &str) -> Result<NodeId, Status> {
        let word = word.to_owned();
        let look = move |world: &planner::World| {
            if let Some(node) = NodeId::new(word.as_str()).ok().filter(|node| world.nodes.contains_key(node)) {
                return Ok(node);
            }
            let nodes = world.nodes.keys().map(NodeId::as_str);
            let hint = did_you_mean(&word, nodes, "the nodes that have joined: qctl nodes");
            Err(refuse(Code::NotFound, format!("there is no node `{word}`"), Some(hint)))
        };
        self.driver.read(look).await?
    }

    async fn change(&self, node: NodeId, done: &str, input: Input) -> Result<Response<v1::NodeReply>, Status> {
        tracing::info!(%node, verb = done, ?input, "audit");
        let outcome = match self.driver.step(input).await?.reply {
            Some(Reply::NodeChanged) => done,
            Some(Reply::NodeUnchanged) => "unchanged",
            Some(Reply::NoSuchNode) => return Err(Status::not_found(format!("node `{node}` is gone"))),
            Some(_) | None => return Err(Status::internal("the request was not answered")),
        };
        let progress = self.progress.clone();
        let views = self.driver.read(move |world| view::nodes(world, &progress)).await?;
        let node = views.into_iter().find(|view| view.id == node.as_str());
        Ok(Response::new(v1::NodeReply { outcome: outcome.to_owned(), node }))
    }
}

fn bounded(reason: &str) -> String {
    reason.chars().take(1000).collect()
}
