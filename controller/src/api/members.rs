//! Who is let in: tokens, certificates, and taking both back.

use std::sync::Arc;
use std::time::Duration;

use model::{Certificate, NodeId, Revocation, Timestamp, Token};
use proto::v1;
use rand::RngCore as _;
use runtime::clock::now_ms;
use runtime::pki::{Authority, is_name};
use runtime::tls::{Peer, Role, peer_of_pem};
use tonic::{Code, Status};

use super::{chain, refuse};
use crate::access::{Answer, Ask, Call, known};
use crate::driver::Handle;

/// Shortest and longest life of a token.
const TTL: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(7 * 86_400));
/// Longest signing request, in bytes.
const CSR: usize = 16 << 10;
/// Longest token, in bytes.
const TOKEN: usize = 256;
/// Days that a certificate is good for, once renewed from then on.
const DAYS: u32 = 365;

/// The clerk of members.
#[derive(Clone, Debug)]
pub(super) struct Members {
    pub(super) driver: Handle,
    /// Signs certificates; absent where the CA's key is kept elsewhere.
    pub(super) authority: Option<Arc<Authority>>,
}

impl Members {
    pub(super) async fn create(
        &self,
        call: &Call,
        request: v1::CreateTokenRequest,
    ) -> Result<v1::CreateTokenReply, Status> {
        let v1::CreateTokenRequest { role, name, ttl_ms } = request;
        call.about(&format!("{role} {name}"));
        let role = Role::named(&role).filter(|role| *role != Role::Controller).ok_or_else(|| {
            let hint = "it is one of agent, viewer, user, operator, admin";
            refuse(Code::InvalidArgument, format!("`{role}` is no role"), Some(hint.to_owned()))
        })?;
        if role != Role::Agent {
            call.needs(Role::Admin, &format!("token create --role {}", role.name()))?;
        }
        check_name(role, &name)?;
        let authority = self.authority()?;
        let ttl = Duration::from_millis(ttl_ms);
        if ttl < TTL.0 || ttl > TTL.1 {
            return Err(Status::invalid_argument("a token is good for one minute to seven days"));
        }
        let mut bytes = [0; 32];
        rand::rng().fill_bytes(&mut bytes);
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let (made, by) = (Timestamp(now_ms()), call.caller()?.name.clone());
        let expires = made.after_ms(ttl_ms);
        let record = Token { digest: digest(&token), role: role.name().to_owned(), name, by, made, expires };
        if self.driver.access(Ask::Make(record)).await? == Answer::Full {
            return Err(full("tokens wait for their use already", "qctl token ls"));
        }
        Ok(v1::CreateTokenReply { token, expires_ms: expires.0, ca_digest: authority.digest() })
    }

    /// Exchanges a token for a certificate.
    pub(super) async fn join(&self, call: &Call, request: v1::JoinRequest) -> Result<v1::JoinReply, Status> {
        let v1::JoinRequest { token, node, csr } = request;
        call.about(&node);
        self.driver.leads()?;
        let authority = self.authority()?;
        if token.len() > TOKEN {
            return Err(not_taken(&Answer::NoToken));
        }
        let digest = digest(&token);
        // For what it signs; whether the token is good is the ledger's word.
        let meant = self.driver.board().tokens().into_iter().find(|token| token.digest == digest);
        let Some((role, name)) = meant.and_then(|token| Some((Role::named(&token.role)?, token.name))) else {
            return Err(not_taken(&Answer::NoToken));
        };
        if !node.is_empty() && node != name {
            return Err(not_taken(&Answer::Other { role: role.name().to_owned(), name }));
        }
        call.about(&format!("{} {name}", role.name()));
        // Signed first: a malformed request does not use up the token.
        let (certificate, peer) = sign(&authority, csr, role, &name).await?;
        let answer = self.driver.access(Ask::Use { digest, certificate: known(&peer) }).await?;
        if answer != Answer::Done {
            return Err(not_taken(&answer));
        }
        let (role, ca) = (role.name().to_owned(), authority.cert().to_owned());
        Ok(v1::JoinReply { certificate, ca, role, name })
    }

    /// Gives whoever calls another certificate of the same name and role.
    pub(super) async fn renew(&self, call: &Call, csr: String) -> Result<v1::RenewReply, Status> {
        self.driver.leads()?;
        let (authority, caller) = (self.authority()?, call.caller()?);
        call.about(&format!("{} {}", caller.role.name(), caller.name));
        if caller.role == Role::Controller {
            return Err(Status::permission_denied("a controller's certificate is renewed on its host"));
        }
        let (certificate, peer) = sign(&authority, csr, caller.role, &caller.name).await?;
        if self.driver.access(Ask::Know(known(&peer))).await? == Answer::Full {
            return Err(full("certificates are remembered already", "qctl certs"));
        }
        Ok(v1::RenewReply { certificate })
    }

