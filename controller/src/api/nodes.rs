//! The `Nodes` service.

use std::sync::Arc;

use proto::v1;
use proto::v1::nodes_server::Nodes as Service;
use tonic::{Request, Response, Status};

use super::peer;
use crate::driver::Handle;
use crate::sessions::Progress;
use crate::view;

/// Listing nodes.
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
        peer::user(&request)?;
        Err(Status::unimplemented("this controller cannot cordon nodes yet"))
    }

    async fn uncordon(&self, request: Request<v1::UncordonRequest>) -> Result<Response<v1::NodeReply>, Status> {
        peer::user(&request)?;
        Err(Status::unimplemented("this controller cannot cordon nodes yet"))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::NodeReply>, Status> {
        peer::user(&request)?;
        Err(Status::unimplemented("this controller cannot drain nodes yet"))
    }
}
