//! Calls to whichever member answers.
//!
//! A member that is dead, paused or cut off from the others is passed over for
//! the next; so every call may reach etcd twice, and each is made so that this
//! does no harm.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Response, Status};

use super::config::Config;
use super::wire::kv_client::KvClient;
use super::wire::lease_client::LeaseClient;
use super::wire::maintenance_client::MaintenanceClient;
use super::wire::{
    AlarmRequest, AlarmResponse, CompactionRequest, DefragmentRequest, LeaseGrantRequest, LeaseGrantResponse,
    LeaseKeepAliveRequest, LeaseRevokeRequest, RangeRequest, RangeResponse, StatusRequest, StatusResponse, TxnRequest,
    TxnResponse,
};
use crate::{Error, Kind};

/// Largest answer: a page of the largest entries is far below.
const ANSWER: usize = 1 << 30;
/// How long one member may take for one call.
const MEMBER: Duration = Duration::from_secs(2);
/// How long a call may take over all members.
const CALL: Duration = Duration::from_secs(6);
/// Pause between two rounds over all members.
const PAUSE: Duration = Duration::from_millis(50);

/// What a call came to.
pub(super) struct Told<T> {
    pub(super) what: Result<T, Status>,
    /// A member was asked before the one that told, and may have done it, or do it yet.
    pub(super) doubtful: bool,
}

/// Channels to all members.
#[derive(Debug)]
pub(super) struct Client {
    members: Vec<(String, Channel)>,
    /// The member that answered last.
    at: AtomicUsize,
}

