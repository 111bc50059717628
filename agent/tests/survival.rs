//! What outlives what: agents die and come back, sessions break, shims are killed.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod common;

use std::time::Duration;

use agent::shim::pool::Record;
use common::{Rig, lives, until};
use proto::v1::assignment::Body;
use proto::v1::controller_message::Kind as Say;
use proto::v1::{Assignment, DeviceKind, Recall, RunBody, Runtime, Stop, report::What};

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

/// Two ranks: they have a shim of their own, where one is a task of its job's pool.
fn pair(rig: &Rig, attempt: &str, script: &str) -> Assignment {
    Assignment { ranks: 2, world_size: 2, ..run(rig, attempt, script) }
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
    assert!(lives(rig.shim("j1.run.0.1")));
    std::fs::write(rig.work().join("go"), "").unwrap();
    let is_end = |record: &Record| matches!(record, Record::Exited { .. });
    until("the shim has seen the end", || rig.records("j1.run.0.1").iter().any(is_end)).await;
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
        rig.controller.say(Say::Start(run(&rig, &format!("j1.run.{i}.1"), "sleep 0.5"))).await;
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
    for make in [run, pair] {
        outlives_its_shim(make).await;
    }
}

async fn outlives_its_shim(make: fn(&Rig, &str, &str) -> Assignment) {
    let rig = Rig::new().await;
    rig.controller.say(Say::Start(make(&rig, "j1.run.0.1", "trap '' TERM; while :; do sleep 0.2; done"))).await;
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
    for make in [run, pair] {
        ends_unknown(make).await;
    }
}

