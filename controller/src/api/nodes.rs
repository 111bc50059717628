//! The `Nodes` service.

use std::sync::Arc;

use model::NodeId;
use planner::{Input, Reply};
use proto::v1;
use proto::v1::nodes_server::Nodes as Service;
use tonic::{Code, Request, Response, Status};

use super::nearest::did_you_mean;
use super::{peer, refuse};
use crate::access::Call;
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
    async fn list(&self, _: Request<v1::ListNodesRequest>) -> Result<Response<v1::ListNodesReply>, Status> {
        let progress = self.progress.clone();
        let nodes = self.driver.read(move |world| view::nodes(world, &progress)).await?;
        Ok(Response::new(v1::ListNodesReply { nodes }))
    }
    async fn cordon(&self, request: Request<v1::CordonRequest>) -> Result<Response<v1::NodeReply>, Status> {
        let call = peer::call(&request)?;
        let by = call.caller()?.name.clone();
        let v1::CordonRequest { node, reason } = request.into_inner();
        let node = self.known(&call, &node).await?;
        let reason = bounded(&reason);
        self.change(node.clone(), "cordoned", Input::Cordon { node, by, reason }).await
    }

    async fn uncordon(&self, request: Request<v1::UncordonRequest>) -> Result<Response<v1::NodeReply>, Status> {
        let call = peer::call(&request)?;
        let by = call.caller()?.name.clone();
        let node = self.known(&call, &request.get_ref().node).await?;
        self.change(node.clone(), "uncordoned", Input::Uncordon { node, by }).await
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::NodeReply>, Status> {
        let call = peer::call(&request)?;
        let by = call.caller()?.name.clone();
        let v1::DrainRequest { node, reason, deadline_ms } = request.into_inner();
        let node = self.known(&call, &node).await?;
        let reason = bounded(&reason);
        let deadline_ms = deadline_ms.map(|millis| millis.min(LONGEST_DEADLINE));
        self.change(node.clone(), "draining", Input::Drain { node, by, reason, deadline_ms }).await
    }

    async fn fence(&self, request: Request<v1::FenceRequest>) -> Result<Response<v1::NodeReply>, Status> {
        let call = peer::call(&request)?;
        let by = call.caller()?.name.clone();
        let v1::FenceRequest { node, reason } = request.into_inner();
        let node = self.known(&call, &node).await?;
        let reason = bounded(&reason);
        self.change(node.clone(), "fenced", Input::Fence { node, by, reason }).await
    }

    async fn spare(&self, request: Request<v1::SpareRequest>) -> Result<Response<v1::NodeReply>, Status> {
        let call = peer::call(&request)?;
        let by = call.caller()?.name.clone();
        let v1::SpareRequest { node, spare } = request.into_inner();
        let node = self.known(&call, &node).await?;
        let done = if spare { "spare" } else { "in-service" };
        self.change(node.clone(), done, Input::Spare { node, by, spare }).await
    }
}

impl Nodes {
    /// The node that a word names.
    async fn known(&self, call: &Call, word: &str) -> Result<NodeId, Status> {
        call.about(word);
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
        let outcome = match self.driver.step(input).await?.reply {
            Some(Reply::NodeChanged) => done,
            Some(Reply::NodeUnchanged) => "unchanged",
            Some(Reply::NotSilent { heard, silent_ms }) => return Err(not_silent(&node, heard, silent_ms)),
            Some(Reply::NoSuchNode) => return Err(Status::not_found(format!("node `{node}` is gone"))),
            Some(_) | None => return Err(Status::internal("the request was not answered")),
        };
        let progress = self.progress.clone();
        let views = self.driver.read(move |world| view::nodes(world, &progress)).await?;
        let node = views.into_iter().find(|view| view.id == node.as_str());
        Ok(Response::new(v1::NodeReply { outcome: outcome.to_owned(), node }))
    }
}

/// Refuses to believe that a node which may speak in a moment is dead.
fn not_silent(node: &NodeId, heard: bool, silent_ms: u64) -> Status {
    let ago = silent_ms / 1_000;
    let (message, hint) = if heard {
        let message = format!("node `{node}` spoke {ago} s ago, and can be told to stop what it runs");
        (message, format!("empty it: qctl drain {node} --deadline 0s; if it was just switched off, ask again in 10 s"))
    } else {
        let message = format!("this controller leads for {ago} s, and node `{node}` may speak in a moment");
        (message, "ask again in 10 s".to_owned())
    };
    refuse(Code::FailedPrecondition, message, Some(hint))
}

fn bounded(reason: &str) -> String {
    reason.chars().take(1000).collect()
}
