//! Engines, free commands and preflights under the real agent and shim.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod common;

use common::{Rig, lives, until};
use proto::v1::assignment::Body;
use proto::v1::controller_message::Kind as Say;
use proto::v1::{
    Assignment, DeviceKind, EngineBody, Forget, ManifestEntry, PreflightBody, RunBody, Runtime, Stop, SurveyRequest,
    progress, report::What,
};

fn assignment(rig: &Rig, attempt: &str, body: Body) -> Assignment {
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
        body: Some(body),
        ..Assignment::default()
    }
}

fn engine(rig: &Rig, attempt: &str) -> Assignment {
    let body = EngineBody {
        tool: "tokenize".into(),
        args: vec!["--rows".into(), "0..5".into()],
        out_flag: "--output-prefix".into(),
        out_prefix: "out/alpaca".into(),
        manifest: true,
    };
    let mut made = assignment(rig, attempt, Body::Engine(body));
    let entry = |task: &str| ManifestEntry { task: task.into(), path: "/x/y".into() };
    made.manifest = vec![entry("1,0"), entry("7")];
    made
}

fn run(rig: &Rig, attempt: &str, argv: &[&str]) -> Assignment {
    let argv = argv.iter().map(|a| (*a).to_owned()).collect();
    assignment(rig, attempt, Body::Run(RunBody { argv }))
}

