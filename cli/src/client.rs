//! The controller's services.

use std::path::Path;

use proto::v1::checkpoints_client::CheckpointsClient;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::jobs_client::JobsClient;
use proto::v1::nodes_client::NodesClient;
use runtime::tls::Identity;
use tonic::transport::Channel;

use crate::context::{self, Context};
use crate::failure::Failure;

/// Largest answer, in bytes: a listing of a thousand jobs is far below.
const ANSWER: usize = 64 << 20;

/// Clients of all services, over one channel.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) jobs: JobsClient<Channel>,
    pub(crate) nodes: NodesClient<Channel>,
    pub(crate) checkpoints: CheckpointsClient<Channel>,
    pub(crate) cluster: ClusterClient<Channel>,
}

impl Client {
    /// Reads the context of the state directory; connects at the first call.
    pub(crate) fn open(state_dir: Option<&Path>) -> Result<Self, Failure> {
        Self::of(&context::load(&context::state_dir(state_dir)?)?)
    }

    /// A client of a known controller.
    pub(crate) fn of(context: &Context) -> Result<Self, Failure> {
        let identity = Identity::load(&context.identity)
            .map_err(|error| Failure::because("the client certificate is missing", &error))?;
        let channel = runtime::channel(&context.endpoint, &identity)
            .map_err(|error| Failure::because("the controller cannot be called", &error))?;
        Ok(Self {
            jobs: JobsClient::new(channel.clone()).max_decoding_message_size(ANSWER),
            nodes: NodesClient::new(channel.clone()).max_decoding_message_size(ANSWER),
            checkpoints: CheckpointsClient::new(channel.clone()).max_decoding_message_size(ANSWER),
            cluster: ClusterClient::new(channel).max_decoding_message_size(ANSWER),
        })
    }
}
