//! Which checkpoint is meant, where it lies, and how what was asked of it is answered.

use std::collections::BTreeMap;

use futures::future::join_all;
use model::{Epoch, Job, JobId, NodeId, StageName, Timestamp};
use planner::{CheckpointRefusal, Files, World};
use proto::v1;
use tonic::{Code, Status};

use super::refuse;
use super::resolve::resolve;
use crate::sessions::Errands;
use crate::view;

/// A checkpoint, and all that its nodes must be told.
#[derive(Clone, Debug)]
pub(super) struct Meant {
    pub(super) job: JobId,
    /// Whose job that is.
    pub(super) owner: String,
    pub(super) stage: StageName,
    pub(super) view: v1::CheckpointView,
    /// What each node holds.
    pub(super) held: BTreeMap<NodeId, Vec<v1::CheckpointShard>>,
    /// When it was completed last, by whichever stage trained there.
    pub(super) written: Option<Timestamp>,
    /// The newest other one there that can be gone on from.
    next: Option<u64>,
    workdir: String,
    files: Files,
}

impl Meant {
    /// The checkpoint that a request means. Without a number the newest complete one is meant.
    pub(super) fn find(world: &World, request: &v1::CheckpointRequest) -> Result<Self, Status> {
        let id = resolve(world, &request.job)?;
        let gone = || Status::not_found(format!("job `{id}` is gone"));
        let job = world.jobs.get(&id).ok_or_else(gone)?;
        let mut views = view::checkpoints(world, Some(&id));
        views.retain(|view| request.stage.is_empty() || view.stage == request.stage);
        let complete = || views.iter().filter(|view| view.complete);
        let chosen = match request.iteration {
            None => complete().max_by_key(|view| (view.completed_ms, view.iteration)),
            Some(number) => views.iter().rev().find(|view| view.iteration == number),
        };
        let mut chosen = chosen.cloned().ok_or_else(|| {
            let what = request.iteration.map_or_else(
                || "no complete checkpoint".to_owned(),
                |number| format!("no checkpoint of iteration {number}"),
            );
            let held: Vec<String> = complete().rev().take(8).map(|view| view.iteration.to_string()).collect();
            let hint = if held.is_empty() {
                format!("see what was written so far: qctl ckpt ls {}", job.id)
            } else {
                format!("complete are {}: qctl ckpt ls {}", held.join(", "), job.id)
            };
            refuse(Code::NotFound, format!("job `{}` has {what}", job.name), Some(hint))
        })?;
        let at = job.stages.iter().position(|stage| stage.name.as_str() == chosen.stage).ok_or_else(gone)?;
        let stage = &job.stages[at];
        let files = Files::of(job, stage, chosen.iteration).ok_or_else(|| nowhere(job, &chosen))?;
        chosen.directory = files.directory(chosen.iteration).to_string_lossy().into_owned();
        let mut held: BTreeMap<NodeId, Vec<v1::CheckpointShard>> = BTreeMap::new();
        let checkpoint = stage.checkpoints.get(&chosen.iteration).ok_or_else(gone)?;
        for ((tp, pp), shard) in &checkpoint.shards {
            held.entry(shard.node.clone()).or_default().push(v1::CheckpointShard {
                iteration: chosen.iteration,
                tp: *tp,
                pp: *pp,
                path: shard.path.clone(),
                size: shard.size,
            });
        }
        Ok(Self {
            owner: job.owner.clone(),
            stage: stage.name.clone(),
            next: files.next(world, chosen.iteration),
            written: planner::written(world, &id, at, chosen.iteration),
            view: chosen,
            held,
            workdir: job.runtime.workdir.clone(),
            files,
            job: id,
        })
    }

    /// Has every shard read by the node that wrote it; on shared storage by any node, where that one is not there.
    pub(super) async fn verify(&self, errands: &Errands, epoch: Epoch) -> Outcome {
        let others: Vec<NodeId> = self.held.keys().filter(|node| errands.can_ask(node)).cloned().collect();
        let sent = self.held.iter().map(|(node, shards)| {
            let stand_in = others.first().filter(|_| self.files.shared && !errands.can_ask(node));
            let what = v1::checkpoint_order::What::Verify(v1::VerifyShards {});
            self.send(errands, epoch, stand_in.unwrap_or(node), shards.clone(), what)
        });
        Outcome::of(join_all(sent).await)
    }

    /// Refuses a removal that no node could be asked for.
    pub(super) fn check_nodes(&self) -> Result<(), Status> {
        if !self.files.nodes.is_empty() {
            return Ok(());
        }
        let message =
            format!("nobody knows which node holds iteration {}: none has reported a shard", self.view.iteration);
        let hint = format!("look for `{}` on the nodes, and remove it there", self.view.directory);
        Err(refuse(Code::FailedPrecondition, message, Some(hint)))
    }