fn stop(rig: &Rig, attempt: &str, grace_ms: u64) -> Say {
    Say::Stop(Stop { epoch: rig.controller.epoch(), attempt: attempt.into(), grace_ms })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_runs_reports_and_is_forgotten() {
    let rig = Rig::new().await;
    rig.tool(
        "qctl-tokenize",
        r#"echo "$@" > args; cat "$6" > manifest; echo talk >&2
echo '{"type":"progress","done":1,"total":5,"unit":"rows","tokens":9}'
echo '{"type":"warning","message":"odd row"}'
echo '{"type":"result","summary":"5 rows","files":[{"path":"out/a.bin","size":3,"digest":"blake3:00"}]}'"#,
    );
    rig.controller.say(Say::Start(engine(&rig, "j1.prep.0.1"))).await;
    let ended = rig.controller.ended("j1.prep.0.1").await;
    assert!(ended.ok, "{ended:?}");
    let output = ended.output.unwrap();
    let path = rig.work().join("out/alpaca.j1.prep.0.1");
    assert_eq!((output.path.as_str(), output.summary.as_str()), (path.to_str().unwrap(), "5 rows"));
    assert_eq!(output.files.len(), 1);
    assert!(rig.work().join("out").is_dir(), "the directory of the output is made");
    let args = std::fs::read_to_string(rig.work().join("args")).unwrap();
    assert!(args.starts_with("--rows 0..5 --output-prefix out/alpaca.j1.prep.0.1 --manifest "), "{args}");
    assert!(args.ends_with("--progress json\n"));
    let manifest = std::fs::read_to_string(rig.work().join("manifest")).unwrap();
    assert_eq!(manifest, r#"[{"task":"1,0","path":"/x/y"},{"task":7,"path":"/x/y"}]"#);
    rig.controller
        .report("j1.prep.0.1", "warning", |what| match what {
            What::Warning(warning) => (warning.message == "odd row").then_some(()),
            _ => None,
        })
        .await;
    rig.controller
        .wait("progress", |seen| {
            seen.progress
                .iter()
                .any(|p| matches!(&p.what, Some(progress::What::Engine(e)) if e.tokens == 9))
                .then_some(())
        })
        .await;
    let key = ("j1.prep.0.1".to_owned(), "stderr".to_owned());
    rig.controller.wait("stderr's end", |seen| seen.done.contains(&key).then_some(())).await;
    assert_eq!(rig.controller.0.lock().unwrap().logs[&key], b"talk\n");

    rig.controller.say(Say::Forget(Forget { epoch: rig.controller.epoch(), attempt: "j1.prep.0.1".into() })).await;
    let seat = rig.seat("j1.prep.0.1");
    until("the seat's directory is removed", || !seat.exists()).await;
    rig.controller.wait("an empty list", |seen| seen.live.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_s_own_words_are_the_failure() {
    let rig = Rig::new().await;
    rig.tool("qctl-tokenize", r#"echo '{"type":"error","message":"row 7 is no text","hint":"look at row 7"}'; exit 1"#);
    rig.controller.say(Say::Start(engine(&rig, "j1.prep.0.1"))).await;
    let failure = rig.controller.ended("j1.prep.0.1").await.failure.unwrap();
    assert_eq!((failure.message.as_str(), failure.hint.as_str()), ("row 7 is no text", "look at row 7"));
    assert_eq!((failure.cause.as_str(), failure.code), ("exit", 1));

    rig.tool("qctl-tokenize", "exit 0");
    rig.controller.say(Say::Start(engine(&rig, "j1.prep.1.1"))).await;
    let ended = rig.controller.ended("j1.prep.1.1").await;
    assert!(!ended.ok);
    assert_eq!(ended.failure.unwrap().message, "the engine ended without a result");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_s_code_signal_or_absence_is_told() {
    let rig = Rig::new().await;
    rig.controller.say(Say::Start(run(&rig, "j1.run.0.1", &["sh", "-c", "echo $QCTL_RANK of $WORLD_SIZE; pwd"]))).await;
    assert!(rig.controller.ended("j1.run.0.1").await.ok);
    let key = ("j1.run.0.1".to_owned(), "worker_0".to_owned());
    let log = rig.controller.wait("log", |seen| seen.done.contains(&key).then(|| seen.logs[&key].clone())).await;
    let work = rig.work().canonicalize().unwrap();
    assert_eq!(String::from_utf8(log).unwrap(), format!("0 of 1\n{}\n", work.display()));

    rig.controller.say(Say::Start(run(&rig, "j1.run.1.1", &["sh", "-c", "echo boom >&2; exit 7"]))).await;
    let failure = rig.controller.ended("j1.run.1.1").await.failure.unwrap();
    assert_eq!((failure.cause.as_str(), failure.code, failure.rank), ("exit", 7, Some(0)));
    assert_eq!(failure.evidence, ["boom"]);

    rig.controller.say(Say::Start(run(&rig, "j1.run.2.1", &["sh", "-c", "kill -9 $$"]))).await;
    let failure = rig.controller.ended("j1.run.2.1").await.failure.unwrap();
    assert_eq!((failure.cause.as_str(), failure.code), ("signal", 9));

    rig.controller.say(Say::Start(run(&rig, "j1.run.3.1", &["no-such-program"]))).await;
    let failure = rig.controller.ended("j1.run.3.1").await.failure.unwrap();
    assert_eq!(failure.cause, "refused");
    assert!(failure.message.contains("no-such-program") && !failure.hint.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_nothing_running_not_even_what_hides() {
    for ranks in [1, 2] {
        stop_what_hides(Rig::new().await, ranks).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_needs_no_cgroup() {
    let rig = Rig::with_env(&[(agent::shim::cgroup::SWITCH, "1")]).await;
    let two = Assignment { ranks: 2, world_size: 2, ..run(&rig, "j1.run.9.1", &["true"]) };
    rig.controller.say(Say::Start(two)).await;
    rig.controller.ended("j1.run.9.1").await;
    let shim: agent::shim::record::Shim =
        agent::shim::record::read(&rig.seat("j1.run.9.1").join(agent::shim::record::SHIM)).unwrap().unwrap();
    assert_eq!(shim.cgroup, None);
    stop_what_hides(rig, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_needs_neither_cgroup_kill_nor_descriptors_for_processes() {
    let hidden = [(agent::shim::cgroup::KILL_SWITCH, "1"), (agent::shim::proc::PIDFD_SWITCH, "1")];
    for ranks in [1, 2] {
        stop_what_hides(Rig::with_env(&hidden).await, ranks).await;
    }
}

/// One rank is a task of its job's pool; two have a shim of their own.
async fn stop_what_hides(rig: Rig, ranks: u32) {
    // A child that leaves the session and ignores SIGTERM.
    let script = "[ $RANK = 0 ] || exec sleep 300; setsid sh -c 'trap \"\" TERM; echo $$ > hidden; while :; do sleep 0.2; done' & echo up; wait";
    let assignment = Assignment { ranks, world_size: ranks, ..run(&rig, "j1.run.0.1", &["sh", "-c", script]) };
    rig.controller.say(Say::Start(assignment)).await;
    let hidden = rig.work().join("hidden");
    until("the hidden child is up", || std::fs::read_to_string(&hidden).is_ok_and(|t| t.ends_with('\n'))).await;
    let pid: i32 = std::fs::read_to_string(&hidden).unwrap().trim().parse().unwrap();
    assert!(lives(pid));
    rig.controller.say(stop(&rig, "j1.run.0.1", 300)).await;
    let ended = rig.controller.ended("j1.run.0.1").await;
    assert!(!ended.ok && ended.failure.is_none(), "{ended:?}");
    assert!(!lives(pid), "confirmed only when nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_may_be_repeated_and_unknown_attempts_are_confirmed() {
    let rig = Rig::new().await;
    let start = Say::Start(run(&rig, "j1.run.0.1", &["sh", "-c", "echo x >> runs; sleep 0.3"]));
    for _ in 0..3 {
        rig.controller.say(start.clone()).await;
    }
    assert!(rig.controller.ended("j1.run.0.1").await.ok);
    assert_eq!(std::fs::read_to_string(rig.work().join("runs")).unwrap(), "x\n");
    assert_eq!(rig.controller.count("j1.run.0.1", |w| matches!(w, What::Ended(_))), 1);

    rig.controller.say(stop(&rig, "j9.run.0.1", 0)).await;
    let ended = rig.controller.ended("j9.run.0.1").await;
    assert!(!ended.ok && ended.failure.is_none());
    rig.controller.say(Say::Start(run(&rig, "j9.run.0.1", &["touch", "late"]))).await;
    until("the late start is answered", || rig.controller.count("j9.run.0.1", |w| matches!(w, What::Ended(_))) == 2)
        .await;
    assert!(!rig.work().join("late").exists(), "what was stopped does not start");
    rig.controller.wait("ended seats in the list", |s| (s.live == ["j1.run.0.1", "j9.run.0.1"]).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_controller_and_an_older_attempt_are_not_obeyed() {
    let rig = Rig::new().await;
    rig.controller.say(Say::Start(run(&rig, "j1.run.0.2", &["true"]))).await;
    assert!(rig.controller.ended("j1.run.0.2").await.ok);
    rig.controller.say(Say::Start(run(&rig, "j1.run.0.1", &["touch", "older-attempt"]))).await;
    let mut old = run(&rig, "j1.run.1.1", &["touch", "older-controller"]);
    old.epoch = Some(proto::v1::Epoch { incarnation: 0, term: 99 });
    rig.controller.say(Say::Start(old)).await;
    rig.controller.say(Say::Start(run(&rig, "j1.run.2.1", &["true"]))).await;
    assert!(rig.controller.ended("j1.run.2.1").await.ok);
    assert!(!rig.work().join("older-attempt").exists() && !rig.work().join("older-controller").exists());

    // The epoch is remembered: a controller that is behind gets no session.
    rig.controller.0.lock().unwrap().term = 0;
    let beats = rig.controller.0.lock().unwrap().beats;
    rig.controller.hang_up();
    let hellos = rig.controller.wait("two more greetings", |s| (s.hellos.len() >= 3).then(|| s.hellos.clone())).await;
    assert_eq!(hellos.last().unwrap().epoch.unwrap().term, 1);
    assert!(rig.controller.0.lock().unwrap().beats <= beats + 1, "no beat for an older controller");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_names_all_that_fails() {
    let rig = Rig::new().await;
    std::fs::write(rig.work().join("data"), "x").unwrap();
    let good = PreflightBody {
        readable: vec!["data".into()],
        writable: vec!["out".into()],
        require: [("python".to_owned(), "3".to_owned())].into(),
        ..PreflightBody::default()
    };
    rig.controller.say(Say::Start(assignment(&rig, "j1.preflight.0.1", Body::Preflight(good)))).await;
    let ended = rig.controller.ended("j1.preflight.0.1").await;
    assert!(ended.ok, "{ended:?}");
    let key = ("j1.preflight.0.1".to_owned(), "preflight".to_owned());
    let log = rig.controller.wait("log", |seen| seen.done.contains(&key).then(|| seen.logs[&key].clone())).await;
    assert!(String::from_utf8(log).unwrap().contains("ok   python 3."));

    let bad = PreflightBody {
        readable: vec!["no-data".into()],
        train_script: "no-script.py".into(),
        require: [("cann".to_owned(), "8".to_owned())].into(),
        ..PreflightBody::default()
    };
    rig.controller.say(Say::Start(assignment(&rig, "j1.preflight.1.1", Body::Preflight(bad)))).await;
    let failure = rig.controller.ended("j1.preflight.1.1").await.failure.unwrap();
    assert_eq!((failure.cause.as_str(), failure.evidence.len()), ("refused", 3));
    for word in ["no-data", "no-script.py", "cann"] {
        assert!(failure.message.contains(word), "{failure:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survey_is_answered_in_session() {
    let rig = Rig::new().await;
    rig.tool("qctl-convert", "echo '{\"model_type\":\"qwen2\"}'");
    let request = SurveyRequest {
        id: 3,
        workdir: rig.work().to_string_lossy().into_owned(),
        hf_dir: "hf".into(),
        ..SurveyRequest::default()
    };
    rig.controller.say(Say::Survey(request)).await;
    let answer = rig.controller.wait("answer", |seen| seen.surveys.first().cloned()).await;
    assert_eq!((answer.id, answer.model_json.as_str()), (3, "{\"model_type\":\"qwen2\"}"));
}
