//! Each attack is refused, the controller lives on, and the refusal is on record.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use proto::v1;
use proto::v1::agents_client::AgentsClient;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::jobs_client::JobsClient;
use runtime::channel::anonymous_channel;
use runtime::pki::{Authority, csr_of, new_key_and_csr};
use runtime::tls::{Identity, Role};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{Agent, Cluster, LIMIT, hello, run_spec, submit, within};

/// What is on record as refused; asked for as an operator, so the service is alive.
async fn refusals(cluster: &Cluster) -> Vec<v1::AuditEntry> {
    let mut client = ClusterClient::new(cluster.channel(Role::Operator, "olga"));
    let request = v1::AuditRequest { refused: true, ..Default::default() };
    within(client.audit(request)).await.unwrap().into_inner().entries
}

/// Waits until a refusal whose reason contains `why` is on record.
async fn on_record(cluster: &Cluster, verb: &str, why: &str) -> v1::AuditEntry {
    within(async {
        loop {
            let all = refusals(cluster).await;
            if let Some(found) = all.into_iter().find(|entry| entry.verb == verb && entry.detail.contains(why)) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

async fn list(channel: Channel) -> Result<(), Status> {
    within(JobsClient::new(channel).list(v1::ListJobsRequest::default())).await.map(drop)
}

#[tokio::test]
async fn a_certificate_of_another_ca_or_one_that_is_over_does_not_connect() {
    let cluster = Cluster::start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Authority::create(elsewhere.path()).unwrap();
    let theirs = other.issue(Role::Admin, "mallory", &[], 1).unwrap();
    let forged = Identity { ca: cluster.authority.cert().to_owned(), ..theirs };
    assert!(list(runtime::channel(&cluster.url(), &forged).unwrap()).await.is_err());
    on_record(&cluster, "connect", "invalid peer certificate").await;
    let over = cluster.authority.issue_for(Role::Admin, "late", &[], Duration::ZERO).unwrap();
    // By whole seconds: it has ended once the second has.
    within(async {
        while list(runtime::channel(&cluster.url(), &over).unwrap()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    on_record(&cluster, "connect", "expired").await;
    assert_eq!(
        list(anonymous_channel(&cluster.url(), cluster.authority.cert()).unwrap()).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert_eq!(on_record(&cluster, "ps", "needs a client certificate").await.who, "");
}

#[tokio::test]
async fn what_was_revoked_is_refused_at_once_and_its_streams_end() {
    let cluster = Cluster::start().await;
    let node = cluster.channel(Role::Agent, "n1");
    let (out, outbound) = tokio::sync::mpsc::channel(8);
    let greeting = v1::AgentMessage { kind: Some(v1::agent_message::Kind::Hello(hello("n1"))) };
    out.send(greeting).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(outbound);
    let mut session = AgentsClient::new(node.clone()).session(stream).await.unwrap().into_inner();
    within(session.message()).await.unwrap().unwrap();

    let revoke = |word: &str| v1::RevokeRequest { word: word.into(), reason: "sold".into() };
    let mut operator = ClusterClient::new(cluster.channel(Role::Operator, "olga"));
    let done = within(operator.revoke(revoke("n1"))).await.unwrap().into_inner();
    assert_eq!(done.certificates.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["n1"]);
    within(async { while let Ok(Some(_)) = session.message().await {} }).await;
    let again = AgentsClient::new(node).push_logs(tokio_stream::empty::<v1::LogChunk>()).await.unwrap_err();
    assert_eq!(again.message(), "the certificate of `n1` was revoked");
    // A new token lets the node in again, in the same second too.
    let token = cluster.token("agent", "n1").await;
    let mut anyone = ClusterClient::new(anonymous_channel(&cluster.url(), cluster.authority.cert()).unwrap());
    let (key, csr) = new_key_and_csr("n1").unwrap();
    let joined = anyone.join(v1::JoinRequest { token, node: "n1".into(), csr }).await.unwrap().into_inner();
    let identity = Identity { ca: joined.ca, cert: joined.certificate, key };
    let mut back = AgentsClient::new(runtime::channel(&cluster.url(), &identity).unwrap());
    assert!(back.push_logs(tokio_stream::empty::<v1::LogChunk>()).await.is_ok());
    on_record(&cluster, "push logs", "was revoked").await;

    // People are an admin's business, and nobody shuts out themselves.
    let _ = list(cluster.channel(Role::User, "bob")).await;
    assert_eq!(operator.revoke(revoke("bob")).await.unwrap_err().code(), Code::PermissionDenied);
    let mut admin = ClusterClient::new(cluster.channel(Role::Admin, "root"));
    assert_eq!(admin.revoke(revoke("root")).await.unwrap_err().code(), Code::FailedPrecondition);
    let bob = cluster.channel(Role::User, "bob");
    list(bob.clone()).await.unwrap();
    admin.revoke(revoke("bob")).await.unwrap();
    assert!(list(bob).await.is_err());
    let known =
        within(admin.list_certificates(v1::ListCertificatesRequest {})).await.unwrap().into_inner().certificates;
    assert!(known.iter().any(|one| one.name == "bob" && one.revoked_by == "root" && one.reason == "sold"));
}

#[tokio::test]
async fn what_was_let_in_and_taken_back_is_so_after_a_restart() {
    let store = store::Memory::new();
    let cluster = Cluster::start_on(tempfile::tempdir().unwrap(), store.clone()).await;
    let token = cluster.token("user", "bob").await;
    let unused = cluster.token("agent", "n7").await;
    let bob = cluster.authority.issue(Role::User, "carol", &[], 1).unwrap();
    list(runtime::channel(&cluster.url(), &bob).unwrap()).await.unwrap();
    let mut admin = ClusterClient::new(cluster.channel(Role::Admin, "root"));
    admin.revoke(v1::RevokeRequest { word: "carol".into(), ..Default::default() }).await.unwrap();
    let dir = cluster.stop().await;
    assert!(!crate::support::mentions(dir.path(), token.as_bytes()), "the token is on disk");

    // Another controller, of the same store.
    let cluster = Cluster::start_on(dir, store).await;
    let refused = list(runtime::channel(&cluster.url(), &bob).unwrap()).await.unwrap_err();
    assert_eq!(refused.message(), "the certificate of `carol` was revoked");
    let mut anyone = ClusterClient::new(anonymous_channel(&cluster.url(), cluster.authority.cert()).unwrap());
    let (key, csr) = new_key_and_csr("x").unwrap();
    let join = |token: &str, node: &str| v1::JoinRequest { token: token.into(), node: node.into(), csr: csr.clone() };
    let joined = within(anyone.join(join(&token, ""))).await.unwrap().into_inner();
    assert_eq!((joined.role.as_str(), joined.name.as_str()), ("user", "bob"));
    let replayed = anyone.join(join(&token, "")).await.unwrap_err();
    assert_eq!(replayed.message(), "the token is unknown or was used");
    on_record(&cluster, "join", "was used").await;
    let identity = Identity { ca: joined.ca, cert: joined.certificate, key };
    let channel = runtime::channel(&cluster.url(), &identity).unwrap();
    list(channel.clone()).await.unwrap();
    // Its own certificate anew, for the key that is there.
    let csr = csr_of(&identity.key).unwrap();
    let renewed = ClusterClient::new(channel).renew(v1::RenewRequest { csr }).await.unwrap().into_inner().certificate;
    let renewed = Identity { cert: renewed, ..identity };
    list(runtime::channel(&cluster.url(), &renewed).unwrap()).await.unwrap();
    assert!(anyone.join(join(&unused, "n7")).await.is_ok());
}

#[tokio::test]
async fn nobody_speaks_for_another() {
    let cluster = Cluster::start().await;
    let refused = Agent::greet(&cluster, "n1", hello("n2")).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let noted = on_record(&cluster, "session", "the greeting says `n2`").await;
    assert_eq!((noted.who.as_str(), noted.object.as_str()), ("n1", "n2"));
    let user = AgentsClient::new(cluster.channel(Role::Admin, "root"));
    let refused = user.clone().push_logs(tokio_stream::empty::<v1::LogChunk>()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    on_record(&cluster, "push logs", "for agents").await;
    // A user's token lets nobody in as a node, and only admins make tokens of people.
    let token = cluster.token("user", "bob").await;
    let mut anyone = ClusterClient::new(anonymous_channel(&cluster.url(), cluster.authority.cert()).unwrap());
    let csr = new_key_and_csr("x").unwrap().1;
    let refused = anyone.join(v1::JoinRequest { token, node: "n1".into(), csr }).await.unwrap_err();
    assert_eq!(refused.message(), "the token is for user `bob`");
    let mut operator = ClusterClient::new(cluster.channel(Role::Operator, "olga"));
    let wish = |role: &str, name: &str| v1::CreateTokenRequest { role: role.into(), name: name.into(), ttl_ms: 60_000 };
    assert!(operator.create_token(wish("agent", "n3")).await.is_ok());
    let refused = operator.create_token(wish("admin", "olga")).await.unwrap_err();
    assert_eq!(refused.message(), "`token create --role admin` needs the role admin; `olga` is an operator");
    on_record(&cluster, "token create", "needs the role admin").await;
    assert_eq!(operator.create_token(wish("controller", "c")).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn names_cannot_leave_their_place_or_move_a_cursor() {
    let cluster = Cluster::start().await;
    let _agent = Agent::join(&cluster, "n1").await;
    let mut admin = ClusterClient::new(cluster.channel(Role::Admin, "root"));
    for name in ["../../etc", "a/b", "\u{1b}[2J", "a\nb", "", &"x".repeat(70)] {
        for role in ["agent", "user"] {
            let wish = v1::CreateTokenRequest { role: role.into(), name: name.into(), ttl_ms: 60_000 };
            assert_eq!(admin.create_token(wish).await.unwrap_err().code(), Code::InvalidArgument, "{name:?}");
        }
        let wish = v1::RevokeRequest { word: name.into(), ..Default::default() };
        assert_eq!(admin.revoke(wish).await.unwrap_err().code(), Code::InvalidArgument, "{name:?}");
    }
    for word in ["../../../etc/passwd", "\u{1b}]0;x\u{7}", "a\0b"] {
        let refused = cluster.jobs().get(v1::GetJobRequest { job: word.into() }).await.unwrap_err();
        assert!([Code::NotFound, Code::InvalidArgument].contains(&refused.code()), "{word:?}: {refused:?}");
        let logs = v1::LogsRequest { job: word.into(), node: word.into(), stage: word.into(), ..Default::default() };
        assert!(cluster.jobs().logs(logs).await.is_err(), "{word:?}");
    }
    // An agent that pushes logs for a place outside of its attempts is heard by nobody.
    let chunk =
        v1::LogChunk { attempt: "../../x.run.0.1".into(), source: "../../../tmp/x".into(), ..Default::default() };
    let mut pushed = cluster.agents("n1").push_logs(tokio_stream::iter([chunk])).await.unwrap().into_inner();
    let _ = within(pushed.message()).await;
    assert!(!crate::support::holds(cluster.dir.path().parent().unwrap(), "tmp/x"));
    assert!(refusals(&cluster).await.iter().all(|entry| entry.result == "refused"));
}

#[tokio::test]
async fn what_is_too_large_or_too_much_is_refused() {
    let cluster = Cluster::start().await;
    let _agent = Agent::join(&cluster, "n1").await;
    let mut huge = submit(&run_spec("huge"));
    huge.spec.push_str(&format!("# {}", "x".repeat(5 << 20)));
    let refused = within(cluster.jobs().submit(huge)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    let mut anyone = ClusterClient::new(anonymous_channel(&cluster.url(), cluster.authority.cert()).unwrap());
    let join = v1::JoinRequest { token: "x".repeat(100 << 10), ..Default::default() };
    assert_eq!(within(anyone.join(join)).await.unwrap_err().code(), Code::OutOfRange);

    // More calls than one may make: refused, while another is served.
    let greedy = cluster.channel(Role::Viewer, "greedy");
    let refused = within(async {
        loop {
            let calls = (0..500).map(|_| JobsClient::new(greedy.clone()).list_owned());
            if let Some(refused) = futures::future::join_all(calls).await.into_iter().find_map(Result::err) {
                return refused;
            }
        }
    })
    .await;
    assert_eq!(refused.code(), Code::ResourceExhausted);
    on_record(&cluster, "ps", "too many calls").await;
    list(cluster.channel(Role::Viewer, "modest")).await.unwrap();
}

/// Lists jobs with a client of its own.
trait ListOwned {
    async fn list_owned(self) -> Result<(), Status>;
}

impl ListOwned for JobsClient<Channel> {
    async fn list_owned(mut self) -> Result<(), Status> {
        self.list(v1::ListJobsRequest::default()).await.map(drop)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_never_speak_shut_nobody_out() {
    let cluster = Cluster::start().await;
    let address = cluster.controller.address();
    let opened = tokio::task::spawn_blocking(move || {
        let mut held = std::collections::VecDeque::new();
        for count in 0..10_000 {
            let mut stream = TcpStream::connect_timeout(&address, LIMIT).unwrap();
            if count % 2 == 0 {
                // The beginning of a greeting, and no more of it. It may have been given up already.
                let _ = stream.write_all(&[0x16, 0x03, 0x01]);
            }
            held.push_back(stream);
            // This process has both ends, and so half as many files.
            if held.len() > 300 {
                held.pop_front();
            }
        }
        held
    });
    let beside = tokio::time::timeout(LIMIT * 4, opened);
    list(cluster.user()).await.unwrap();
    let mut held = beside.await.unwrap().unwrap();
    list(cluster.user()).await.unwrap();
    // Of those that were held none was answered.
    let mut last = held.pop_back().unwrap();
    last.set_nonblocking(true).unwrap();
    assert!(last.read(&mut [0]).is_err());
}
