//! The `Checkpoints` service.

use model::NodeId;
use planner::{AboutCheckpoint, Input, Keep, Reply};
use proto::v1;
use proto::v1::checkpoints_server::Checkpoints as Service;
use tonic::{Request, Response, Status};

use super::keeping::Meant;
use super::peer;
use super::resolve::resolve;
use crate::access::Call;
use crate::driver::Handle;
use crate::sessions::Errands;
use crate::view;

/// Listing, verifying, pinning and removing checkpoints.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    /// The driver.
    pub driver: Handle,
    /// What agents do with the files.
    pub errands: Errands,
}

#[tonic::async_trait]
impl Service for Checkpoints {
    async fn list(
        &self,
        request: Request<v1::ListCheckpointsRequest>,
    ) -> Result<Response<v1::ListCheckpointsReply>, Status> {
        let word = request.into_inner().job;
        let look = move |world: &planner::World| {
            let wanted = if word.is_empty() { None } else { Some(resolve(world, &word)?) };
            Ok::<_, Status>(view::checkpoints(world, wanted.as_ref()))
        };
        let checkpoints = self.driver.read(look).await??;
        Ok(Response::new(v1::ListCheckpointsReply { checkpoints }))
    }

    async fn verify(
        &self,
        request: Request<v1::CheckpointRequest>,
    ) -> Result<Response<v1::VerifyCheckpointReply>, Status> {
        let call = peer::call(&request)?;
        let request = request.into_inner();
        let (meant, by) = self.touched(&call, &request).await?;
        let found = meant.verify(&self.errands, self.driver.epoch()).await;
        let broken: Vec<_> = found.faults.iter().filter(|fault| !fault.unread).cloned().collect();
        let mut faults = found.faults;
        let lacking = meant.view.shards_expected.saturating_sub(meant.view.shards);
        if lacking > 0 {
            faults.push(v1::CheckpointFault {
                message: format!("{lacking} of {} shards were never written", meant.view.shards_expected),
                ..v1::CheckpointFault::default()
            });
        }
        let read = found.silent.is_empty();
        faults.extend(found.silent);
        // What could not be looked at is neither whole nor broken; what was never complete is used by nobody.
        if let Some(written) = meant.written.filter(|_| !broken.is_empty() || (read && faults.is_empty())) {
            let named = |fault: v1::CheckpointFault| Some((NodeId::new(fault.node).ok()?, fault.message));
            let what = Keep::Verified { written, faults: broken.into_iter().filter_map(named).collect() };
            if !self.keep(&meant, by, what).await? {
                return Err(meant.written_anew("was written anew while it was read", "read it again: qctl ckpt verify"));
            }
        }
        let reply = v1::VerifyCheckpointReply {
            checkpoint: Some(self.meant(&exactly(&meant)).await.map_or(meant.view, |meant| meant.view)),
            whole: faults.is_empty(),
            bytes: found.bytes,
            nodes: found.nodes,
            faults,
        };
        Ok(Response::new(reply))
    }

    async fn pin(&self, request: Request<v1::PinCheckpointRequest>) -> Result<Response<v1::CheckpointReply>, Status> {
        let call = peer::call(&request)?;
        let v1::PinCheckpointRequest { checkpoint, pinned } = request.into_inner();
        let (meant, by) = self.touched(&call, &numbered(checkpoint)?).await?;
        let changed = self.keep(&meant, by, if pinned { Keep::Pin } else { Keep::Unpin }).await?;
        let outcome = match (changed, pinned) {
            (false, _) => "unchanged",
            (true, true) => "pinned",
            (true, false) => "unpinned",
        };
        let checkpoint = Some(self.meant(&exactly(&meant)).await?.view);
        Ok(Response::new(v1::CheckpointReply { outcome: outcome.to_owned(), checkpoint }))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteCheckpointRequest>,
    ) -> Result<Response<v1::DeleteCheckpointReply>, Status> {
        let call = peer::call(&request)?;
        let v1::DeleteCheckpointRequest { checkpoint, force } = request.into_inner();
        let (meant, by) = self.touched(&call, &numbered(checkpoint)?).await?;
        meant.check_nodes()?;
        self.keep(&meant, by.clone(), Keep::Remove { force }).await?;
        // Saved before a file is touched: nothing goes on from it any more.
        let meant = self.meant(&exactly(&meant)).await?;
        if !meant.view.removing {
            return Err(
                meant.written_anew("is being written anew; nothing was removed", "try again later: qctl ckpt rm")
            );
        }
        let done = meant.remove(&self.errands, self.driver.epoch()).await;
        let mut faults = done.faults;
        faults.extend(done.silent);
        if faults.is_empty() {
            self.keep(&meant, by, Keep::Removed).await?;
        }
        let outcome = if faults.is_empty() { "removed" } else { "partly" };
        let (checkpoint, bytes, nodes) = (Some(meant.view), done.bytes, done.nodes);
        let outcome = outcome.to_owned();
        Ok(Response::new(v1::DeleteCheckpointReply { outcome, checkpoint, bytes, nodes, faults }))
    }
}

impl Checkpoints {
    async fn meant(&self, request: &v1::CheckpointRequest) -> Result<Meant, Status> {
        let request = request.clone();
        self.driver.read(move |world| Meant::find(world, &request)).await?
    }

    /// A checkpoint of a job that the caller may touch, and the caller's name.
    async fn touched(&self, call: &Call, request: &v1::CheckpointRequest) -> Result<(Meant, String), Status> {
        call.about(&request.job);
        let meant = self.meant(request).await?;
        call.about(&format!("{} {} {}", meant.job, meant.stage, meant.view.iteration));
        call.may_touch(meant.job.as_str(), &meant.owner)?;
        Ok((meant, call.caller()?.name.clone()))
    }

    /// Whether it was not so before.
    async fn keep(&self, meant: &Meant, by: String, what: Keep) -> Result<bool, Status> {
        let (job, stage, iteration) = (meant.job.clone(), meant.stage.clone(), meant.view.iteration);
        let about = AboutCheckpoint { job, stage, iteration, by, what };
        match self.driver.step(Input::Checkpoint(Box::new(about))).await?.reply {
            Some(Reply::CheckpointChanged) => Ok(true),
            Some(Reply::CheckpointUnchanged) => Ok(false),
            Some(Reply::CheckpointRefused(refusal)) => Err(meant.refused(&refusal)),
            Some(_) | None => Err(Status::internal("the request was not answered")),
        }
    }
}

/// The same checkpoint again, whatever was written meanwhile.
fn exactly(meant: &Meant) -> v1::CheckpointRequest {
    v1::CheckpointRequest {
        job: meant.job.to_string(),
        iteration: Some(meant.view.iteration),
        stage: meant.stage.to_string(),
    }
}

/// What changes something must be named by its number.
fn numbered(request: Option<v1::CheckpointRequest>) -> Result<v1::CheckpointRequest, Status> {
    let request = request.unwrap_or_default();
    if request.iteration.is_none() {
        return Err(Status::invalid_argument("name the checkpoint by its iteration"));
    }
    Ok(request)
}
