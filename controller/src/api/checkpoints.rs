//! The `Checkpoints` service.

use proto::v1;
use proto::v1::checkpoints_server::Checkpoints as Service;
use tonic::{Request, Response, Status};

use super::peer;
use super::resolve::resolve;
use crate::driver::Handle;
use crate::view;

/// Listing checkpoints.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    /// The driver.
    pub driver: Handle,
}

#[tonic::async_trait]
impl Service for Checkpoints {
    async fn list(
        &self,
        request: Request<v1::ListCheckpointsRequest>,
    ) -> Result<Response<v1::ListCheckpointsReply>, Status> {
        peer::user(&request)?;
        let word = request.into_inner().job;
        let look = move |world: &planner::World| {
            let wanted = if word.is_empty() { None } else { Some(resolve(world, &word)?) };
            Ok::<_, Status>(view::checkpoints(world, wanted.as_ref()))
        };
        let checkpoints = self.driver.read(look).await??;
        Ok(Response::new(v1::ListCheckpointsReply { checkpoints }))
    }
}
