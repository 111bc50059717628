//! The gate before all services.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use runtime::tls::{Peer, Role, peer_of_der};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::table::{self, Does, Need};
use super::{Call, a_role, refuse, too_little, unknown};
use crate::audit::Audit;

/// Codes that say that the caller may not, or not so much.
const REFUSALS: [Code; 3] = [Code::PermissionDenied, Code::Unauthenticated, Code::ResourceExhausted];

/// Stands before whatever it is laid on.
#[derive(Clone, Debug)]
pub(crate) struct GateLayer {
    pub(crate) audit: Audit,
}

/// A service behind the gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate<S> {
    inner: S,
    layer: GateLayer,
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner, layer: self.clone() }
    }
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let call = match self.layer.admit(&request) {
            Ok(call) => call,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        request.extensions_mut().insert(call.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            let failed = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok);
            on_record(&call, failed.as_ref()).await;
            Ok(response)
        })
    }
}

impl GateLayer {
    fn admit(&self, request: &Request<Body>) -> Result<Call, Status> {
        let (caller, from) = seen(request);
        let path = request.uri().path();
        let Some(rule) = table::of(path) else {
            return Err(Status::unimplemented("there is no such call"));
        };
        let role = caller.as_ref().map(|peer| peer.role);
        let call = Call::new(rule, caller, from, self.audit.clone());
        if rule.need.admits(role) {
            return Ok(call);
        }
        let status = match &call.0.caller {
            Some(peer) => not_for(rule, peer),
            None => unknown(),
        };
        call.refused(&status);
        Err(status)
    }
}

/// Puts what changed, or was not to be changed, on record before it is answered.
async fn on_record(call: &Call, failed: Option<&Status>) {
    let (result, detail) = match failed {
        None => ("done", ""),
        // Another controller leads, or the store is in trouble: whoever asks comes again.
        Some(status) if status.code() == Code::Unavailable => return,
        Some(status) if REFUSALS.contains(&status.code()) => ("refused", status.message()),
        Some(status) => ("failed", status.message()),
    };
    match (call.0.rule.does, result) {
        (Does::Changes, "done") => call.0.audit.write(call.entry(result, detail)).await,
        (Does::Changes, _) | (Does::Reads | Does::Streams, "refused") => call.0.audit.note(call.entry(result, detail)),
        (Does::Reads | Does::Streams, _) => {}
    }
}

/// The caller by certificate, and from where.
fn seen(request: &Request<Body>) -> (Option<Peer>, String) {
    let Some(info) = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>() else { return (None, String::new()) };
    let certs = info.peer_certs();
    let caller = certs.and_then(|certs| peer_of_der(certs.first()?));
    (caller, info.get_ref().remote_addr().map(|address| address.to_string()).unwrap_or_default())
}

fn not_for(rule: &table::Rule, caller: &Peer) -> Status {
    match rule.need {
        Need::Person(least) if caller.role != Role::Agent => too_little(rule.verb, least, caller),
        Need::Anyone | Need::Person(_) | Need::Agent => {
            let whose = if rule.need == Need::Agent { "agents" } else { "users" };
            let text = format!("this call is for {whose}; `{}` is {}", caller.name, a_role(caller.role));
            refuse(Code::PermissionDenied, text, None)
        }
    }
}
