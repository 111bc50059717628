//! Submitting, planning and ending jobs.

use proto::v1;
use tonic::Code;

use crate::support::{Agent, Cluster, hint, run_spec, submit};

/// A file whose model and text only an agent can see.
const PIPELINE: &str = "\
name: tiny
workdir: /data
parallel: { tp: 1, pp: 2 }
model: { hf_dir: ./hf }
runtime: { device: cpu }
stages:
  convert: { save_dir: ./mcore }
";

#[tokio::test]
async fn what_is_wrong_with_a_file_is_told_with_its_line() {
    let cluster = Cluster::start().await;
    let spec = run_spec("hello").replace("argv", "argw");
    let refused = cluster.jobs().submit(submit(&spec)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("test.yaml:4: stages.hello.run"), "{}", refused.message());
    let set = vec![v1::SetValue { path: "name".into(), value: "Not A Name".into() }];
    let refused = cluster.jobs().submit(v1::SubmitRequest { set, ..submit(&run_spec("hello")) }).await.unwrap_err();
    assert!(refused.message().contains("--set name"), "{}", refused.message());
}

#[tokio::test]
async fn a_name_in_use_is_refused_and_a_key_repeats_the_answer() {
    let cluster = Cluster::start().await;
    let mut jobs = cluster.jobs();
    let keyed = v1::SubmitRequest { idempotency_key: "k1".into(), ..submit(&run_spec("hello")) };
    let first = jobs.submit(keyed.clone()).await.unwrap().into_inner();
    let again = jobs.submit(keyed).await.unwrap().into_inner();
    assert_eq!((&first.id, &first.name), (&again.id, &again.name));
    let refused = jobs.submit(submit(&run_spec("hello"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert_eq!(refused.message(), format!("the name `hello` is in use by job `{}`", first.id));
    assert!(hint(&refused).contains("`-n`"), "{}", hint(&refused));
    let named = v1::SubmitRequest { name: "other".into(), ..submit(&run_spec("hello")) };
    assert_eq!(jobs.submit(named).await.unwrap().into_inner().name, "other");
    let listed = jobs.list(v1::ListJobsRequest::default()).await.unwrap().into_inner().jobs;
    let names: Vec<&str> = listed.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, ["other", "hello"], "newest first");
}

#[tokio::test]
async fn a_cancelled_job_gives_its_name_back() {
    let cluster = Cluster::start().await;
    let mut jobs = cluster.jobs();
    let first = jobs.submit(submit(&run_spec("hello"))).await.unwrap().into_inner();
    let cancel = || v1::CancelRequest { job: "hello".into(), reason: "enough".into(), grace_ms: None };
    let reply = jobs.cancel(cancel()).await.unwrap().into_inner();
    assert_eq!((reply.id.as_str(), reply.outcome.as_str()), (first.id.as_str(), "cancelling"));
    let reply = jobs.cancel(cancel()).await.unwrap().into_inner();
    assert_eq!((reply.outcome.as_str(), reply.phase.as_str()), ("already-ended", "cancelled"));
    let view = jobs.get(v1::GetJobRequest { job: "hello".into() }).await.unwrap().into_inner();
    assert_eq!(view.reason, "`ada` asked to cancel it: enough");
    jobs.submit(submit(&run_spec("hello"))).await.unwrap();
    let missing = jobs.get(v1::GetJobRequest { job: "helo".into() }).await.unwrap_err();
    assert_eq!((missing.code(), hint(&missing)), (Code::NotFound, "did you mean `hello`?".to_owned()));
}

#[tokio::test]
async fn a_job_that_needs_to_be_seen_is_refused_without_agents_and_planned_all_the_same() {
    let cluster = Cluster::start().await;
    let mut jobs = cluster.jobs();
    let refused = jobs.submit(submit(PIPELINE)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(hint(&refused).starts_with("start an agent"), "{}", hint(&refused));
    let request = v1::PlanRequest { submit: Some(submit(PIPELINE)) };
    let plan = jobs.plan(request).await.unwrap().into_inner();
    assert!(plan.unseen.iter().any(|line| line.contains("the model in `./hf`")), "{:?}", plan.unseen);
    assert_eq!(plan.stages[0].tasks.len(), 3, "two shards and the closing task");
    let argv = &plan.stages[0].tasks[1].commands[0].argv;
    assert_eq!((argv[0].as_str(), argv.last().unwrap().as_str()), ("qctl-convert", "./mcore/.parts/tp0-pp1.<attempt>"));
    assert!(jobs.list(v1::ListJobsRequest { all: true, limit: 0 }).await.unwrap().into_inner().jobs.is_empty());
}

#[tokio::test]
async fn a_plan_says_where_tasks_would_go() {
    let cluster = Cluster::start().await;
    let _agent = Agent::join(&cluster, "n1").await;
    let request = v1::PlanRequest { submit: Some(submit(&run_spec("hello"))) };
    let plan = cluster.jobs().plan(request).await.unwrap().into_inner();
    assert_eq!(plan.stages[0].tasks[0].placement, ["n1"]);
    assert_eq!(plan.stages[0].tasks[0].commands[0].argv, ["echo", "hello"]);
    assert!(plan.unseen.is_empty(), "{:?}", plan.unseen);
}
