//! The `Cluster` service: status, and agents that join.

use std::path::PathBuf;
use std::sync::Arc;

use model::NodeId;
use proto::v1;
use proto::v1::cluster_server::Cluster as Service;
use runtime::pki::Authority;
use runtime::tls::Role;
use tonic::{Code, Request, Response, Status};

use super::{chain, peer, refuse};
use crate::audit::{Audit, Entry, Wanted};
use crate::driver::Handle;
use crate::memory::Memory;
use crate::tokens::{self, Refused};

/// Days that an agent's certificate is good for.
const DAYS: u32 = 365;
/// Longest signing request, in bytes.
const CSR: usize = 16 << 10;
/// Most entries of the record in one answer.
const ENTRIES: usize = 1000;

/// The cluster as a whole.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The driver.
    pub driver: Handle,
    /// Signs agents' certificates; absent where the CA's key is kept elsewhere.
    pub authority: Option<Arc<Authority>>,
    /// Where tokens lie.
    pub state_dir: PathBuf,
    /// When this controller began, in milliseconds since 1970.
    pub started_ms: u64,
    /// Where this controller remembers.
    pub memory: Memory,
    /// What was changed and refused.
    pub(crate) audit: Audit,
}

#[tonic::async_trait]
impl Service for Cluster {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (jobs, nodes) = self.driver.read(move |world| (count(world.jobs.len()), count(world.nodes.len()))).await?;
        Ok(Response::new(v1::StatusReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: Some(self.driver.epoch().into()),
            started_ms: self.started_ms,
            jobs,
            nodes,
            now_ms: runtime::clock::now_ms(),
            store: self.memory.told(),
            alarms: self
                .memory
                .alarms()
                .into_iter()
                .map(|(code, message, hint)| v1::Alarm { code, message, hint })
                .collect(),
        }))
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinReply>, Status> {
        let call = peer::call(&request)?;
        let v1::JoinRequest { token, node, csr } = request.into_inner();
        call.about(&node);
        let node = NodeId::new(node).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let Some(authority) = self.authority.clone() else {
            return Err(Status::failed_precondition("this controller does not hold the CA's key"));
        };
        if csr.len() > CSR {
            return Err(Status::invalid_argument(format!("the signing request is longer than {CSR} bytes")));
        }
        let state_dir = self.state_dir.clone();
        let name = node.clone();
        let signed = tokio::task::spawn_blocking(move || {
            // Signed first: a malformed request does not use up the token.
            let signed = authority.sign_csr(&csr, Role::Agent, name.as_str(), DAYS);
            let certificate = signed.map_err(|error| Status::invalid_argument(chain(&error)))?;
            tokens::consume(&state_dir, &token, &name).map_err(|error| not_taken(&error))?;
            Ok::<_, Status>(v1::JoinReply { certificate, ca: authority.cert().to_owned() })
        });
        let reply = signed.await.map_err(|_| Status::internal("the signer failed"))??;
        tracing::info!(%node, "a node joins");
        Ok(Response::new(reply))
    }

    async fn audit(&self, request: Request<v1::AuditRequest>) -> Result<Response<v1::AuditReply>, Status> {
        self.driver.leads()?;
        let v1::AuditRequest { limit, since_ms, who, refused } = request.into_inner();
        let limit = usize::try_from(limit).unwrap_or(ENTRIES).min(ENTRIES);
        let wanted = Wanted { limit: if limit == 0 { ENTRIES } else { limit }, since_ms, who, refused };
        let audit = self.audit.clone();
        let read = tokio::task::spawn_blocking(move || audit.read(&wanted)).await;
        let entries = read
            .map_err(|_| Status::internal("the reader failed"))?
            .map_err(|error| Status::unavailable(format!("the audit record could not be read: {error}")))?;
        Ok(Response::new(v1::AuditReply { entries: entries.into_iter().map(on_the_wire).collect() }))
    }
}

fn on_the_wire(entry: Entry) -> v1::AuditEntry {
    let Entry { at_ms, who, role, serial, from, verb, object, result, detail } = entry;
    v1::AuditEntry { at_ms, who, role, serial, from, verb, object, result, detail }
}

fn not_taken(error: &Refused) -> Status {
    tracing::warn!(%error, "a join was refused");
    match error {
        Refused::Unknown | Refused::Expired | Refused::OtherNode => refuse(
            Code::PermissionDenied,
            error.to_string(),
            Some("ask for a new token: qctl-controller token --state-dir DIR --node NODE".to_owned()),
        ),
        Refused::Io(_) => Status::unavailable(chain(error)),
    }
}