    pub(super) async fn revoke(&self, call: &Call, request: v1::RevokeRequest) -> Result<v1::RevokeReply, Status> {
        let v1::RevokeRequest { word, reason } = request;
        call.about(&word);
        if !is_name(&word) {
            let hint = Some("name one of: qctl certs".to_owned());
            return Err(refuse(Code::InvalidArgument, "that is no name and no serial number", hint));
        }
        let caller = call.caller()?;
        if word == caller.name || word == caller.serial {
            let hint = Some("have another admin do it".to_owned());
            return Err(refuse(Code::FailedPrecondition, "that would be your own certificate", hint));
        }
        let agent = |role: &str| role == Role::Agent.name();
        let board = self.driver.board();
        let held = board.certificates().into_iter().filter(|one| one.name == word || one.serial == word);
        let waiting = board.tokens().into_iter().filter(|token| token.name == word);
        let roles: Vec<String> = held.map(|one| one.role).chain(waiting.map(|token| token.role)).collect();
        if roles.is_empty() || !roles.iter().all(|role| agent(role)) {
            call.needs(Role::Admin, "revoke of what is no agent's")?;
        }
        let reason = reason.chars().take(1000).collect();
        let revocation = Revocation { by: caller.name.clone(), at: Timestamp(now_ms()), reason };
        let Answer::Revoked { certificates, tokens } = self.driver.access(Ask::Revoke { word, revocation }).await?
        else {
            return Err(Status::internal("the request was not answered"));
        };
        Ok(v1::RevokeReply {
            certificates: certificates.into_iter().map(certificate_view).collect(),
            tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
        })
    }

    pub(super) fn tokens(&self) -> Result<v1::ListTokensReply, Status> {
        self.driver.leads()?;
        let view = |token: Token| v1::TokenView {
            role: token.role,
            name: token.name,
            by: token.by,
            made_ms: token.made.0,
            expires_ms: token.expires.0,
        };
        let good = self.driver.board().tokens().into_iter().filter(|token| token.expires.0 > now_ms());
        Ok(v1::ListTokensReply { tokens: good.map(view).collect() })
    }

    pub(super) fn certificates(&self) -> Result<v1::ListCertificatesReply, Status> {
        self.driver.leads()?;
        let mut all = self.driver.board().certificates();
        all.sort_by(|a, b| (&a.role, &a.name, a.known).cmp(&(&b.role, &b.name, b.known)));
        Ok(v1::ListCertificatesReply { certificates: all.into_iter().map(certificate_view).collect() })
    }

    fn authority(&self) -> Result<Arc<Authority>, Status> {
        let hint = "sign where the key is: qctl-controller init --help";
        let none = || refuse(Code::FailedPrecondition, "this controller does not hold the CA's key", Some(hint.into()));
        self.authority.clone().ok_or_else(none)
    }
}

fn certificate_view(one: Certificate) -> v1::CertificateView {
    let (revoked_ms, revoked_by, reason) =
        one.revoked.map_or_else(Default::default, |revoked| (revoked.at.0, revoked.by, revoked.reason));
    v1::CertificateView {
        serial: one.serial,
        role: one.role,
        name: one.name,
        known_ms: one.known.0,
        expires_ms: one.expires.0,
        revoked_ms,
        revoked_by,
        reason,
    }
}

async fn sign(authority: &Arc<Authority>, csr: String, role: Role, name: &str) -> Result<(String, Peer), Status> {
    if csr.len() > CSR {
        return Err(Status::invalid_argument(format!("the signing request is longer than {CSR} bytes")));
    }
    let (authority, name) = (authority.clone(), name.to_owned());
    let signed = tokio::task::spawn_blocking(move || authority.sign_csr(&csr, role, &name, DAYS)).await;
    let certificate = signed
        .map_err(|_| Status::internal("the signer failed"))?
        .map_err(|error| Status::invalid_argument(chain(&error)))?;
    let peer = peer_of_pem(&certificate).ok_or_else(|| Status::internal("the signer made no certificate"))?;
    Ok((certificate, peer))
}

fn check_name(role: Role, name: &str) -> Result<(), Status> {
    if role == Role::Agent {
        return NodeId::new(name).map(drop).map_err(|error| Status::invalid_argument(error.to_string()));
    }
    if is_name(name) {
        return Ok(());
    }
    let hint = "1 to 63 letters, digits, `-`, `.`, `_` or `@`";
    Err(refuse(Code::InvalidArgument, "that cannot be a name in a certificate", Some(hint.to_owned())))
}

fn digest(token: &str) -> String {
    blake3::hash(token.as_bytes()).to_hex().to_string()
}

fn full(what: &str, list: &str) -> Status {
    refuse(Code::ResourceExhausted, format!("too many {what}"), Some(format!("see which: {list}")))
}

fn not_taken(answer: &Answer) -> Status {
    let text = match answer {
        Answer::Expired => "the token has expired".to_owned(),
        Answer::Other { role, name } => format!("the token is for {role} `{name}`"),
        Answer::Full => return full("certificates are remembered already", "qctl certs"),
        Answer::Done | Answer::Revoked { .. } | Answer::NoToken => "the token is unknown or was used".to_owned(),
    };
    let hint = "ask for a new token: qctl token create --help";
    refuse(Code::PermissionDenied, text, Some(hint.to_owned()))
}