async fn ends_unknown(make: fn(&Rig, &str, &str) -> Assignment) {
    let rig = Rig::new().await;
    rig.controller.say(Say::Start(make(&rig, "j1.run.0.1", WAITS))).await;
    rig.controller.started("j1.run.0.1").await;
    rig.kill(rig.shim("j1.run.0.1"));
    std::fs::write(rig.work().join("go"), "").unwrap();
    let failure = rig.controller.ended("j1.run.0.1").await.failure.unwrap();
    assert!(failure.message.contains("unknown"), "{failure:?}");
    assert_eq!(failure.evidence, ["done"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_of_an_earlier_boot_is_lost_with_it() {
    for make in [run, pair] {
        is_lost_with_its_boot(make).await;
    }
}

async fn is_lost_with_its_boot(make: fn(&Rig, &str, &str) -> Assignment) {
    let mut rig = Rig::new().await;
    rig.controller.say(Say::Start(make(&rig, "j1.run.0.1", WAITS))).await;
    rig.controller.started("j1.run.0.1").await;
    rig.kill_agent();
    let pool = rig.pool("j1.run.0.1").map(|pool| pool.join("pool.json"));
    let note = pool.unwrap_or_else(|| rig.seat("j1.run.0.1").join("seat.json"));
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

/// What the shims of the pool of `j1` have started, in order.
fn begun(rig: &Rig) -> Vec<String> {
    let started = |record| match record {
        Record::Started { attempt, .. } => Some(attempt),
        _ => None,
    };
    rig.records("j1.run.0.1").into_iter().filter_map(started).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn small_tasks_share_a_shim_and_leave_no_files() {
    let rig = Rig::new().await;
    let names: Vec<String> = (0..40).map(|i| format!("j1.run.{i}.1")).collect();
    for (i, name) in names.iter().enumerate() {
        let script = if i % 10 == 0 { "echo said; exit 3" } else { "true" };
        rig.controller.say(Say::Start(run(&rig, name, script))).await;
    }
    for (i, name) in names.iter().enumerate() {
        let ended = rig.controller.ended(name).await;
        assert_eq!(ended.ok, i % 10 != 0, "{name}");
        let evidence = ended.failure.map(|failure| (failure.code, failure.evidence));
        assert_eq!(evidence, (i % 10 == 0).then(|| (3, vec!["said".to_owned()])), "{name}");
    }
    let took = rig.records("j1.run.0.1").iter().filter(|record| matches!(record, Record::Took(_))).count();
    assert_eq!((took, begun(&rig).len()), (1, 40), "one shim, and each task once");
    for name in names.iter().step_by(10) {
        let key = (name.clone(), "worker_0".to_owned());
        let log = rig.controller.wait("log", |seen| seen.done.contains(&key).then(|| seen.logs[&key].clone())).await;
        assert_eq!(log, b"said\n", "{name}");
    }
    let pool = rig.pool("j1.run.0.1").unwrap();
    let logs = std::fs::read_dir(pool.join("logs")).unwrap().count();
    assert!(logs <= 4 + 2, "{logs} files: one for each that wrote, and one for each that ran at once");
    assert_eq!(rig.controller.0.lock().unwrap().logs.len(), 4, "nothing is pushed of what wrote nothing");
    for name in &names {
        let forget = proto::v1::Forget { epoch: rig.controller.epoch(), attempt: name.clone() };
        rig.controller.say(Say::Forget(forget)).await;
    }
    rig.controller.wait("an empty list", |seen| seen.live.is_empty().then_some(())).await;
    until("the pool is gone", || !pool.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_task_is_stopped_and_its_neighbours_go_on() {
    let rig = Rig::new().await;
    // Two run at once; the third waits for room.
    for i in 0..3 {
        rig.controller.say(Say::Start(run(&rig, &format!("j1.run.{i}.1"), WAITS))).await;
    }
    for i in 0..2 {
        rig.controller.started(&format!("j1.run.{i}.1")).await;
    }
    assert_eq!(begun(&rig).len(), 2);
    for name in ["j1.run.2.1", "j1.run.0.1"] {
        let stop = Stop { epoch: rig.controller.epoch(), attempt: name.into(), grace_ms: 5_000 };
        rig.controller.say(Say::Stop(stop)).await;
        let ended = rig.controller.ended(name).await;
        assert!(!ended.ok && ended.failure.is_none(), "{name}: {ended:?}");
    }
    assert!(lives(rig.children("j1.run.1.1")[0]));
    std::fs::write(rig.work().join("go"), "").unwrap();
    assert!(rig.controller.ended("j1.run.1.1").await.ok);
    assert_eq!(begun(&rig), ["j1.run.0.1", "j1.run.1.1"], "what was stopped before it began does not begin");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_pool_had_begun_is_not_begun_again_and_the_rest_is() {
    let mut rig = Rig::new().await;
    for i in 0..4 {
        let script = format!("echo x >> runs-{i}; while [ ! -e go ]; do sleep 0.05; done");
        rig.controller.say(Say::Start(run(&rig, &format!("j1.run.{i}.1"), &script))).await;
    }
    rig.controller.started("j1.run.1.1").await;
    let first = rig.shim("j1.run.0.1");
    // Both at once: only the files know what runs.
    rig.kill_agent();
    rig.kill(first);
    rig.start_agent();
    until("another shim goes on", || begun(&rig).len() == 4).await;
    assert_ne!(rig.shim("j1.run.0.1"), first);
    std::fs::write(rig.work().join("go"), "").unwrap();
    for i in 0..4 {
        let ended = rig.controller.ended(&format!("j1.run.{i}.1")).await;
        let unknown = ended.failure.is_some_and(|failure| failure.message.contains("unknown"));
        assert_eq!((ended.ok, unknown), (i >= 2, i < 2), "task {i}");
        assert_eq!(std::fs::read_to_string(rig.work().join(format!("runs-{i}"))).unwrap(), "x\n", "task {i}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_begun_is_given_back_for_good_and_what_has_is_let_be() {
    let mut rig = Rig::new().await;
    let name = |i: u32| format!("j1.run.{i}.1");
    for i in 0..4 {
        let script = format!("echo x >> runs-{i}; while [ ! -e go ]; do sleep 0.05; done");
        rig.controller.say(Say::Start(run(&rig, &name(i), &script))).await;
    }
    for i in 0..2 {
        rig.controller.started(&name(i)).await;
    }
    // The one runs, the other waits behind it.
    for i in [0, 2] {
        rig.controller.say(Say::Recall(Recall { epoch: rig.controller.epoch(), attempt: name(i) })).await;
    }
    let returned = |what: &What| matches!(what, What::Returned(_));
    rig.controller.report(&name(2), "returned", |what| returned(what).then_some(())).await;
    // Neither another life of agent and shim nor a repeated order begins it.
    let first = rig.shim(&name(0));
    rig.kill_agent();
    rig.kill(first);
    rig.start_agent();
    until("another shim goes on", || begun(&rig).len() == 3).await;
    rig.controller.say(Say::Start(run(&rig, &name(2), "echo x >> runs-2"))).await;
    // Orders are obeyed in their turn, so what came before this one was looked at.
    rig.controller.say(Say::Start(run(&rig, &name(4), "true"))).await;
    std::fs::write(rig.work().join("go"), "").unwrap();
    for i in [3, 4] {
        assert!(rig.controller.ended(&name(i)).await.ok);
    }
    assert!(!rig.work().join("runs-2").exists());
    assert_eq!(begun(&rig), [name(0), name(1), name(3), name(4)]);
    assert_eq!(rig.controller.count(&name(0), returned), 0);
}
