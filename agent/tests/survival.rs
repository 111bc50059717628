//! What outlives what: agents die and come back, sessions break, shims are killed.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod common;

use std::time::Duration;

use common::{Rig, lives, until};
use proto::v1::assignment::Body;
use proto::v1::controller_message::Kind as Say;
use proto::v1::{Assignment, DeviceKind, RunBody, Runtime, Stop, report::What};

fn run(rig: &Rig, attempt: &str, script: &str) -> Assignment {
    Assignment {
        epoch: rig.controller.epoch(),
        attempt: attempt.into(),
        ranks: 1,
        world_size: 1,
        nodes: 1,
        number: 1,
        runtime: Some(Runtime {
            workdir: rig.work().to_string_lossy().into_owned(),
            device: DeviceKind::Cpu.into(),
            ..Runtime::default()
        }),
        body: Some(Body::Run(RunBody { argv: vec!["sh".into(), "-c".into(), script.into()] })),
        ..Assignment::default()
    }
}

/// Runs until the file `go` appears.
const WAITS: &str = "echo x >> runs; while [ ! -e go ]; do sleep 0.05; done; echo done";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_comes_back_to_the_same_process() {
    let mut rig = Rig::new().await;
    rig.controller.say(Say::Start(run(&rig, "j1.run.0.1", WAITS))).await;
    rig.controller.started("j1.run.0.1").await;
    let pid = rig.children("j1.run.0.1")[0];
    rig.kill_agent();
    assert!(lives(pid), "ranks outlive their agent");
    rig.start_agent();
    let hello = rig.controller.wait("second greeting", |s| s.hellos.get(1).cloned()).await;
    assert_eq!(hello.live.iter().map(|l| l.attempt.as_str()).collect::<Vec<_>>(), ["j1.run.0.1"]);
    assert_eq!(rig.children("j1.run.0.1"), [pid]);
    std::fs::write(rig.work().join("go"), "").unwrap();
    assert!(rig.controller.ended("j1.run.0.1").await.ok);
    assert_eq!(std::fs::read_to_string(rig.work().join("runs")).unwrap(), "x\n");
    for (kind, count) in [("started", 1), ("ended", 1)] {
        let is = |w: &What| match w {
            What::Started(_) => kind == "started",
            What::Ended(_) => kind == "ended",
            _ => false,
        };
        assert_eq!(rig.controller.count("j1.run.0.1", is), count, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_without_an_agent_is_reported_by_the_next() {
    let mut rig = Rig::new().await;
    rig.controller.say(Say::Start(run(&rig, "j1.run.0.1", WAITS))).await;
    rig.controller.started("j1.run.0.1").await;
    assert!(rig.terminate_agent().success(), "SIGTERM ends the agent, not its work");
    let shim = rig.shim("j1.run.0.1");
    assert!(lives(shim));
    std::fs::write(rig.work().join("go"), "").unwrap();
    until("the shim is done", || !lives(shim)).await;
    rig.start_agent();
    assert!(rig.controller.ended("j1.run.0.1").await.ok);
    let key = ("j1.run.0.1".to_owned(), "worker_0".to_owned());
    let log = rig.controller.wait("log", |seen| seen.done.contains(&key).then(|| seen.logs[&key].clone())).await;
    assert_eq!(log, b"done\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn unacknowledged_reports_come_again_in_order() {
    let mut rig = Rig::new().await;
    rig.controller.0.lock().unwrap().deaf = true;
    for i in 0..3 {
        rig.controller.say(Say::Start(run(&rig, &format!("j1.run.{i}.1"), "true"))).await;
        rig.controller.ended(&format!("j1.run.{i}.1")).await;
    }
    let sequence = |from: usize, rig: &Rig| -> Vec<(u64, String)> {
        rig.controller.0.lock().unwrap().reports[from..].iter().map(|r| (r.seq, r.attempt.clone())).collect()
    };
    let first = sequence(0, &rig);
    assert_eq!(first.len(), 6, "started and ended of each");
    rig.kill_agent();
    rig.start_agent();
    rig.controller.wait("all again", |s| (s.reports.len() >= 12).then_some(())).await;
    assert_eq!(sequence(6, &rig), first, "same reports, same numbers, same order");
    // The same over a broken session of a living agent, until they are taken.
    rig.controller.0.lock().unwrap().deaf = false;
    rig.controller.hang_up();
    rig.controller.wait("all again", |s| (s.reports.len() >= 18).then_some(())).await;
    assert_eq!(sequence(12, &rig), first);
    rig.controller.hang_up();
    let hellos = rig.controller.0.lock().unwrap().hellos.len();
    rig.controller.wait("another session", |s| (s.hellos.len() > hellos).then_some(())).await;
    let beats = rig.controller.0.lock().unwrap().beats;
    rig.controller.wait("two beats", |s| (s.beats > beats + 1).then_some(())).await;
    assert_eq!(rig.controller.0.lock().unwrap().reports.len(), 18, "what was taken does not come again");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_when_its_shim_is_killed_and_can_still_be_stopped() {
    let rig = Rig::new().await;
    rig.controller.say(Say::Start(run(&rig, "j1.run.0.1", "trap '' TERM; while :; do sleep 0.2; done"))).await;
    rig.controller.started("j1.run.0.1").await;
    let pid = rig.children("j1.run.0.1")[0];
    rig.kill(rig.shim("j1.run.0.1"));
    let beats = rig.controller.0.lock().unwrap().beats;
    rig.controller.wait("beats", |s| (s.beats > beats + 5).then_some(())).await;
    assert!(lives(pid), "a dead shim is no reason to kill");
    assert_eq!(rig.controller.count("j1.run.0.1", |w| matches!(w, What::Ended(_))), 0);
    let stop = Stop { epoch: rig.controller.epoch(), attempt: "j1.run.0.1".into(), grace_ms: 200 };
    rig.controller.say(Say::Stop(stop)).await;
    let ended = rig.controller.ended("j1.run.0.1").await;
    assert!(!ended.ok && ended.failure.is_none(), "{ended:?}");
    assert!(!lives(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_after_its_shim_has_an_unknown_end() {
    let rig = Rig::new().await;
    rig.controller.say(Say::Start(run(&rig, "j1.run.0.1", WAITS))).await;
    rig.controller.started("j1.run.0.1").await;
    rig.kill(rig.shim("j1.run.0.1"));
    std::fs::write(rig.work().join("go"), "").unwrap();
    let failure = rig.controller.ended("j1.run.0.1").await.failure.unwrap();
    assert!(failure.message.contains("unknown"), "{failure:?}");
    assert_eq!(failure.evidence, ["done"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_of_an_earlier_boot_is_lost_with_it() {
    let mut rig = Rig::new().await;
    rig.controller.say(Say::Start(run(&rig, "j1.run.0.1", WAITS))).await;
    rig.controller.started("j1.run.0.1").await;
    rig.kill_agent();
    let note = rig.seat("j1.run.0.1").join("seat.json");
    let text = std::fs::read_to_string(&note).unwrap();
    let boot = agent::shim::proc::boot_id();
    assert!(text.contains(&boot));
    std::fs::write(&note, text.replace(&boot, "another-boot")).unwrap();
    rig.start_agent();
    let failure = rig.controller.ended("j1.run.0.1").await.failure.unwrap();
    assert_eq!(failure.cause, "node-lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_one_state_directory_is_refused() {
    let mut rig = Rig::new().await;
    rig.controller.wait("session", |s| (s.beats > 0).then_some(())).await;
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_qctl-agent"))
        .args(["run", "--node", "n1", "--address", "127.0.0.1", "--device", "cpu", "--slots", "1"])
        .args(["--controller", "https://127.0.0.1:1", "--pki"])
        .arg(rig.dir.path().join("pki"))
        .arg("--state-dir")
        .arg(rig.dir.path().join("state"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("in use by another agent") && said.contains("hint: "), "{said}");
    tokio::time::timeout(Duration::from_secs(30), async { rig.terminate_agent() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_not_saved_is_not_listed_and_comes_again() {
    let mut rig = Rig::new().await;
    rig.controller.wait("first greeting", |s| s.hellos.first().cloned()).await;
    rig.kill_agent();
    // As an agent leaves it that dies between taking the seat and saving the order.
    let seat = rig.seat("j1.run.0.1");
    std::fs::create_dir_all(seat.join("logs")).unwrap();
    let note = r#"{"boot_id":"any","wanted":"nothing","started_ms":0,"stopped":false,"forgotten":false}"#;
    std::fs::write(seat.join("seat.json"), note).unwrap();
    rig.start_agent();
    let hello = rig.controller.wait("second greeting", |s| s.hellos.get(1).cloned()).await;
    assert!(hello.live.is_empty(), "{:?}", hello.live);
    rig.controller.say(Say::Start(run(&rig, "j1.run.0.1", "echo x >> runs"))).await;
    assert!(rig.controller.ended("j1.run.0.1").await.ok);
    assert_eq!(std::fs::read_to_string(rig.work().join("runs")).unwrap(), "x\n");
}
