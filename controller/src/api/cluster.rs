//! The `Cluster` service: status, and agents that join.

use std::sync::Arc;

use proto::v1;
use proto::v1::cluster_server::Cluster as Service;
use runtime::pki::Authority;
use tonic::{Request, Response, Status};

use super::members::Members;
use super::peer;
use crate::audit::{Audit, Entry, Wanted};
use crate::driver::Handle;
use crate::memory::Memory;

/// Most entries of the record in one answer.
const ENTRIES: usize = 1000;

/// The cluster as a whole.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The driver.
    pub driver: Handle,
    /// Signs agents' certificates; absent where the CA's key is kept elsewhere.
    pub authority: Option<Arc<Authority>>,
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
        Ok(Response::new(self.members().join(&call, request.into_inner()).await?))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenReply>, Status> {
        let call = peer::call(&request)?;
        Ok(Response::new(self.members().create(&call, request.into_inner()).await?))
    }

    async fn list_tokens(&self, _: Request<v1::ListTokensRequest>) -> Result<Response<v1::ListTokensReply>, Status> {
        Ok(Response::new(self.members().tokens()?))
    }

    async fn list_certificates(
        &self,
        _: Request<v1::ListCertificatesRequest>,
    ) -> Result<Response<v1::ListCertificatesReply>, Status> {
        Ok(Response::new(self.members().certificates()?))
    }

    async fn revoke(&self, request: Request<v1::RevokeRequest>) -> Result<Response<v1::RevokeReply>, Status> {
        let call = peer::call(&request)?;
        Ok(Response::new(self.members().revoke(&call, request.into_inner()).await?))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewReply>, Status> {
        let call = peer::call(&request)?;
        Ok(Response::new(self.members().renew(&call, request.into_inner().csr).await?))
    }

    async fn audit(&self, request: Request<v1::AuditRequest>) -> Result<Response<v1::AuditReply>, Status> {
        self.driver.leads()?;
        let v1::AuditRequest { limit, since_ms, who, refused } = request.into_inner();
        let limit = usize::try_from(limit).unwrap_or(ENTRIES).min(ENTRIES);
        let wanted = Wanted { limit: if limit == 0 { ENTRIES } else { limit }, since_ms, who, refused };
        let entries = self
            .audit
            .read(wanted)
            .await
            .map_err(|error| Status::unavailable(format!("the audit record could not be read: {error}")))?;
        Ok(Response::new(v1::AuditReply { entries: entries.into_iter().map(on_the_wire).collect() }))
    }
}

fn on_the_wire(entry: Entry) -> v1::AuditEntry {
    let Entry { at_ms, who, role, serial, from, verb, object, result, detail } = entry;
    v1::AuditEntry { at_ms, who, role, serial, from, verb, object, result, detail }
}

impl Cluster {
    fn members(&self) -> Members {
        Members { driver: self.driver.clone(), authority: self.authority.clone() }
    }
}
