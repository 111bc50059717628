//! Who calls, and whether they may.

use runtime::tls::{Peer, Role, peer};
use tonic::{Code, Request, Status};

use super::refuse;

/// The calling agent's node id.
pub(crate) fn agent<T>(request: &Request<T>) -> Result<String, Status> {
    let peer = known(request)?;
    match peer.role {
        Role::Agent => Ok(peer.name),
        Role::User | Role::Controller => Err(denied(&peer, "agents")),
    }
}

/// The calling user's name.
pub(crate) fn user<T>(request: &Request<T>) -> Result<String, Status> {
    let peer = known(request)?;
    match peer.role {
        Role::User | Role::Controller => Ok(peer.name),
        Role::Agent => Err(denied(&peer, "users")),
    }
}

fn known<T>(request: &Request<T>) -> Result<Peer, Status> {
    peer(request).ok_or_else(|| {
        refuse(
            Code::Unauthenticated,
            "this call needs a client certificate of this cluster",
            Some("name the directory of your certificate, or ask an operator for one".to_owned()),
        )
    })
}

fn denied(peer: &Peer, whose: &str) -> Status {
    let text = format!("this call is for {whose}; the certificate is {} `{}`'s", peer.role.name(), peer.name);
    Status::permission_denied(text)
}
