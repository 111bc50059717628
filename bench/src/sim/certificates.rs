//! Certificates for agents that are played.

use std::path::Path;

use runtime::pki::Authority;
use runtime::tls::{Identity, Role};

/// Signs as the controllers' own CA.
#[derive(Debug)]
pub(crate) struct Certificates(Authority);

impl Certificates {
    /// Those of a directory that `qctl-controller init` made.
    pub(crate) fn load(pki: &Path) -> anyhow::Result<Self> {
        Ok(Self(Authority::load(pki)?))
    }

    /// One for a node.
    pub(crate) fn node(&self, name: &str) -> anyhow::Result<Identity> {
        Ok(self.0.issue(Role::Agent, name, &[], 1)?)
    }
}
