//! Training ranks and their scheduler, played by `examples/standin`.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{Rig, lives};
use proto::v1::assignment::Body;
use proto::v1::controller_message::Kind as Say;
use proto::v1::{Assignment, DeviceKind, Runtime, Stop, TrainBody, progress, report::What};

const ATTEMPT: &str = "j1.train.0.1";

fn standin() -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/standin/pretrain_gpt.py");
    root.canonicalize().unwrap().to_string_lossy().into_owned()
}

/// Four ranks, TP 2 x PP 2, twenty fast iterations with a checkpoint every five.
fn training(rig: &Rig, more: &[&str]) -> Assignment {
    let script = standin();
    let mut args: Vec<String> =
        "--tensor-model-parallel-size 2 --pipeline-model-parallel-size 2 --micro-batch-size 1 --global-batch-size 4 \
         --train-iters 20 --save-interval 5 --log-interval 1 --padded-vocab-size 1000 --step-ms 20 --save ckpt"
            .split_whitespace()
            .map(str::to_owned)
            .collect();
    let train_iters = more.iter().skip_while(|a| **a != "--train-iters").nth(1).map_or(20, |n| n.parse().unwrap());
    args.extend(more.iter().map(|a| (*a).to_owned()));
    Assignment {
        epoch: rig.controller.epoch(),
        attempt: ATTEMPT.into(),
        job_name: "job".into(),
        stage_kind: "train".into(),
        ranks: 4,
        world_size: 4,
        nodes: 1,
        slots: vec![0, 1, 2, 3],
        number: 1,
        runtime: Some(Runtime {
            workdir: rig.work().to_string_lossy().into_owned(),
            python: "python3".into(),
            device: DeviceKind::Cpu.into(),
            ..Runtime::default()
        }),
        body: Some(Body::Train(TrainBody {
            launcher: "ranks".into(),
            scheduler: vec!["python".into(), script.clone()],
            script,
            args,
            tp: 2,
            pp: 2,
            save_dir: "ckpt".into(),
            train_iters,
            vocab_size: 1000,
            grace_ms: 10_000,
        })),
        ..Assignment::default()
    }
}

/// Prepares, and starts at the port that was offered.
async fn start(rig: &Rig, mut assignment: Assignment) -> Assignment {
    rig.controller.say(Say::Prepare(assignment.clone())).await;
    let port = rig.controller.port(&assignment.attempt).await;
    assert!(port > 0);
    assignment.master_address = "127.0.0.1".into();
    assignment.master_port = port;
    rig.controller.say(Say::Start(assignment.clone())).await;
    assignment
}

async fn reaches(rig: &Rig, iteration: u64) {
    rig.controller
        .wait("an iteration", |seen| {
            let at = |p: &progress::What| matches!(p, progress::What::Train(t) if t.iteration >= iteration);
            seen.progress.iter().any(|p| p.what.as_ref().is_some_and(at)).then_some(())
        })
        .await;
}

