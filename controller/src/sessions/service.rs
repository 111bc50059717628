//! The `Agents` service: sessions and pushed logs.

use std::sync::Arc;

use futures::stream::{Map, StreamExt as _};
use model::NodeId;
use proto::v1;
use proto::v1::agents_server::Agents;
use runtime::Tasks;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::registry::Outbound;
use super::session::Session;
use super::{Errands, Progress, Registry, Surveys};
use crate::api::peer;
use crate::changes::Changes;
use crate::driver::Handle;
use crate::logs::{Logs, push};

/// Messages that may wait for one agent; hints beyond it are dropped.
const OUTBOUND: usize = 1024;

/// The server side of all agents' streams.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// The driver.
    pub driver: Handle,
    /// Who is connected.
    pub agents: Arc<Registry>,
    /// How far seats are.
    pub progress: Arc<Progress>,
    /// Questions under way.
    pub surveys: Surveys,
    /// What agents do with checkpoints.
    pub errands: Errands,
    /// Who watches which job.
    pub changes: Arc<Changes>,
    /// Log files.
    pub logs: Arc<Logs>,
    /// Owner of the sessions' tasks.
    pub tasks: Tasks,
}

#[tonic::async_trait]
impl Agents for Sessions {
    type SessionStream = Map<ReceiverStream<Outbound>, fn(Outbound) -> Result<v1::ControllerMessage, Status>>;
    type PushLogsStream = ReceiverStream<Result<v1::LogHeld, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (node, call) = (agent(&request)?, peer::call(&request)?);
        self.driver.leads()?;
        let (out, outbound) = mpsc::channel(OUTBOUND);
        let session = Session::new(self.clone(), node, call, request.into_inner(), out);
        self.tasks.spawn("session", session.run(self.tasks.stop_token()));
        Ok(Response::new(ReceiverStream::new(outbound).map(|boxed| *boxed)))
    }

    async fn push_logs(
        &self,
        request: Request<Streaming<v1::LogChunk>>,
    ) -> Result<Response<Self::PushLogsStream>, Status> {
        let node = agent(&request)?;
        self.driver.leads()?;
        let (out, outbound) = mpsc::channel(OUTBOUND);
        let push = push::Push::new(self.logs.clone(), self.driver.clone(), node, request.into_inner(), out);
        self.tasks.spawn("log push", push.run(self.tasks.stop_token()));
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

/// The node that the caller's certificate names.
fn agent<T>(request: &Request<T>) -> Result<NodeId, Status> {
    let name = peer::name(request)?;
    NodeId::new(name).map_err(|error| Status::permission_denied(error.to_string()))
}
