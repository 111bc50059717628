//! Which checkpoint is meant, where it lies, and how what was asked of it is answered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures::future::join_all;
use model::{Epoch, JobId, NodeId, StageName};
use planner::{CheckpointRefusal, World};
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
    pub(super) stage: StageName,
    pub(super) view: v1::CheckpointView,
    /// What each node holds.
    pub(super) held: BTreeMap<NodeId, Vec<v1::CheckpointShard>>,
    /// The newest one of its stage that can be gone on from, if another one.
    pub(super) next: Option<u64>,
    workdir: String,
    save_dir: String,
    shared: bool,
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
        let stage = job.stages.iter().find(|stage| stage.name.as_str() == chosen.stage).ok_or_else(gone)?;
        // Relative paths of a spec are seen from its workdir; its components leave `.` out.
        let directory: PathBuf = Path::new(&job.runtime.workdir).join(&chosen.directory).components().collect();
        chosen.directory = directory.to_string_lossy().into_owned();
        let save_dir = stage.tasks.iter().find_map(|task| match &task.body {
            model::Body::Train(train) => Some(train.save_dir.clone()),
            model::Body::Preflight(_) | model::Body::Engine(_) | model::Body::Run { .. } => None,
        });
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
        let usable = stage.checkpoints.iter().rev().filter(|(_, checkpoint)| checkpoint.is_usable());
        let next = usable.map(|(at, _)| *at).find(|at| *at != chosen.iteration);
        Ok(Self {
            job: id,
            stage: stage.name.clone(),
            view: chosen,
            held,
            next,
            workdir: job.runtime.workdir.clone(),
            save_dir: save_dir.unwrap_or_default(),
            shared: job.runtime.shared_storage,
        })
    }

    /// Has every shard read by the node that wrote it; on shared storage by any node, where that one is not there.
    pub(super) async fn verify(&self, errands: &Errands, epoch: Epoch) -> Outcome {
        let others: Vec<NodeId> = self.held.keys().filter(|node| errands.can_ask(node)).cloned().collect();
        let sent = self.held.iter().map(|(node, shards)| {
            let stand_in = others.first().filter(|_| self.shared && !errands.can_ask(node));
            let what = v1::checkpoint_order::What::Verify(v1::VerifyShards {});
            self.send(errands, epoch, stand_in.unwrap_or(node), shards.clone(), what)
        });
        Outcome::of(join_all(sent).await)
    }

    /// Has the files removed on each node that holds some; on shared storage by one of them.
    pub(super) async fn remove(&self, errands: &Errands, epoch: Epoch) -> Outcome {
        let what = v1::checkpoint_order::What::Remove(v1::RemoveIteration { tracker: self.next });
        let mut nodes: Vec<&NodeId> = self.held.keys().collect();
        if self.shared {
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
            save_dir: self.save_dir.clone(),
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
                    "the checkpoint of iteration {iteration} is the newest of a job that has not ended, or is in use"
                ),
                format!("wait until a newer one is complete (qctl ckpt ls {job}), or use --force"),
            ),
        };
        refuse(Code::FailedPrecondition, message, Some(hint))
    }
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
