//! The controller's services.

use std::path::Path;

use proto::v1::checkpoints_client::CheckpointsClient;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::jobs_client::JobsClient;
use proto::v1::nodes_client::NodesClient;
use runtime::clock::now_ms;
use runtime::tls::Identity;
use tonic::transport::Channel;

use crate::context::{self, Context};
use crate::failure::{Exit, Failure};
use crate::output::say;
use crate::text::duration;

/// Largest answer, in bytes: a listing of a thousand jobs is far below.
const ANSWER: usize = 64 << 20;

/// When a certificate's end is warned of, in milliseconds.
const MONTH: u64 = 30 * 86_400_000;

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
        warn_of_its_end(&identity.cert)?;
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

/// Says in time that the certificate ends, and does not try one that has.
fn warn_of_its_end(cert: &str) -> Result<(), Failure> {
    let now = now_ms();
    match (runtime::pki::ends(cert), runtime::pki::renewal_due(cert)) {
        (Some(ends), _) if ends <= now => {
            let failure = Failure::new(Exit::NotPermitted, "your certificate has ended");
            Err(failure.hint(
                "ask an admin for a token, then: qctl login --help; `qctl dev` makes its own in a new state directory",
            ))
        }
        (Some(ends), Some(due)) if due <= now && ends - now < MONTH => {
            say(&format!("warning: your certificate ends in {}; renew it: qctl login --renew", duration(ends - now)));
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    #[test]
    fn a_certificate_that_has_ended_is_not_tried() {
        let dir = tempfile::tempdir().unwrap();
        let authority = runtime::pki::Authority::create(dir.path()).unwrap();
        let made = |life| authority.issue_for(runtime::tls::Role::User, "ann", &[], life).unwrap().cert;
        assert!(warn_of_its_end(&made(Duration::from_secs(3600))).is_ok());
        let ended = warn_of_its_end(&made(Duration::ZERO)).unwrap_err();
        assert!(matches!(ended, Failure::Told { exit: Exit::NotPermitted, .. }), "{ended:?}");
    }
}
