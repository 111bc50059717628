//! `qctl ckpt pin`, `qctl ckpt unpin` and `qctl ckpt rm`.

use proto::v1;
use serde::Serialize;

use super::faults::{Fault, say_all};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Format, print_json, print_line, print_yaml};
use crate::text::{bytes, one_line, program};
use crate::view::{Checkpoint, Document};

/// What became of a pin.
#[derive(Debug, Serialize)]
struct Pinned {
    /// pinned, unpinned, unchanged
    outcome: String,
    checkpoint: Checkpoint,
}

/// What was removed.
#[derive(Debug, Serialize)]
struct Removed {
    /// removed, partly
    outcome: String,
    checkpoint: Checkpoint,
    bytes: u64,
    nodes: Vec<String>,
    faults: Vec<Fault>,
}

/// Keeps a checkpoint from being removed, or lets it go.
pub(super) async fn pin(
    job: &str,
    iteration: u64,
    pinned: bool,
    output: Format,
    mut client: Client,
) -> Result<(), Failure> {
    let request = v1::PinCheckpointRequest { checkpoint: Some(meant(job, iteration)), pinned };
    let v1::CheckpointReply { outcome, checkpoint } = client.checkpoints.pin(request).await?.into_inner();
    let document = Pinned { outcome, checkpoint: checkpoint.unwrap_or_default().into() };
    match output {
        Format::Json => print_json(&Document::new(document)),
        Format::Yaml => print_yaml(&Document::new(document)),
        Format::Name => print_line(&iteration.to_string()),
        Format::Table | Format::Wide => print_line(&one_line(&format!("{job} {iteration} {}", document.outcome))),
    }
}

/// Removes a checkpoint's files on the nodes that hold them.
pub(super) async fn remove(
    job: &str,
    iteration: u64,
    force: bool,
    output: Format,
    mut client: Client,
) -> Result<(), Failure> {
    let request = v1::DeleteCheckpointRequest { checkpoint: Some(meant(job, iteration)), force };
    let reply = client.checkpoints.delete(request).await?.into_inner();
    let whole = reply.outcome == "removed";
    let freed = bytes(reply.bytes);
    let document = Removed {
        outcome: reply.outcome,
        checkpoint: reply.checkpoint.unwrap_or_default().into(),
        bytes: reply.bytes,
        nodes: reply.nodes,
        faults: reply.faults.iter().cloned().map(Into::into).collect(),
    };
    match output {
        Format::Json => print_json(&Document::new(&document))?,
        Format::Yaml => print_yaml(&Document::new(&document))?,
        Format::Name if whole => print_line(&iteration.to_string())?,
        Format::Name => {}
        Format::Table | Format::Wide if whole => print_line(&one_line(&format!("{job} {iteration} removed: {freed}")))?,
        Format::Table | Format::Wide => {}
    }
    if whole {
        return Ok(());
    }
    say_all(&reply.faults);
    let message =
        format!("the checkpoint of iteration {iteration} is out of use, but not all of its files are removed");
    Err(Failure::new(Exit::Failed, message).hint(format!("go on later: {} ckpt rm {job} {iteration}", program())))
}

fn meant(job: &str, iteration: u64) -> v1::CheckpointRequest {
    v1::CheckpointRequest { job: job.to_owned(), iteration: Some(iteration), stage: String::new() }
}

#[cfg(test)]
pub(super) fn examples() -> [(&'static str, serde_json::Value); 3] {
    let checkpoint = || v1::CheckpointView::default().into();
    let pinned = |outcome: &str| {
        let document = Document::new(Pinned { outcome: outcome.to_owned(), checkpoint: checkpoint() });
        serde_json::to_value(document).unwrap_or_default()
    };
    let removed = Removed {
        outcome: "partly".into(),
        checkpoint: checkpoint(),
        bytes: 1,
        nodes: vec!["n".into()],
        faults: vec![v1::CheckpointFault::default().into()],
    };
    let removed = serde_json::to_value(Document::new(removed)).unwrap_or_default();
    [("qctl ckpt pin", pinned("pinned")), ("qctl ckpt unpin", pinned("unpinned")), ("qctl ckpt rm", removed)]
}
