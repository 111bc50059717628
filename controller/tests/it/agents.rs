//! Sessions, played by hand.

use proto::v1;
use runtime::tls::Role;
use tonic::Code;
use v1::agent_message::Kind as Said;
use v1::controller_message::Kind as Told;

use crate::support::{Agent, Cluster, ended, hello, run_spec, submit, within};

#[tokio::test]
async fn a_task_goes_from_submission_to_success() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::join(&cluster, "n1").await;
    let mut jobs = cluster.jobs();
    let reply = jobs.submit(submit(&run_spec("hello"))).await.unwrap().into_inner();
    let watched = jobs.watch(v1::GetJobRequest { job: reply.id.clone() }).await.unwrap().into_inner();
    let work = agent.start_next().await;
    assert_eq!((work.job_name.as_str(), work.stage_kind.as_str(), work.ranks), ("hello", "run", 1));
    let argv = match work.body.unwrap() {
        v1::assignment::Body::Run(run) => run.argv,
        other => panic!("{other:?}"),
    };
    assert_eq!(argv, ["echo", "hello"]);
    let told = agent.report(&work.attempt, ended("", Vec::new())).await;
    assert!(told.iter().any(|told| matches!(told, Told::Forget(forget) if forget.attempt == work.attempt)));
    let last = within(last(watched)).await;
    assert_eq!((last.phase.as_str(), last.stages[0].tasks_done), ("succeeded", 1));
    assert_eq!(last.stages[0].task_views[0].summary, "done");
    let request = v1::EventsRequest { job: "hello".into(), follow: true, after_seq: 0 };
    let mut events = jobs.events(request).await.unwrap().into_inner();
    let mut kinds = Vec::new();
    while let Some(event) = within(events.message()).await.unwrap() {
        kinds.push(event.kind);
    }
    assert_eq!(kinds.first().map(String::as_str), Some("submitted"));
    assert_eq!(kinds.last().map(String::as_str), Some("job-succeeded"));
    cluster.stop().await;
}

async fn last(mut stream: tonic::Streaming<v1::JobView>) -> v1::JobView {
    let mut newest = None;
    while let Some(view) = stream.message().await.unwrap() {
        newest = Some(view);
    }
    newest.unwrap()
}

#[tokio::test]
async fn progress_is_seen_by_watchers() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::join(&cluster, "n1").await;
    let mut jobs = cluster.jobs();
    jobs.submit(submit(&run_spec("hello"))).await.unwrap();
    let work = agent.start_next().await;
    let mut watched = jobs.watch(v1::GetJobRequest { job: "hello".into() }).await.unwrap().into_inner();
    let train = v1::TrainProgress { iteration: 7, iterations: 10, loss: 2.5, ..Default::default() };
    let what = Some(v1::progress::What::Train(train));
    agent.say(Said::Progress(v1::Progress { attempt: work.attempt, what })).await;
    loop {
        let view = within(watched.message()).await.unwrap().unwrap();
        if let Some(train) = view.stages[0].train {
            assert_eq!((train.iteration, view.phase.as_str()), (7, "running"));
            return;
        }
    }
}

#[tokio::test]
async fn an_agent_speaks_only_for_itself() {
    let cluster = Cluster::start().await;
    let refused = Agent::greet(&cluster, "n1", hello("n2")).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(refused.message(), "the certificate is node `n1`'s, the greeting says `n2`");
    let mut nodes = cluster.nodes();
    assert!(nodes.list(v1::ListNodesRequest {}).await.unwrap().into_inner().nodes.is_empty());
}

#[tokio::test]
async fn an_agent_that_has_obeyed_a_later_controller_is_refused() {
    let cluster = Cluster::start().await;
    let epoch = Some(v1::Epoch { incarnation: 9, term: 1 });
    let refused = Agent::greet(&cluster, "n1", v1::Hello { epoch, ..hello("n1") }).await.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_later_session_ends_the_earlier_one() {
    let cluster = Cluster::start().await;
    let mut first = Agent::join(&cluster, "n1").await;
    let mut second = Agent::join(&cluster, "n1").await;
    let end = loop {
        match within(first.inbound.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no reason was given"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Aborted);
    second.beat(&[]).await;
}

#[tokio::test]
async fn a_lost_hint_is_repeated_at_the_next_session() {
    let cluster = Cluster::start().await;
    let agent = Agent::join(&cluster, "n1").await;
    cluster.jobs().submit(submit(&run_spec("hello"))).await.unwrap();
    drop(agent);
    let mut agent = Agent::join(&cluster, "n1").await;
    let told = agent.beat(&[]).await;
    let told = match told.into_iter().next() {
        Some(told) => told,
        None => agent.next().await,
    };
    assert!(matches!(told, Told::Prepare(_) | Told::Start(_)), "{told:?}");
}

#[tokio::test]
async fn a_malformed_report_is_set_aside_and_a_silent_greeting_is_not_one() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::join(&cluster, "n1").await;
    agent.report("no attempt at all", ended("", Vec::new())).await;
    agent.beat(&[]).await;
    agent.say(Said::Hello(hello("n1"))).await;
    let end = within(agent.inbound.message()).await.unwrap_err();
    assert_eq!(end.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn users_are_no_agents_and_agents_are_no_users() {
    let cluster = Cluster::start().await;
    let user = cluster.channel(Role::User, "ada");
    let mut agents = v1::agents_client::AgentsClient::new(user);
    let refused = agents.session(tokio_stream::pending::<v1::AgentMessage>()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let agent = cluster.channel(Role::Agent, "n1");
    let mut jobs = v1::jobs_client::JobsClient::new(agent);
    let refused = jobs.list(v1::ListJobsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn nodes_are_listed_with_what_they_run() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::join(&cluster, "n1").await;
    cluster.jobs().submit(submit(&run_spec("hello"))).await.unwrap();
    let work = agent.start_next().await;
    agent.beat(&[&work.attempt, "jzz.run.0.1"]).await;
    let nodes = cluster.nodes().list(v1::ListNodesRequest {}).await.unwrap().into_inner().nodes;
    assert_eq!(nodes.len(), 1);
    assert_eq!((nodes[0].id.as_str(), nodes[0].phase.as_str()), ("n1", "ready"));
    assert_eq!(nodes[0].attempts, [work.attempt]);
    assert_eq!(nodes[0].quarantined, ["jzz.run.0.1"]);
}
