//! `qctl-controller init`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use runtime::pki::Authority;
use runtime::tls::{Identity, Role, peer_of_pem};

use super::Failure;

/// Days that a controller's and a user's certificates are good for.
const DAYS: u32 = 825;

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The controller's state directory; `pki/` is made in it
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// Further addresses at which the controller is reached (repeatable)
    #[arg(long = "san", value_name = "IP")]
    addresses: Vec<IpAddr>,
    /// Name of the first user, an admin
    #[arg(long, default_value = "admin")]
    user: String,
}

impl Init {
    /// Makes what is missing and keeps what is there: a second run changes nothing.
    pub(super) fn run(self) -> Result<(), Failure> {
        let pki = self.state_dir.join("pki");
        let authority = authority(&pki)?;
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        addresses.extend(self.addresses);
        identity(&authority, Role::Controller, "controller", &addresses, &pki.join("controller"))?;
        identity(&authority, Role::Admin, &self.user, &[], &pki.join("users").join(&self.user))?;
        Ok(super::print(&authority.digest())?)
    }
}

fn authority(pki: &Path) -> Result<Authority, Failure> {
    match (pki.join("ca.pem").exists(), pki.join("ca.key").exists()) {
        (true, true) => Ok(Authority::load(pki)?),
        // The key is written first: a key alone is what an interrupted run leaves.
        (false, _) => Ok(Authority::create(pki)?),
        (true, false) => Err(Failure::hinted(
            anyhow!("`{}` is there, but not its key `ca.key`", pki.join("ca.pem").display()),
            Some("put the key back, or choose another state directory".to_owned()),
        )),
    }
}

fn identity(authority: &Authority, role: Role, name: &str, addresses: &[IpAddr], dir: &Path) -> Result<(), Failure> {
    // The certificate is written last: with it, the identity is whole. One of another role was made before there
    // were admins.
    if let Ok(there) = std::fs::read_to_string(dir.join("cert.pem"))
        && peer_of_pem(&there).is_none_or(|peer| peer.role == role)
    {
        return Ok(());
    }
    let made: Identity = authority.issue(role, name, addresses, DAYS)?;
    made.save(dir).with_context(|| format!("`{}` could not be written", dir.display()))?;
    Ok(())
}
