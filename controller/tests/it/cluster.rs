//! Joining, and who may call what.

use proto::v1;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::jobs_client::JobsClient;
use runtime::channel::anonymous_channel;
use runtime::pki::new_key_and_csr;
use runtime::tls::Identity;
use tonic::Code;

use crate::support::{Cluster, hello, hint, within};

fn join(token: &str, node: &str, csr: &str) -> v1::JoinRequest {
    v1::JoinRequest { token: token.into(), node: node.into(), csr: csr.into() }
}

#[tokio::test]
async fn a_token_becomes_a_certificate_that_opens_sessions() {
    let cluster = Cluster::start().await;
    let token = cluster.token("agent", "n7").await;
    let mut anyone = ClusterClient::new(anonymous_channel(&cluster.url(), cluster.authority.cert()).unwrap());
    let (key, csr) = new_key_and_csr("n7").unwrap();
    let malformed = anyone.join(join(&token, "n7", "no request")).await.unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument, "and the token is not used up");
    let reply = within(anyone.join(join(&token, "n7", &csr))).await.unwrap().into_inner();
    assert_eq!((reply.ca.as_str(), reply.role.as_str()), (cluster.authority.cert(), "agent"));
    let again = anyone.join(join(&token, "n7", &csr)).await.unwrap_err();
    assert_eq!((again.code(), again.message()), (Code::PermissionDenied, "the token is unknown or was used"));
    assert!(hint(&again).starts_with("ask for a new token"));

    let identity = Identity { ca: reply.ca, cert: reply.certificate, key };
    let channel = runtime::channel(&cluster.url(), &identity).unwrap();
    let mut agents = v1::agents_client::AgentsClient::new(channel);
    let greeting = v1::AgentMessage { kind: Some(v1::agent_message::Kind::Hello(hello("n7"))) };
    let outbound = tokio_stream::iter([greeting]);
    let mut session = agents.session(outbound).await.unwrap().into_inner();
    let first = within(session.message()).await.unwrap().unwrap();
    assert!(matches!(first.kind, Some(v1::controller_message::Kind::Welcome(_))));
}

#[tokio::test]
async fn a_token_for_another_node_is_refused() {
    let cluster = Cluster::start().await;
    let token = cluster.token("agent", "n7").await;
    let mut anyone = ClusterClient::new(anonymous_channel(&cluster.url(), cluster.authority.cert()).unwrap());
    let (_, csr) = new_key_and_csr("n8").unwrap();
    let refused = anyone.join(join(&token, "n8", &csr)).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "the token is for agent `n7`"));
}

#[tokio::test]
async fn without_a_certificate_there_is_nothing_else_but_health() {
    let cluster = Cluster::start().await;
    let anyone = || anonymous_channel(&cluster.url(), cluster.authority.cert()).unwrap();
    let refused = JobsClient::new(anyone()).list(v1::ListJobsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = ClusterClient::new(anyone()).status(v1::StatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut health = tonic_health::pb::health_client::HealthClient::new(anyone());
    let service = "qctl.v1.Jobs".to_owned();
    let answer = health.check(tonic_health::pb::HealthCheckRequest { service }).await.unwrap().into_inner();
    assert_eq!(answer.status, i32::from(tonic_health::pb::health_check_response::ServingStatus::Serving));
}

#[tokio::test]
async fn the_status_names_version_and_epoch() {
    let cluster = Cluster::start().await;
    let status = cluster.cluster().status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(status.epoch, Some(v1::Epoch { incarnation: 1, term: 1 }));
    let all = v1::ListCheckpointsRequest::default();
    assert!(cluster.checkpoints().list(all).await.unwrap().into_inner().checkpoints.is_empty());
}
