//! One agent's stream of log bytes.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt as _;
use model::{AttemptId, NodeId, TaskState};
use planner::World;
use proto::v1;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{Chunk, Logs, Source, SourceName};
use crate::driver::Handle;

/// Largest piece, in bytes.
const LARGEST: usize = 1 << 20;
/// Pieces that share one flush.
const TOGETHER: usize = 16;
/// Attempts whose standing is remembered.
const REMEMBERED: usize = 10_000;

/// The receiving side of `PushLogs`.
pub(crate) struct Push {
    logs: Arc<Logs>,
    driver: Handle,
    node: NodeId,
    inbound: Option<Streaming<v1::LogChunk>>,
    out: mpsc::Sender<Result<v1::LogHeld, Status>>,
    known: HashMap<AttemptId, Seated>,
}

/// Whether a node has a seat in an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seated {
    Yes,
    No,
    /// The attempt is not known here: it is quarantined, and its logs stay where they are.
    Unknown,
}

impl Push {
    pub(crate) fn new(
        logs: Arc<Logs>,
        driver: Handle,
        node: NodeId,
        inbound: Streaming<v1::LogChunk>,
        out: mpsc::Sender<Result<v1::LogHeld, Status>>,
    ) -> Self {
        Self { logs, driver, node, inbound: Some(inbound), out, known: HashMap::new() }
    }

    /// Takes pieces until the agent closes the stream, or `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let Some(inbound) = self.inbound.take() else { return };
        let mut inbound = inbound.ready_chunks(TOGETHER);
        loop {
            let pieces = tokio::select! {
                biased; // stop wins
                () = stop.cancelled() => return self.end(Status::unavailable("the controller is stopping")),
                pieces = inbound.next() => pieces,
            };
            let Some(pieces) = pieces else { return };
            if let Err(status) = self.take(pieces).await {
                return self.end(status);
            }
        }
    }

    fn end(&self, status: Status) {
        tracing::info!(node = %self.node, reason = status.message(), "a stream of logs ends");
        // The agent may be gone already.
        let _ = self.out.try_send(Err(status));
    }

    async fn take(&mut self, pieces: Vec<Result<v1::LogChunk, Status>>) -> Result<(), Status> {
        let mut chunks = Vec::with_capacity(pieces.len());
        for piece in pieces {
            chunks.extend(self.check(piece?).await?);
        }
        let logs = self.logs.clone();
        let written = tokio::task::spawn_blocking(move || logs.append(chunks)).await;
        let held = written
            .map_err(|_| Status::internal("the log writer failed"))?
            .map_err(|error| Status::unavailable(format!("log bytes could not be saved: {error}")))?;
        for (source, offset) in held {
            let answer =
                v1::LogHeld { attempt: source.attempt.to_string(), source: source.name.as_str().to_owned(), offset };
            self.out.send(Ok(answer)).await.map_err(|_| Status::cancelled("the agent went"))?;
        }
        Ok(())
    }

    /// A piece that may be written, nothing for one of an unknown attempt.
    async fn check(&mut self, piece: v1::LogChunk) -> Result<Option<Chunk>, Status> {
        let malformed = |error: model::NameError| Status::invalid_argument(error.to_string());
        if piece.data.len() > LARGEST {
            let text = format!("a piece of {} bytes; at most {LARGEST} are taken", piece.data.len());
            return Err(Status::invalid_argument(text));
        }
        let attempt: AttemptId = piece.attempt.parse().map_err(malformed)?;
        let name = SourceName::new(&piece.source).map_err(malformed)?;
        match self.seated(&attempt).await? {
            Seated::Yes => {}
            Seated::No => {
                let text = format!("node `{}` has no seat in attempt `{attempt}`", self.node);
                return Err(Status::permission_denied(text));
            }
            Seated::Unknown => return Ok(None),
        }
        let source = Source { attempt, node: self.node.clone(), name };
        let (offset, data) = if piece.query { (0, Vec::new()) } else { (piece.offset, piece.data.into()) };
        Ok(Some(Chunk { source, offset, data, done: piece.done && !piece.query }))
    }

    async fn seated(&mut self, attempt: &AttemptId) -> Result<Seated, Status> {
        if let Some(known) = self.known.get(attempt) {
            return Ok(*known);
        }
        let (id, node) = (attempt.clone(), self.node.clone());
        let seated = self
            .driver
            .read(move |world| seated(world, &id, &node))
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        if seated != Seated::Unknown {
            self.known.insert(attempt.clone(), seated);
        }
        Ok(seated)
    }
}

fn seated(world: &World, id: &AttemptId, node: &NodeId) -> Seated {
    let find = || {
        let stage = world.jobs.get(&id.task.job)?.stages.iter().find(|stage| stage.name == id.task.stage)?;
        let task = stage.tasks.get(usize::try_from(id.task.index).ok()?)?;
        if let TaskState::Active(attempt) = &task.state
            && attempt.number == id.number
        {
            return Some(attempt.seats.iter().any(|seat| seat.node == *node));
        }
        let past = task.history.iter().find(|past| past.number == id.number)?;
        Some(past.nodes.contains(node))
    };
    match find() {
        Some(true) => Seated::Yes,
        Some(false) => Seated::No,
        None => Seated::Unknown,
    }
}
