//! Checkpoints that are read and removed, with an agent played by hand.

use std::time::Duration;

use proto::v1;
use tonic::Code;
use v1::agent_message::Kind as Said;
use v1::checkpoint_order::What;
use v1::report::What as Report;

use crate::support::{Agent, Cluster, hint, submit, within};

const TRAINING: &str = "\
name: small
workdir: /w
parallel: { tp: 1, pp: 1 }
runtime: { device: cpu }
storage: shared
stages:
  train: { derive: false, script: train.py, nodes: 1, ranks_per_node: 1, save_dir: ./ckpt, args: [--train-iters, '100'] }
";

fn shard(iteration: u64, size: u64) -> Report {
    let path = format!("/w/./ckpt/iter_{iteration:07}/mp_rank_00/model_optim_rng.pt");
    Report::Shard(v1::CheckpointShard { iteration, tp: 0, pp: 0, path, size })
}

fn tracker(iteration: u64) -> Report {
    Report::Tracker(v1::Tracker { iteration })
}

fn small(iteration: u64) -> v1::CheckpointRequest {
    v1::CheckpointRequest { job: "small".into(), iteration: Some(iteration), stage: String::new() }
}

fn remove(iteration: u64, force: bool) -> v1::DeleteCheckpointRequest {
    v1::DeleteCheckpointRequest { checkpoint: Some(small(iteration)), force }
}

/// Submits the training, and says that it runs.
async fn train(cluster: &Cluster, agent: &mut Agent) -> String {
    let mut jobs = cluster.jobs();
    let submitted =
        async { tokio::join!(jobs.submit(submit(TRAINING)), agent.answer_survey(|_| v1::SurveyAnswer::default())) };
    within(submitted).await.0.unwrap();
    agent.start_next().await.attempt
}

#[tokio::test]
async fn what_a_trainer_may_be_writing_is_neither_removed_nor_judged() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::join(&cluster, "n1").await;
    let work = train(&cluster, &mut agent).await;
    for iteration in [5, 10] {
        agent.tell(&work, shard(iteration, 7)).await;
        agent.tell(&work, tracker(iteration)).await;
    }
    agent.tell(&work, shard(15, 7)).await;
    let mut checkpoints = cluster.checkpoints();
    for iteration in [10, 15] {
        let refused = checkpoints.delete(remove(iteration, false)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("or being written"), "{refused}");
    }

    let mut other = cluster.checkpoints();
    let writes_anew = async {
        let order = agent.next_errand().await;
        // Its time of completion is another one then.
        tokio::time::sleep(Duration::from_millis(5)).await;
        agent.tell(&work, shard(10, 8)).await;
        let fault = v1::CheckpointFault { message: "it is torn".into(), ..Default::default() };
        let answer = v1::CheckpointAnswer { id: order.id, faults: vec![fault], bytes: 7 };
        agent.say(Said::Checkpoint(answer)).await;
    };
    let (refused, ()) = within(async { tokio::join!(other.verify(small(10)), writes_anew) }).await;
    let refused = refused.unwrap_err();
    assert!(refused.message().contains("was written anew while it was read"), "{refused}");
    assert!(hint(&refused).contains("qctl ckpt verify"), "{refused}");
    let all = checkpoints.list(v1::ListCheckpointsRequest::default()).await.unwrap().into_inner().checkpoints;
    assert!(all.iter().all(|one| !one.broken), "{all:?}");

    // A part that was reported is asked for where the training sits, by its directory's one name.
    let obeys = async {
        let order = agent.next_errand().await;
        assert_eq!((order.save_dir.as_str(), order.iteration), ("/w/ckpt", 15));
        assert!(matches!(&order.what, Some(What::Remove(wish)) if wish.tracker == Some(10)), "{order:?}");
        agent.say(Said::Checkpoint(v1::CheckpointAnswer { id: order.id, bytes: 7, ..Default::default() })).await;
    };
    let (removed, ()) = within(async { tokio::join!(checkpoints.delete(remove(15, true)), obeys) }).await;
    let removed = removed.unwrap().into_inner();
    assert_eq!((removed.outcome.as_str(), removed.nodes), ("removed", vec!["n1".to_owned()]));
}

#[tokio::test]
async fn nothing_is_called_removed_where_no_node_was_asked() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::join(&cluster, "n1").await;
    let work = train(&cluster, &mut agent).await;
    agent.tell(&work, tracker(20)).await;
    let mut checkpoints = cluster.checkpoints();
    let asked = async {
        let order = agent.next_errand().await;
        assert!(order.shards.is_empty(), "no shard was reported");
        let fault = v1::CheckpointFault { message: "it is busy".into(), ..Default::default() };
        let answer = v1::CheckpointAnswer { id: order.id, faults: vec![fault], bytes: 0 };
        agent.say(Said::Checkpoint(answer)).await;
    };
    let (partly, ()) = within(async { tokio::join!(checkpoints.delete(remove(20, true)), asked) }).await;
    assert_eq!(partly.unwrap().into_inner().outcome, "partly");
}
