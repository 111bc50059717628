//! The gate before all services.

use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use model::{Certificate, Timestamp};
use runtime::clock::now_ms;
use runtime::tls::{Peer, Role};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::rates::Rates;
use super::slow::Timely;
use super::table::{self, Does, Need};
use super::{Ask, Call, a_role, refuse, too_little, unknown};
use crate::audit::Audit;
use crate::driver::Handle;
use crate::lines::Seen;

/// Codes that say that the caller may not, or not so much.
const REFUSALS: [Code; 3] = [Code::PermissionDenied, Code::Unauthenticated, Code::ResourceExhausted];

/// Stands before whatever it is laid on; clones share what they count.
#[derive(Clone, Debug)]
pub(crate) struct GateLayer {
    driver: Handle,
    audit: Audit,
    rates: Rates,
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
        if call.0.rule.does != Does::Streams {
            request = request.map(Timely::within);
        }
        // The one that is ready, not a clone of it.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let driver = self.layer.driver.clone();
        Box::pin(async move {
            call.introduce(&driver).await;
            let response = inner.call(request).await?;
            let failed = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok);
            on_record(&call, failed.as_ref()).await;
            Ok(response)
        })
    }
}

impl GateLayer {
    pub(crate) fn new(driver: Handle, audit: Audit) -> Self {
        Self { driver, audit, rates: Rates::default() }
    }

    fn admit(&self, request: &Request<Body>) -> Result<Call, Status> {
        let seen = request.extensions().get::<Seen>();
        let (caller, from) = seen.map_or((None, None), |seen| (seen.peer.clone(), Some(seen.from)));
        let Some(rule) = table::of(request.uri().path()) else {
            return Err(Status::unimplemented("there is no such call"));
        };
        let asks = match (&caller, from) {
            (Some(peer), _) => format!("{} {}", peer.role.name(), peer.name),
            (None, Some(from)) => from.ip().to_string(),
            (None, None) => String::new(),
        };
        let from = from.map(|from| from.to_string()).unwrap_or_default();
        let call = Call::new(rule, caller, from, self.audit.clone(), self.driver.board().clone());
        let judged = if self.rates.take(&asks, call.0.caller.is_some(), Instant::now()) {
            call.judge()
        } else {
            let hint = Some("ask less often: `-w`, `-f` and `qctl wait` say what changes without asking".to_owned());
            Err(refuse(Code::ResourceExhausted, "too many calls in a short time", hint))
        };
        if let Err(status) = &judged {
            call.refused(status);
        }
        judged.map(|()| call)
    }
}

impl Call {
    /// Whether the caller is who it says and may make this call.
    fn judge(&self) -> Result<(), Status> {
        let (rule, caller) = (self.0.rule, self.0.caller.as_deref());
        // Also where anybody may call: an end of a connection that was not seen yet.
        if let Some(peer) = caller {
            let seconds = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
            if seconds > peer.valid.1 {
                return Err(out(&format!("the certificate of `{}` has expired", peer.name)));
            }
            if self.0.board.revoked(peer) {
                return Err(out(&format!("the certificate of `{}` was revoked", peer.name)));
            }
        }
        match caller {
            caller if rule.need.admits(caller.map(|peer| peer.role)) => Ok(()),
            Some(peer) => Err(self.not_for(peer)),
            None => Err(unknown()),
        }
    }

    fn not_for(&self, caller: &Peer) -> Status {
        match self.0.rule.need {
            Need::Person(least) if caller.role != Role::Agent => {
                too_little(self.0.rule.verb, least, caller, &self.0.board)
            }
            Need::Anyone | Need::Holder | Need::Person(_) | Need::Agent => {
                let whose = if self.0.rule.need == Need::Agent { "agents" } else { "users" };
                let text = format!("this call is for {whose}; `{}` is {}", caller.name, a_role(caller.role));
                refuse(Code::PermissionDenied, text, None)
            }
        }
    }

    /// Remembers a certificate that was made beside this controller, so that it is listed and can be taken back.
    async fn introduce(&self, driver: &Handle) {
        let Some(peer) = self.0.caller.as_deref() else { return };
        if self.0.rule.need == Need::Anyone || self.0.board.knows(&peer.serial) || driver.leads().is_err() {
            return;
        }
        // It is tried again with the next call.
        let _ = driver.access(Ask::Know(known(peer))).await;
    }
}

/// A certificate as it is remembered.
pub(crate) fn known(peer: &Peer) -> Certificate {
    Certificate {
        serial: peer.serial.clone(),
        role: peer.role.name().to_owned(),
        name: peer.name.clone(),
        known: Timestamp(now_ms()),
        expires: Timestamp(u64::try_from(peer.valid.1).unwrap_or(0).saturating_mul(1000)),
        revoked: None,
    }
}

fn out(message: &str) -> Status {
    let hint = "ask an admin for a token, then: qctl login --help (a node: qctl-agent join --help)";
    refuse(Code::Unauthenticated, message, Some(hint.to_owned()))
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
