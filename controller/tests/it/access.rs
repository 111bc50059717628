//! Roles, whose jobs may be touched, and the record of both.

use proto::v1;
use proto::v1::checkpoints_client::CheckpointsClient;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::jobs_client::JobsClient;
use proto::v1::nodes_client::NodesClient;
use runtime::tls::Role;
use tonic::{Code, Status};

use crate::support::{Agent, Cluster, hint, run_spec, submit, within};

async fn record(cluster: &Cluster, refused: bool) -> Vec<v1::AuditEntry> {
    let mut client = ClusterClient::new(cluster.channel(Role::Operator, "olga"));
    let request = v1::AuditRequest { refused, ..Default::default() };
    within(client.audit(request)).await.unwrap().into_inner().entries
}

fn cancel(job: &str) -> v1::CancelRequest {
    v1::CancelRequest { job: job.into(), ..Default::default() }
}

#[tokio::test]
async fn a_user_touches_own_jobs_and_an_operator_everybodys() {
    let cluster = Cluster::start().await;
    let _agent = Agent::join(&cluster, "n1").await;
    let job = cluster.jobs().submit(submit(&run_spec("first"))).await.unwrap().into_inner().id;

    let mut bob = JobsClient::new(cluster.channel(Role::User, "bob"));
    let view = bob.get(v1::GetJobRequest { job: job.clone() }).await.unwrap().into_inner();
    assert_eq!(view.owner, "ada");
    let refused = bob.cancel(cancel("first")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(
        refused.message(),
        format!("job `{job}` is `ada`'s: `cancel` needs its owner or the role operator; `bob` is a user")
    );
    assert_eq!(hint(&refused), "ask ada, or an operator or an admin");
    let restart = v1::RestartRequest { job: "first".into(), ..Default::default() };
    assert_eq!(bob.restart(restart).await.unwrap_err().code(), Code::PermissionDenied);

    let mut viewer = JobsClient::new(cluster.channel(Role::Viewer, "ada"));
    assert_eq!(within(viewer.list(v1::ListJobsRequest::default())).await.unwrap().into_inner().jobs.len(), 1);
    // The name alone is not enough.
    let refused = viewer.cancel(cancel(&job)).await.unwrap_err();
    assert_eq!(refused.message(), "`cancel` needs the role user; `ada` is a viewer");
    assert!(viewer.submit(submit(&run_spec("second"))).await.is_err());
    assert!(viewer.plan(v1::PlanRequest { submit: Some(submit(&run_spec("second"))) }).await.is_err());

    let mut operator = JobsClient::new(cluster.channel(Role::Operator, "olga"));
    assert_eq!(within(operator.cancel(cancel(&job))).await.unwrap().into_inner().id, job);

    let told: Vec<_> = record(&cluster, false).await;
    let said = |entry: &v1::AuditEntry| format!("{} {} {} {}", entry.who, entry.verb, entry.object, entry.result);
    let lines: Vec<String> = told.iter().map(said).collect();
    let expected = [
        format!("ada submit first ({job}) done"),
        format!("bob cancel {job} refused"),
        format!("bob restart {job} refused"),
        "ada cancel  refused".to_owned(),
        "ada submit  refused".to_owned(),
        "ada plan  refused".to_owned(),
        format!("olga cancel {job} done"),
    ];
    assert_eq!(lines, expected);
    assert!(told.iter().all(|entry| entry.from.starts_with("127.0.0.1:") && !entry.serial.is_empty()));
    assert!(told[1].detail.contains("needs its owner"));
}

#[tokio::test]
async fn nodes_checkpoints_and_the_record_itself_have_their_roles() {
    let cluster = Cluster::start().await;
    let _agent = Agent::join(&cluster, "n1").await;
    let refused = |answer: Result<(), Status>| answer.unwrap_err();
    let mut nodes = NodesClient::new(cluster.channel(Role::User, "bob"));
    let request = v1::CordonRequest { node: "n1".into(), ..Default::default() };
    let no = refused(nodes.cordon(request).await.map(drop));
    assert_eq!(
        (no.code(), no.message()),
        (Code::PermissionDenied, "`cordon` needs the role operator; `bob` is a user")
    );
    assert_eq!(hint(&no), "ask an operator or an admin");
    let mut record_of_user = ClusterClient::new(cluster.channel(Role::User, "bob"));
    assert_eq!(
        refused(record_of_user.audit(v1::AuditRequest::default()).await.map(drop)).code(),
        Code::PermissionDenied
    );
    let mut agents_own = JobsClient::new(cluster.channel(Role::Agent, "n1"));
    let no = refused(agents_own.list(v1::ListJobsRequest::default()).await.map(drop));
    assert_eq!(no.message(), "this call is for users; `n1` is an agent");
    let mut checkpoints = CheckpointsClient::new(cluster.channel(Role::Viewer, "vera"));
    let pin = v1::PinCheckpointRequest::default();
    assert_eq!(refused(checkpoints.pin(pin).await.map(drop)).code(), Code::PermissionDenied);
    let verbs: Vec<String> = record(&cluster, true).await.into_iter().map(|entry| entry.verb).collect();
    assert_eq!(verbs, ["cordon", "audit", "ps", "ckpt pin"]);
}