fn seen_shards(rig: &Rig) -> (BTreeSet<(u64, u32, u32)>, Vec<u64>, usize) {
    let seen = rig.controller.0.lock().unwrap();
    let mut shards = BTreeSet::new();
    let (mut trackers, mut count) = (Vec::new(), 0);
    for report in &seen.reports {
        match &report.what {
            Some(What::Shard(s)) => {
                shards.insert((s.iteration, s.tp, s.pp));
                count += 1;
            }
            Some(What::Tracker(t)) => trackers.push(t.iteration),
            _ => {}
        }
    }
    (shards, trackers, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_runs_to_its_end_and_all_of_it_is_told() {
    let rig = Rig::new().await;
    start(&rig, training(&rig, &[])).await;
    let ended = rig.controller.ended(ATTEMPT).await;
    assert!(ended.ok, "{ended:?}");
    assert!(ended.output.unwrap().summary.starts_with("iteration 20 of 20"));
    let (shards, trackers, count) = seen_shards(&rig);
    let all: BTreeSet<_> =
        [5, 10, 15, 20].into_iter().flat_map(|i| [(i, 0, 0), (i, 1, 0), (i, 0, 1), (i, 1, 1)]).collect();
    assert_eq!((shards, count), (all, 16), "each shard once");
    assert_eq!(trackers.last(), Some(&20));
    reaches(&rig, 20).await;
    let last = (ATTEMPT.to_owned(), "worker_3".to_owned());
    let log = rig.controller.wait("log", |s| s.done.contains(&last).then(|| s.logs[&last].clone())).await;
    assert_eq!(log, std::fs::read(rig.seat(ATTEMPT).join("logs/worker_3.log")).unwrap());
    let sources: Vec<_> = rig.controller.0.lock().unwrap().logs.keys().map(|k| k.1.clone()).collect();
    assert_eq!(sources, ["scheduler", "worker_0", "worker_1", "worker_2", "worker_3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rank_is_named_within_a_second_and_the_rest_stops() {
    let rig = Rig::new().await;
    start(&rig, training(&rig, &["--train-iters", "100000", "--save-interval", "100000"])).await;
    reaches(&rig, 3).await;
    let children = rig.children(ATTEMPT);
    assert_eq!(children.len(), 5);
    let killed = Instant::now();
    rig.kill(children[3]);
    let failure = rig.controller.failed(ATTEMPT).await;
    let at = rig.controller.wait("when", |seen| {
        let failed = seen.reports.iter().position(|r| matches!(r.what, Some(What::Failed(_))))?;
        Some(seen.at[failed])
    });
    let latency = at.await.duration_since(killed);
    assert!(latency < Duration::from_secs(1), "{latency:?}");
    assert_eq!((failure.rank, failure.cause.as_str(), failure.code), (Some(2), "signal", 9));
    assert_eq!(failure.node, "n1");
    let ended = rig.controller.ended(ATTEMPT).await;
    assert!(!ended.ok);
    assert_eq!(ended.failure.unwrap().rank, Some(2));
    assert!(children.iter().all(|pid| !lives(*pid)), "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_is_the_evidence() {
    let rig = Rig::new().await;
    start(&rig, training(&rig, &["--fail", "1:4:exception", "--collective-timeout", "5"])).await;
    let failure = rig.controller.failed(ATTEMPT).await;
    assert_eq!((failure.rank, failure.cause.as_str(), failure.code), (Some(1), "exit", 1));
    assert!(failure.message.contains("RuntimeError: a failure that was asked for"), "{failure:?}");
    assert!(failure.evidence.iter().any(|l| l.starts_with("Traceback")), "{failure:?}");
    assert!(failure.evidence.len() <= 20);
    rig.controller.ended(ATTEMPT).await;
    assert_eq!(rig.controller.count(ATTEMPT, |w| matches!(w, What::Failed(_))), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_scheduler_is_the_cause_and_its_ranks_are_not() {
    let rig = Rig::new().await;
    start(&rig, training(&rig, &["--train-iters", "100000", "--save-interval", "100000"])).await;
    reaches(&rig, 3).await;
    let children = rig.children(ATTEMPT);
    rig.kill(children[0]);
    let failure = rig.controller.failed(ATTEMPT).await;
    assert_eq!((failure.rank, failure.cause.as_str(), failure.code), (None, "signal", 9), "{failure:?}");
    assert!(failure.message.contains("scheduler"));
    rig.controller.ended(ATTEMPT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_stop_lets_the_trainer_save() {
    let rig = Rig::new().await;
    let more = ["--train-iters", "100000", "--save-interval", "100000", "--exit-signal-handler"];
    start(&rig, training(&rig, &more)).await;
    reaches(&rig, 3).await;
    let children = rig.children(ATTEMPT);
    let stop = Stop { epoch: rig.controller.epoch(), attempt: ATTEMPT.into(), grace_ms: 20_000 };
    rig.controller.say(Say::Stop(stop)).await;
    let ended = rig.controller.ended(ATTEMPT).await;
    assert!(!ended.ok && ended.failure.is_none(), "{ended:?}");
    assert!(children.iter().all(|pid| !lives(*pid)));
    let (shards, trackers, _) = seen_shards(&rig);
    assert_eq!((shards.len(), trackers.len()), (4, 1), "the save is seen before the end is told");
    let position = |is: &dyn Fn(&What) -> bool| {
        let seen = rig.controller.0.lock().unwrap();
        seen.reports.iter().rposition(|r| r.what.as_ref().is_some_and(is)).unwrap()
    };
    assert!(position(&|w| matches!(w, What::Tracker(_))) < position(&|w| matches!(w, What::Ended(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_survives_its_agent_and_nothing_is_told_twice() {
    let mut rig = Rig::new().await;
    start(&rig, training(&rig, &["--step-ms", "100"])).await;
    reaches(&rig, 6).await;
    let children = rig.children(ATTEMPT);
    rig.kill_agent();
    assert!(children.iter().all(|pid| lives(*pid)));
    rig.start_agent();
    let ended = rig.controller.ended(ATTEMPT).await;
    assert!(ended.ok, "{ended:?}");
    let (shards, trackers, count) = seen_shards(&rig);
    assert_eq!((shards.len(), count), (16, 16));
    assert_eq!(trackers.last(), Some(&20));
    assert_eq!(rig.controller.count(ATTEMPT, |w| matches!(w, What::Started(_))), 1);
    assert_eq!(rig.controller.count(ATTEMPT, |w| matches!(w, What::Ended(_))), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_attempt_moves_what_it_supersedes_aside() {
    let rig = Rig::new().await;
    for iteration in [5, 10] {
        std::fs::create_dir_all(rig.work().join(format!("ckpt/iter_{iteration:07}"))).unwrap();
    }
    let mut second = training(&rig, &["--train-iters", "4"]);
    second.attempt = "j1.train.0.2".into();
    second.number = 2;
    second.resume_iteration = Some(5);
    start(&rig, second).await;
    let message = rig
        .controller
        .report("j1.train.0.2", "warning", |what| match what {
            What::Warning(warning) => Some(warning.message.clone()),
            _ => None,
        })
        .await;
    assert!(message.contains("iteration 10 is incomplete or superseded"), "{message}");
    assert!(message.ends_with("this attempt goes on from iteration 5"), "{message}");
    assert!(rig.work().join("ckpt/superseded/iter_0000010.j1.train.0.2").exists());
    assert!(rig.work().join("ckpt/iter_0000005").exists());
    rig.controller.ended("j1.train.0.2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_weights_are_warned_of() {
    let rig = Rig::new().await;
    start(&rig, training(&rig, &["--load", "nowhere", "--train-iters", "3"])).await;
    let message = rig
        .controller
        .report(ATTEMPT, "warning", |what| match what {
            What::Warning(warning) => Some(warning.message.clone()),
            _ => None,
        })
        .await;
    assert!(message.starts_with("training from random weights?"), "{message}");
    rig.controller.ended(ATTEMPT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_prepared_is_refused_and_over() {
    let rig = Rig::new().await;
    let mut wrong = training(&rig, &[]);
    if let Some(Body::Train(body)) = &mut wrong.body {
        body.script = "no-such-script.py".into();
    }
    rig.controller.say(Say::Prepare(wrong)).await;
    let failure = rig.controller.failed(ATTEMPT).await;
    assert_eq!(failure.cause, "refused");
    assert!(failure.message.contains("no-such-script.py") && !failure.hint.is_empty(), "{failure:?}");
    assert!(!rig.controller.ended(ATTEMPT).await.ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_port_is_worth_another_attempt() {
    let rig = Rig::new().await;
    let thief = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut assignment = training(&rig, &[]);
    assignment.master_address = "127.0.0.1".into();
    assignment.master_port = u32::from(thief.local_addr().unwrap().port());
    rig.controller.say(Say::Start(assignment)).await;
    let failure = rig.controller.failed(ATTEMPT).await;
    assert_eq!((failure.rank, failure.cause.as_str()), (None, "hang"), "{failure:?}");
    assert!(failure.message.contains("port was taken"), "{failure:?}");
    rig.controller.ended(ATTEMPT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_go_on_without_their_shim_to_a_good_end() {
    let rig = Rig::new().await;
    start(&rig, training(&rig, &["--step-ms", "100"])).await;
    reaches(&rig, 2).await;
    rig.kill(rig.shim(ATTEMPT));
    let ended = rig.controller.ended(ATTEMPT).await;
    assert!(ended.ok, "the logs prove that the work was done: {ended:?}");
    assert_eq!(seen_shards(&rig).2, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_that_leaves_early_is_named_instead_of_those_who_wait() {
    let rig = Rig::new().await;
    start(&rig, training(&rig, &["--fail", "1:4:exit0", "--collective-timeout", "2"])).await;
    let failure = rig.controller.failed(ATTEMPT).await;
    assert_eq!((failure.rank, failure.cause.as_str(), failure.code), (Some(1), "exit", 0), "{failure:?}");
    assert_eq!(failure.message, "rank 1 exited before iteration 4 with code 0");
    assert!(!rig.controller.ended(ATTEMPT).await.ok);
}
