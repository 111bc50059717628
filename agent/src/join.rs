//! How a node gets its certificate.

use std::io;
use std::path::{Path, PathBuf};

use proto::v1::JoinRequest;
use proto::v1::cluster_client::ClusterClient;
use runtime::channel::ChannelError;
use runtime::pki::PkiError;
use runtime::tls::{Identity, IdentityError};

use crate::config::{Config, Join};

/// Why a node has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// There is none, and no token to get one with.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The cluster's CA is needed to know the controller by.
    #[error("`{}` could not be read", path.display())]
    Ca {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The controller's chain has no certificate with the pinned digest.
    #[error("the controller `{0}` shows no CA with the pinned digest")]
    NotShown(String),
    /// The controller cannot be asked for its chain.
    #[error("the controller `{controller}` could not be asked for its CA")]
    Unreachable {
        /// Its address.
        controller: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is another cluster's, or was tampered with.
    #[error("`{}` has the digest {found}, not the pinned {pinned}", path.display())]
    OtherCa {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// The expected one.
        pinned: String,
    },
    /// No key could be made.
    #[error("no key could be made")]
    Key(#[from] PkiError),
    /// The controller's address cannot be used.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The controller refused, or cannot be reached.
    #[error("the controller did not let this node join: {}", .0.message())]
    Refused(#[source] Box<tonic::Status>),
    /// The certificate could not be saved.
    #[error("the certificate could not be saved in `{}`", path.display())]
    Save {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl JoinError {
    /// Whether another controller would say the same.
    fn is_final(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() != tonic::Code::Unavailable)
    }

    /// The next thing to try.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Identity(_) => Some("give `--join-token` and `--ca-digest`, or copy the node's certificate there"),
            Self::Ca { .. } => Some("check the permissions of the directory of `--pki`"),
            Self::NotShown(_) => {
                Some("is it the right controller? Else copy the cluster's ca.pem into the directory of `--pki`")
            }
            Self::Unreachable { .. } => Some("check the address, and that the controller runs"),
            Self::OtherCa { .. } => Some("copy the ca.pem of the cluster that made the token"),
            Self::Refused(_) => Some("a token is good for one join and a short time: make another one"),
            Self::Key(_) | Self::Channel(_) | Self::Save { .. } => None,
        }
    }
}

/// Loads this node's certificate, or joins the cluster to get one.
///
/// The controller is believed only if its certificate is signed by the CA
/// whose digest was given with the token.
///
/// # Errors
///
/// [`JoinError`] if there is no certificate in the end.
pub async fn identity(config: &Config) -> Result<Identity, JoinError> {
    let missing = match Identity::load(&config.pki) {
        Ok(identity) => return Ok(identity),
        Err(error) => error,
    };
    let Some(join) = &config.join else { return Err(missing.into()) };
    // Of several controllers the one that leads answers.
    let mut refused = None;
    for controller in runtime::channel::addresses(&config.controller) {
        match ask(&controller, config, join).await {
            Ok(identity) => {
                identity.save(&config.pki).map_err(|source| JoinError::Save { path: config.pki.clone(), source })?;
                tracing::info!(node = %config.node, controller, "joined the cluster");
                return Ok(identity);
            }
            // One that has looked at the token says more than one that follows or could not be reached.
            Err(error) if refused.is_none() || error.is_final() => refused = Some(error),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| missing.into()))
}

async fn ask(controller: &str, config: &Config, join: &Join) -> Result<Identity, JoinError> {
    let ca = match read_ca(&config.pki, &join.ca_digest)? {
        Some(ca) => ca,
        None => ask_ca(controller, &join.ca_digest).await?,
    };
    let (key, csr) = runtime::pki::new_key_and_csr(config.node.as_str())?;
    let channel = runtime::channel::anonymous_channel(controller, &ca)?;
    let request = JoinRequest { token: join.token.clone(), node: config.node.to_string(), csr };
    let reply = ClusterClient::new(channel).join(request).await.map_err(|s| JoinError::Refused(Box::new(s)))?;
    // The CA stays the pinned one, whatever the reply says.
    Ok(Identity { ca, cert: reply.into_inner().certificate, key })
}

/// The CA that an operator has put there.
fn read_ca(pki: &Path, pinned: &str) -> Result<Option<String>, JoinError> {
    let path = pki.join("ca.pem");
    let ca = match std::fs::read_to_string(&path) {
        Ok(ca) => ca,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(JoinError::Ca { path, source }),
    };
    let found = runtime::pki::digest(&ca);
    if found == pinned { Ok(Some(ca)) } else { Err(JoinError::OtherCa { path, found, pinned: pinned.to_owned() }) }
}

async fn ask_ca(controller: &str, pinned: &str) -> Result<String, JoinError> {
    let (asked, wanted) = (controller.to_owned(), pinned.to_owned());
    let shown = tokio::task::spawn_blocking(move || runtime::pinned::find_ca(&asked, &wanted)).await;
    let shown = shown.unwrap_or_else(|failed| Err(io::Error::other(failed)));
    let found = shown.map_err(|source| JoinError::Unreachable { controller: controller.to_owned(), source })?;
    found.ok_or_else(|| JoinError::NotShown(controller.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_ca_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read_ca(dir.path(), "blake3:00"), Ok(None)));
        std::fs::write(dir.path().join("ca.pem"), "a ca\n").unwrap();
        assert!(matches!(read_ca(dir.path(), "blake3:00"), Err(JoinError::OtherCa { .. })));
        assert_eq!(read_ca(dir.path(), &runtime::pki::digest("a ca")).unwrap().as_deref(), Some("a ca\n"));
    }
}
