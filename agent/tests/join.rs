//! A node without a certificate gets one for a token.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use agent::config::{Config, Flags};
use agent::join::{JoinError, identity};
use agent::renew::Renewal;
use proto::v1::cluster_server::{Cluster, ClusterServer};
use proto::v1::{self, JoinReply, JoinRequest, RenewReply, RenewRequest, StatusReply, StatusRequest};
use runtime::Tasks;
use runtime::pki::Authority;
use runtime::tls::{ClientAuth, Identity, Role, server_tls};
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

struct Door(Authority);

fn nothing() -> Status {
    Status::unimplemented("not here")
}

#[tonic::async_trait]
impl Cluster for Door {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Err(nothing())
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let request = request.into_inner();
        if request.token != "good" {
            return Err(Status::permission_denied("the token is not known"));
        }
        let certificate = self.0.sign_csr(&request.csr, Role::Agent, &request.node, 1).unwrap();
        Ok(Response::new(JoinReply { certificate, ca: "of no interest".into(), ..JoinReply::default() }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let certificate = self.0.sign_csr(&request.into_inner().csr, Role::Agent, "n1", 1).unwrap();
        Ok(Response::new(RenewReply { certificate }))
    }

    async fn audit(&self, _: Request<v1::AuditRequest>) -> Result<Response<v1::AuditReply>, Status> {
        Err(nothing())
    }

    async fn create_token(&self, _: Request<v1::CreateTokenRequest>) -> Result<Response<v1::CreateTokenReply>, Status> {
        Err(nothing())
    }

    async fn list_tokens(&self, _: Request<v1::ListTokensRequest>) -> Result<Response<v1::ListTokensReply>, Status> {
        Err(nothing())
    }

    async fn list_certificates(
        &self,
        _: Request<v1::ListCertificatesRequest>,
    ) -> Result<Response<v1::ListCertificatesReply>, Status> {
        Err(nothing())
    }

    async fn revoke(&self, _: Request<v1::RevokeRequest>) -> Result<Response<v1::RevokeReply>, Status> {
        Err(nothing())
    }
}

fn config(dir: &Path, port: u16, token: &str, ca_digest: &str) -> Config {
    Flags {
        node: Some("n1".into()),
        controller: Some(format!("https://127.0.0.1:{port}")),
        pki: Some(dir.join("pki")),
        state_dir: Some(dir.join("state")),
        address: Some("127.0.0.1".into()),
        device: Some("cpu".into()),
        slots: Some(1),
        join_token: Some(token.into()),
        ca_digest: Some(ca_digest.into()),
        ..Flags::default()
    }
    .check()
    .unwrap()
}

/// Serves `Join` with a certificate of a new CA; with `chain` the CA is shown.
async fn door(dir: &Path, chain: bool, tasks: &Tasks) -> (u16, String, String) {
    let authority = Authority::create(dir).unwrap();
    let (digest, ca) = (authority.digest(), authority.cert().to_owned());
    let mut server = authority.issue(Role::Controller, "c1", &[], 1).unwrap();
    if chain && !server.cert.contains(ca.trim()) {
        server.cert = format!("{}\n{ca}", server.cert);
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = Server::builder()
        .tls_config(server_tls(&server, ClientAuth::Optional))
        .unwrap()
        .add_service(ClusterServer::new(Door(authority)))
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    tasks.spawn("server", serving);
    (port, digest, ca)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_buys_a_certificate_once_the_controller_has_proved_itself() {
    let dir = tempfile::tempdir().unwrap();
    let tasks = Tasks::new();
    let (port, digest, ca) = door(&dir.path().join("ca"), true, &tasks).await;
    let pki = dir.path().join("pki");
    let error = identity(&config(dir.path(), port, "bad", &digest)).await.unwrap_err();
    assert_eq!(error.to_string(), "the controller did not let this node join: the token is not known");
    assert!(!pki.join("cert.pem").exists(), "nothing half done is left");
    let got = identity(&config(dir.path(), port, "good", &digest)).await.unwrap();
    assert_eq!(runtime::pki::digest(&got.ca), runtime::pki::digest(&ca));
    let again = identity(&config(dir.path(), 1, "used up", &digest)).await.unwrap();
    assert_eq!(again.cert, got.cert, "a certificate needs no controller");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_not_told_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let tasks = Tasks::new();
    let (port, digest, ca) = door(&dir.path().join("ca"), true, &tasks).await;
    let (stranger, other, _) = door(&dir.path().join("other"), true, &tasks).await;
    let error = identity(&config(dir.path(), stranger, "good", &digest)).await.unwrap_err();
    assert!(matches!(error, JoinError::NotShown(_)), "{error}");
    let error = identity(&config(dir.path(), 1, "good", &digest)).await.unwrap_err();
    assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");

    // With the CA at hand the chain is not needed, and another CA's is refused.
    let pki = dir.path().join("pki");
    std::fs::create_dir_all(&pki).unwrap();
    std::fs::write(pki.join("ca.pem"), &ca).unwrap();
    let error = identity(&config(dir.path(), stranger, "good", &digest)).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(_)), "{error}");
    assert!(matches!(identity(&config(dir.path(), port, "good", &other)).await, Err(JoinError::OtherCa { .. })));
    identity(&config(dir.path(), port, "good", &digest)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_before_it_ends_and_fits_the_key_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let tasks = Tasks::new();
    let (port, _, _) = door(&dir.path().join("ca"), true, &tasks).await;
    let authority = Authority::load(&dir.path().join("ca")).unwrap();
    let pki = dir.path().join("pki");
    // Two thirds of its life are over in a fraction of the time that the connection needs it for.
    let old = authority.issue_for(Role::Agent, "n1", &[], Duration::from_secs(60)).unwrap();
    let mut short = old.clone();
    short.cert = authority.issue_for(Role::Agent, "n1", &[], Duration::ZERO).unwrap().cert;
    old.save(&pki).unwrap();
    let controller = format!("https://127.0.0.1:{port}");
    let (channels, mut changed) = watch::channel(runtime::channel(&controller, &old).unwrap());
    // What it holds is due at once; the channel it asks over is good.
    let renewal = Renewal { controller, pki: pki.clone(), identity: short, channels };
    tasks.spawn("renewal", renewal.run(tasks.stop_token()));
    tokio::time::timeout(Duration::from_secs(60), changed.changed()).await.unwrap().unwrap();
    let renewed = Identity::load(&pki).unwrap();
    assert_eq!(renewed.key, old.key);
    assert_ne!(renewed.cert, old.cert);
    runtime::shown::Shown::new(&renewed).unwrap();
    assert!(runtime::pki::ends(&renewed.cert) > runtime::pki::ends(&old.cert));
    tasks.stop_token().cancel();
}