    /// Has the files removed on each node that may hold some; on shared storage by one of them.
    pub(super) async fn remove(&self, errands: &Errands, epoch: Epoch) -> Outcome {
        let what = v1::checkpoint_order::What::Remove(v1::RemoveIteration { tracker: self.next });
        let mut nodes: Vec<&NodeId> = self.files.nodes.iter().collect();
        if self.files.shared {
            let first = nodes.iter().position(|node| errands.can_ask(node)).unwrap_or_default();
            nodes = nodes.into_iter().skip(first).take(1).collect();
        }
        let sent = nodes.into_iter().map(|node| self.send(errands, epoch, node, Vec::new(), what));
        Outcome::of(join_all(sent).await)
    }

    async fn send(
        &self,
        errands: &Errands,
        epoch: Epoch,
        node: &NodeId,
        shards: Vec<v1::CheckpointShard>,
        what: v1::checkpoint_order::What,
    ) -> Answered {
        let order = v1::CheckpointOrder {
            epoch: Some(epoch.into()),
            id: 0,
            workdir: self.workdir.clone(),
            save_dir: self.files.save_dir.to_string_lossy().into_owned(),
            iteration: self.view.iteration,
            shards,
            what: Some(what),
        };
        let failed = |error: crate::sessions::ErrandFailed| v1::CheckpointFault {
            node: node.to_string(),
            path: String::new(),
            message: error.to_string(),
            hint: format!("see whether it runs: qctl nodes {node}"),
            unread: true,
        };
        (node.clone(), errands.send(node, order).await.map_err(failed))
    }

    /// The refusal, in the user's words.
    pub(super) fn refused(&self, refusal: &CheckpointRefusal) -> Status {
        let iteration = self.view.iteration;
        let (message, hint) = match refusal {
            CheckpointRefusal::NoSuch { complete } => {
                let held: Vec<String> = complete.iter().take(8).map(u64::to_string).collect();
                let hint = format!("complete are {}", if held.is_empty() { "none".into() } else { held.join(", ") });
                return refuse(Code::NotFound, format!("there is no checkpoint of iteration {iteration}"), Some(hint));
            }
            CheckpointRefusal::Unusable => (
                format!("the checkpoint of iteration {iteration} is not complete, is broken or is being removed"),
                format!("see which are complete: qctl ckpt ls {}", self.job),
            ),
            CheckpointRefusal::TooManyPinned { shards } => (
                format!("the pinned checkpoints of this stage would have more than {shards} shards"),
                format!("copy some away (qctl ckpt pull) and unpin them: qctl ckpt unpin {} ITERATION", self.job),
            ),
            CheckpointRefusal::Pinned { job } => (
                format!("the checkpoint of iteration {iteration} is pinned"),
                format!("if it may go: qctl ckpt unpin {job} {iteration}"),
            ),
            CheckpointRefusal::Needed { job } => (
                format!(
                    "the checkpoint of iteration {iteration} is the newest of a job that has not ended, or is in use \
                     or being written"
                ),
                format!("wait until a newer one is complete (qctl ckpt ls {job}), or use --force"),
            ),
        };
        refuse(Code::FailedPrecondition, message, Some(hint))
    }

    /// A trainer has begun to write it while something was done with it.
    pub(super) fn written_anew(&self, what: &str, hint: &str) -> Status {
        let message = format!("the checkpoint of iteration {} {what}", self.view.iteration);
        refuse(Code::FailedPrecondition, message, Some(format!("{hint} {} {}", self.job, self.view.iteration)))
    }
}

/// The stage that wrote it names no directory.
fn nowhere(job: &Job, chosen: &v1::CheckpointView) -> Status {
    let message = format!("stage `{}` names no directory of checkpoints", chosen.stage);
    refuse(Code::FailedPrecondition, message, Some(format!("see what it wrote: qctl ckpt ls {}", job.id)))
}

type Answered = (NodeId, Result<v1::CheckpointAnswer, v1::CheckpointFault>);

/// What came of the errands.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What the nodes that answered found.
    pub(super) faults: Vec<v1::CheckpointFault>,
    /// Nodes that did not answer.
    pub(super) silent: Vec<v1::CheckpointFault>,
    pub(super) bytes: u64,
    /// Nodes that answered.
    pub(super) nodes: Vec<String>,
}

impl Outcome {
    fn of(all: Vec<Answered>) -> Self {
        let mut outcome = Self::default();
        for (node, answered) in all {
            match answered {
                Ok(answer) => {
                    outcome.faults.extend(answer.faults);
                    outcome.bytes = outcome.bytes.saturating_add(answer.bytes);
                    outcome.nodes.push(node.to_string());
                }
                Err(fault) => outcome.silent.push(fault),
            }
        }
        outcome.nodes.sort_unstable();
        outcome.nodes.dedup();
        outcome
    }
}