impl Client {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let connect = |url: &String| Ok((url.clone(), config.endpoint(url)?.connect_lazy()));
        let members = config.endpoints.iter().map(connect).collect::<Result<Vec<_>, Error>>()?;
        if members.is_empty() {
            return Err(Error::new(Kind::Io, "no etcd member is named").hinted("name them with --etcd"));
        }
        Ok(Self { members, at: AtomicUsize::new(0) })
    }

    /// Addresses of the members, in the order given.
    pub(super) fn members(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(url, _)| url.as_str())
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.call(MEMBER, CALL, |channel| {
            let request = request.clone();
            async move { KvClient::new(channel).max_decoding_message_size(ANSWER).range(request).await }
        })
        .await
    }

    pub(super) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.txn_told(request).await.what
    }

    /// A transaction of which it matters whether it was made before it was refused.
    pub(super) async fn txn_told(&self, request: TxnRequest) -> Told<TxnResponse> {
        self.ask(MEMBER, CALL, |channel| {
            let request = request.clone();
            async move { KvClient::new(channel).max_decoding_message_size(ANSWER).txn(request).await }
        })
        .await
    }

    /// History before `revision` is dropped; one that is dropped already is no error.
    pub(super) async fn compact(&self, revision: i64) -> Result<(), Status> {
        let request = CompactionRequest { revision, physical: true };
        let done =
            self.call(MEMBER * 5, CALL * 5, |channel| async move { KvClient::new(channel).compact(request).await });
        match done.await {
            Err(status) if status.code() == Code::OutOfRange => Ok(()),
            other => other.map(drop),
        }
    }

    pub(super) async fn grant(&self, seconds: i64) -> Result<LeaseGrantResponse, Status> {
        let request = LeaseGrantRequest { ttl: seconds, id: 0 };
        self.call(MEMBER, CALL, |channel| async move { LeaseClient::new(channel).lease_grant(request).await }).await
    }

    pub(super) async fn revoke(&self, lease: i64, limit: Duration) -> Result<(), Status> {
        let request = LeaseRevokeRequest { id: lease };
        let done =
            self.call(limit, limit, |channel| async move { LeaseClient::new(channel).lease_revoke(request).await });
        done.await.map(drop)
    }

    /// Keeps a lease alive once; returns how long from the call on, nothing if there is no such lease.
    ///
    /// Each call is a stream of its own, so that none can go stale unseen.
    pub(super) async fn keep_alive(&self, lease: i64, limit: Duration) -> Result<Option<Duration>, Status> {
        let answer = self.call(limit, limit * 3, |channel| async move {
            let question = tokio_stream::once(LeaseKeepAliveRequest { id: lease });
            let mut answers = LeaseClient::new(channel).lease_keep_alive(question).await?.into_inner();
            match answers.message().await? {
                Some(answer) => Ok(Response::new(answer)),
                None => Err(Status::unavailable("the member did not answer")),
            }
        });
        let seconds = answer.await?.ttl;
        Ok(u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs))
    }

    pub(super) async fn alarm(&self, request: AlarmRequest) -> Result<AlarmResponse, Status> {
        self.call(MEMBER, CALL, |channel| async move { MaintenanceClient::new(channel).alarm(request).await }).await
    }

    /// What one member says of itself.
    pub(super) async fn status(&self, member: usize) -> Result<StatusResponse, Status> {
        let channel = self.members[member].1.clone();
        let asked = async move { MaintenanceClient::new(channel).status(StatusRequest {}).await };
        timeout(MEMBER, asked).await.map_err(|_| silent())?.map(Response::into_inner)
    }

    /// Makes one member give freed space back; it answers nothing else meanwhile.
    pub(super) async fn defragment(&self, member: usize, limit: Duration) -> Result<(), Status> {
        let channel = self.members[member].1.clone();
        let asked = async move { MaintenanceClient::new(channel).defragment(DefragmentRequest {}).await };
        timeout(limit, asked).await.map_err(|_| silent())?.map(drop)
    }

    async fn call<T, F>(&self, member: Duration, limit: Duration, ask: impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask(member, limit, ask).await.what
    }

    async fn ask<T, F>(&self, member: Duration, limit: Duration, ask: impl Fn(Channel) -> F) -> Told<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let until = Instant::now() + limit;
        let (mut tried, mut doubtful) = (0, false);
        loop {
            let at = self.at.load(Ordering::Relaxed) % self.members.len();
            let status = match timeout(member, ask(self.members[at].1.clone())).await {
                Ok(Ok(answer)) => return Told { what: Ok(answer.into_inner()), doubtful },
                Ok(Err(status)) if !may_pass(&status) => return Told { what: Err(status), doubtful },
                Ok(Err(status)) => status,
                Err(_) => silent(),
            };
            doubtful |= !is_unsent(&status);
            tracing::debug!(member = self.members[at].0, %status, "an etcd member did not answer");
            let next = (at + 1) % self.members.len();
            // Another call may have moved on already.
            let _ = self.at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
            if Instant::now() >= until {
                return Told { what: Err(status), doubtful };
            }
            tried += 1;
            if tried % self.members.len() == 0 {
                sleep(PAUSE).await;
            }
        }
    }
}

fn silent() -> Status {
    Status::deadline_exceeded("the member did not answer in time")
}

/// Whether no connection was there to ask over.
fn is_unsent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        if cause.is::<ConnectError>() {
            return true;
        }
        source = cause.source();
    }
    false
}

/// Whether asking another member, or again, may help.
pub(super) fn may_pass(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Unknown
        | Code::Internal
        | Code::Cancelled
        | Code::Aborted => true,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// What a failed call means to the store.
pub(super) fn trouble(what: &str, status: Status) -> Error {
    let code = status.code();
    let (kind, hint) = if code == Code::ResourceExhausted && status.message().contains("space exceeded") {
        (Kind::Full, FULL)
    } else if matches!(code, Code::PermissionDenied | Code::Unauthenticated) {
        (Kind::Io, "give the controller a client certificate that etcd accepts: --etcd-cert, --etcd-key")
    } else if code == Code::DataLoss {
        (Kind::Corrupt, "etcd says that its data is damaged: replace the member, or restore a backup")
    } else {
        (Kind::Io, "check that a majority of the members of --etcd runs and accepts this controller's certificate")
    };
    Error::new(kind, format!("etcd did not {what}")).hinted(hint).caused(status)
}

/// What to do about a full etcd.
pub(super) const FULL: &str = "etcd's space quota is used up; it is freed by compaction and defragmentation, which the leader does where etcd is \
     its own (without --etcd-shared); else: etcdctl compact, defrag, alarm disarm";
