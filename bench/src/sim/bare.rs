//! A server that greets and answers beats, and does nothing else: what the
//! wire alone costs.

use std::path::Path;

use proto::v1;
use proto::v1::agents_server::{Agents, AgentsServer};
use runtime::Tasks;
use runtime::tls::{ClientAuth, Identity, server_tls};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use v1::agent_message::Kind as Said;
use v1::controller_message::Kind as Told;

/// The word that makes this program the server.
pub(crate) const SERVER: &str = "bare-server";
/// The name of its process.
pub(crate) const NAME: &str = "qctl-bench";

type Answers = mpsc::Sender<Result<v1::ControllerMessage, Status>>;

#[derive(Debug)]
struct Bare {
    sessions: Tasks,
}

/// Serves until it is killed.
pub(crate) fn serve(identity: &Path, port_file: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let identity = Identity::load(identity)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        runtime::files::write_durably(port_file, listener.local_addr()?.to_string().as_bytes())?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = Server::builder().tls_config(server_tls(&identity, ClientAuth::Optional))?;
        let mut server = server.max_concurrent_streams(1024);
        Ok(server.add_service(AgentsServer::new(Bare { sessions: Tasks::new() })).serve_with_incoming(incoming).await?)
    })
}

#[tonic::async_trait]
impl Agents for Bare {
    type SessionStream = ReceiverStream<Result<v1::ControllerMessage, Status>>;
    type PushLogsStream = ReceiverStream<Result<v1::LogHeld, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (out, outbound) = mpsc::channel(1024);
        self.sessions.spawn("session", talk(request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(outbound)))
    }

    async fn push_logs(&self, _: Request<Streaming<v1::LogChunk>>) -> Result<Response<Self::PushLogsStream>, Status> {
        Err(Status::unimplemented("this server takes no logs"))
    }
}

async fn talk(mut inbound: Streaming<v1::AgentMessage>, out: Answers) {
    while let Ok(Some(message)) = inbound.message().await {
        let answer = match message.kind {
            Some(Said::Hello(_)) => Told::Welcome(v1::Welcome { epoch: None, beat_interval_ms: 1000 }),
            Some(Said::Beat(beat)) => Told::BeatAck(v1::BeatAck { seq: beat.seq, epoch: None }),
            Some(_) | None => continue,
        };
        if out.send(Ok(v1::ControllerMessage { kind: Some(answer) })).await.is_err() {
            return;
        }
    }
}
