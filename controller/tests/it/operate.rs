//! Operators set nodes aside, and users restart jobs.

use proto::v1;
use tonic::Code;

use crate::support::{Agent, Cluster, ended, hint, run_spec, submit};

fn cordon(node: &str) -> v1::CordonRequest {
    v1::CordonRequest { node: node.into(), reason: "fan".into() }
}

#[tokio::test]
async fn a_cordon_keeps_work_away_until_it_is_taken_back() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::join(&cluster, "node-1").await;
    let (mut nodes, mut jobs) = (cluster.nodes(), cluster.jobs());
    let refused = nodes.cordon(cordon("node-2")).await.unwrap_err();
    assert_eq!((refused.code(), hint(&refused).as_str()), (Code::NotFound, "did you mean `node-1`?"));
    let reply = nodes.cordon(cordon("node-1")).await.unwrap().into_inner();
    let view = reply.node.unwrap().cordon.unwrap();
    assert_eq!((reply.outcome.as_str(), view.by.as_str(), view.reason.as_str()), ("cordoned", "ada", "fan"));
    assert!(view.empty && !view.draining && view.at_ms > 0);
    assert_eq!(nodes.cordon(cordon("node-1")).await.unwrap().into_inner().outcome, "unchanged");
    let id = jobs.submit(submit(&run_spec("hello"))).await.unwrap().into_inner().id;
    let view = jobs.get(v1::GetJobRequest { job: id.clone() }).await.unwrap().into_inner();
    assert!(view.reason.ends_with("node `node-1` is cordoned by ada: fan"), "{}", view.reason);
    let drain = v1::DrainRequest { node: "node-1".into(), reason: "fan".into(), deadline_ms: Some(60_000) };
    let reply = nodes.drain(drain).await.unwrap().into_inner();
    let view = reply.node.unwrap().cordon.unwrap();
    assert_eq!(reply.outcome, "draining");
    assert!(view.draining && view.deadline_ms >= view.at_ms + 60_000);
    let uncordon = v1::UncordonRequest { node: "node-1".into() };
    let reply = nodes.uncordon(uncordon.clone()).await.unwrap().into_inner();
    assert_eq!((reply.outcome.as_str(), reply.node.unwrap().cordon), ("uncordoned", None));
    assert_eq!(nodes.uncordon(uncordon).await.unwrap().into_inner().outcome, "unchanged");
    assert!(agent.start_next().await.attempt.starts_with(&id));
}

#[tokio::test]
async fn a_node_that_may_speak_is_not_fenced() {
    let cluster = Cluster::start().await;
    let _agent = Agent::join(&cluster, "node-1").await;
    let fence = v1::FenceRequest { node: "node-1".into(), reason: "power".into() };
    let refused = cluster.nodes().fence(fence).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("can be told to stop what it runs"), "{}", refused.message());
    assert!(hint(&refused).contains("qctl drain node-1 --deadline 0s"), "{}", hint(&refused));
}

#[tokio::test]
async fn a_job_goes_on_under_its_own_name_and_number() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::join(&cluster, "n1").await;
    let mut jobs = cluster.jobs();
    let id = jobs.submit(submit(&run_spec("hello"))).await.unwrap().into_inner().id;
    let first = agent.start_next().await.attempt;
    let again = |stage: &str, key: &str| v1::RestartRequest {
        job: "hello".into(),
        from_stage: stage.into(),
        idempotency_key: key.into(),
        ..Default::default()
    };
    let refused = jobs.restart(again("", "")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "job `hello` is running"));
    agent.tell(&first, ended("", Vec::new())).await;
    assert_eq!(jobs.restart(again("", "")).await.unwrap().into_inner().outcome, "nothing-to-do");
    let refused = jobs.restart(again("helo", "")).await.unwrap_err();
    assert_eq!((refused.code(), hint(&refused).as_str()), (Code::NotFound, "did you mean `hello`?"));
    let reply = jobs.restart(again("hello", "k")).await.unwrap().into_inner();
    assert_eq!(
        (reply.id.as_str(), reply.outcome.as_str(), reply.stages),
        (id.as_str(), "restarted", vec!["hello".to_owned()])
    );
    assert_eq!(jobs.restart(again("hello", "k")).await.unwrap().into_inner().outcome, "repeated");
    assert_eq!(agent.start_next().await.number, 2);
    let view = jobs.get(v1::GetJobRequest { job: id }).await.unwrap().into_inner();
    assert_eq!(view.stages[0].task_views[0].history.len(), 1);
}
