#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use model::{
    Attempt, AttemptState, AttemptSummary, Body, Cancel, Cause, Checkpoint, Cordon, DeviceKind, Drain, EngineBody,
    Event, Failure, FileRecord, History, Job, Labels, Launcher, Node, NodeId, Outcome, Output, Parallel, Placement,
    PreflightBody, Purpose, Restart, Retries, Runtime, Seat, SeatEnd, SeatState, ShardRecord, Stage, StageKind, Task,
    TaskShape, TaskState, Timestamp, Tool, TrainBody,
};

use super::*;

fn labels(rack: &str) -> Labels {
    Labels::new([("rack".into(), rack.into())].into()).unwrap()
}

fn node_id(text: &str) -> NodeId {
    NodeId::new(text).unwrap()
}

fn failed(cause: Cause) -> Failure {
    Failure {
        node: node_id("n1"),
        rank: Some(3),
        cause,
        at: Timestamp(5),
        message: "rank 3 died".into(),
        hint: "look".into(),
        evidence: vec!["Traceback".into()],
    }
}

fn output() -> Output {
    Output {
        path: "/out.j1".into(),
        files: vec![FileRecord { path: "/out".into(), size: 9, digest: "blake3:00".into() }],
        summary: "9 bytes".into(),
    }
}

fn seat(state: SeatState) -> Seat {
    Seat { node: node_id("n1"), first_rank: 2, ranks: 2, slots: vec![0, 1], state }
}

fn active(state: AttemptState, cause: Cause) -> TaskState {
    let states = [
        SeatState::Assigned,
        SeatState::Prepared { port: 65_535 },
        SeatState::Running,
        SeatState::Ended(SeatEnd { ok: true, output: output() }),
        SeatState::GivenUp,
    ];
    TaskState::Active(Attempt {
        number: 3,
        placed: Timestamp(4),
        state,
        seats: states.map(seat).to_vec(),
        resume: Some(15),
        port: 4242,
        first_failure: Some(failed(cause)),
    })
}

/// Every variant of every enum stands in it somewhere.
fn job() -> Job {
    let states = vec![
        TaskState::Waiting { not_before: Some(Timestamp(9)) },
        TaskState::Waiting { not_before: None },
        active(AttemptState::Preparing, Cause::Exit(-3)),
        active(AttemptState::Running, Cause::Signal(9)),
        active(AttemptState::Draining(Drain::Failed), Cause::Refused),
        active(AttemptState::Draining(Drain::Cancelled), Cause::NodeLost),
        active(AttemptState::Draining(Drain::NodeLost), Cause::Hang),
        active(AttemptState::Draining(Drain::Moved { kill_at: Timestamp(7) }), Cause::Hang),
        active(AttemptState::Draining(Drain::Restarted { kill_at: Timestamp(8) }), Cause::Overrun),
        TaskState::Done { attempt: 2, at: Timestamp(8), output: output() },
        TaskState::Failed { failure: failed(Cause::Exit(1)), at: Timestamp(8) },
        TaskState::Cancelled { at: Timestamp(7) },
        TaskState::Skipped,
    ];
    let bodies = [
        Body::Run { argv: vec!["true".into(), "a b".into()] },
        Body::Preflight(PreflightBody {
            require: BTreeMap::from([("python".into(), "3.11".into())]),
            readable: vec!["/r".into()],
            writable: vec!["/w".into()],
            free_bytes: 7,
            train_script: Some("s.py".into()),
            needs_mindspore: true,
        }),
        Body::Engine(EngineBody {
            tool: Tool::Convert,
            args: vec!["--x".into()],
            out: Some(("--out".into(), "/p".into())),
            manifest: true,
        }),
        Body::Engine(EngineBody { tool: Tool::Tokenize, args: vec![], out: None, manifest: false }),
        Body::Train(TrainBody {
            launcher: Launcher::Msrun,
            script: "t.py".into(),
            args: vec!["--a".into()],
            resume_args: vec!["--b".into()],
            scheduler: vec!["s".into()],
            parallel: Parallel::new(2, 3).unwrap(),
            save_dir: "/s".into(),
            train_iters: 20,
            vocab_size: 1000,
            grace_ms: 30_000,
        }),
    ];
    let outcomes =
        [Outcome::Succeeded, Outcome::Failed(failed(Cause::Signal(9))), Outcome::Cancelled, Outcome::Requeued];
    let history = outcomes.map(|outcome| AttemptSummary {
        number: 1,
        placed: Timestamp(1),
        ended: Timestamp(2),
        outcome,
        nodes: vec![node_id("n1"), node_id("n2")],
    });
    // More than one chunk of tasks.
    let tasks: Vec<Task> = (0..130)
        .map(|i| Task {
            label: format!("task {i}"),
            closing: i == 129,
            shape: TaskShape {
                nodes: 1,
                ranks_per_node: 2,
                slots_per_rank: 1,
                pinned: (i == 1).then(|| node_id("n2")),
            },
            body: bodies[i % bodies.len()].clone(),
            limit_ms: (i > 1).then_some(i as u64),
            retries: Retries { max: 2, window_ms: 3_600_000 + i as u64, backoff_ms: 500 },
            state: states[i % states.len()].clone(),
            history: if i % 2 == 0 { History::restored(history.to_vec(), 3) } else { History::default() },
        })
        .collect();
    let kinds = [StageKind::Preflight, StageKind::Convert, StageKind::Preprocess, StageKind::Train, StageKind::Export];
    let mut stages: Vec<Stage> = kinds
        .into_iter()
        .enumerate()
        .map(|(i, kind)| Stage {
            name: format!("s{i}").parse().unwrap(),
            kind,
            after: (0..i).collect(),
            digest: (i == 1).then_some([7; 32]),
            reused: (i == 1).then(|| "old".parse().unwrap()),
            tasks: vec![],
            checkpoints: BTreeMap::new(),
        })
        .collect();
    let shard = ShardRecord { node: node_id("n1"), path: "/c".into(), size: 3 };
    stages.push(Stage {
        name: "big".parse().unwrap(),
        kind: StageKind::Run,
        after: vec![],
        digest: None,
        reused: None,
        tasks,
        checkpoints: BTreeMap::from([
            (
                5,
                Checkpoint {
                    shards: BTreeMap::from([((1, 0), shard)]),
                    tracked: true,
                    complete: Some(Timestamp(6)),
                    superseded: true,
                    pinned: true,
                    broken: true,
                    removing: true,
                },
            ),
            (10, Checkpoint::default()),
        ]),
    });
    Job {
        id: "j1".parse().unwrap(),
        name: "demo".parse().unwrap(),
        owner: "ada".into(),
        priority: -5,
        submitted: Timestamp(1),
        ended: Some(Timestamp(10)),
        idempotency_key: Some("k".into()),
        spec_text: "name: demo".into(),
        runtime: Runtime {
            workdir: "/w".into(),
            python: "python3".into(),
            source: vec!["/env.sh".into()],
            env: BTreeMap::from([("A".into(), "1".into())]),
            mindspeed_root: Some("/ms".into()),
            device: DeviceKind::Cpu,
            shared_storage: true,
        },
        placement: Placement { labels: labels("r2") },
        stages,
        cancel: Some(Cancel { by: "ada".into(), reason: "why not".into(), at: Timestamp(9), grace_ms: 5 }),
        last_event: 12,
        restarts: vec![Restart {
            by: "ann".into(),
            reason: "more text".into(),
            at: Timestamp(7),
            key: Some("again".into()),
        }],
    }
}

fn records(job: &Job) -> Vec<(String, Vec<u8>)> {
    let mut entries = vec![job_plan(job), job_head(job)];
    for (stage, s) in job.stages.iter().enumerate() {
        for chunk in 0..u32::try_from(s.tasks.len()).unwrap().div_ceil(CHUNK) {
            entries.push(tasks(job, stage, chunk));
        }
        entries.push(checkpoints(job, stage));
    }
    entries.sort();
    entries
}

#[test]
fn a_job_reads_back_equal() {
    let job = job();
    assert_eq!(load_jobs(&records(&job)).unwrap(), [job]);
}

#[test]
fn a_node_and_events_read_back_equal() {
    let node_record = Node {
        id: node_id("n1"),
        boot_id: "b".into(),
        hostname: "h".into(),
        address: "10.0.0.1".into(),
        version: "1".into(),
        device: DeviceKind::Ascend,
        slots: 8,
        labels: labels("r1"),
        groups: vec![0, 0, 1, 1],
        spare: true,
        spare_word: Some(false),
        cpus: 4,
        memory: 1 << 40,
        joined: Timestamp(3),
        cordon: None,
        fence: None,
    };
    let purposes = [Purpose::Keep, Purpose::Empty { deadline: None }, Purpose::Empty { deadline: Some(Timestamp(9)) }];
    let set_aside = purposes.map(|purpose| {
        let cordon = Cordon { by: "op".into(), reason: "fan".into(), at: Timestamp(8), purpose };
        Node { cordon: Some(cordon), ..node_record.clone() }
    });
    let fence = model::Fence { by: "op".into(), reason: "power".into(), at: Timestamp(8) };
    let fenced = Node { fence: Some(fence), ..node_record.clone() };
    for one in set_aside.into_iter().chain([fenced, node_record]) {
        assert_eq!(load_nodes(&[node(&one)]).unwrap(), [one]);
    }
    let levels = [model::event::Level::Info, model::event::Level::Warn, model::event::Level::Error];
    for (i, kind) in model::event::Kind::ALL.into_iter().enumerate() {
        let one = Event {
            job: "j1".parse().unwrap(),
            seq: i as u64,
            at: Timestamp(2),
            level: levels[i % 3],
            kind,
            stage: Some("train".parse().unwrap()),
            node: Some(node_id("n1")),
            rank: Some(0),
            message: "m".into(),
            evidence: vec!["e".into()],
        };
        assert_eq!(load_events(&[event(&one)]).unwrap(), [one]);
    }
}

#[test]
fn damage_is_named_with_its_key() {
    let entries = records(&job());
    let cut: Vec<_> = entries.iter().skip(1).cloned().collect();
    assert_eq!(
        load_jobs(&cut).unwrap_err().to_string(),
        "the record `jobs/j1/checkpoints/0000` is damaged: its job has no plan"
    );
    for at in 0..entries.len() {
        let mut entries = entries.clone();
        entries[at].1.insert(0, 0xff);
        let error = load_jobs(&entries).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Corrupt);
        assert!(error.to_string().contains(&entries[at].0), "{error}");
    }
    let strange = [("jobs/j1/what/0".to_owned(), vec![])];
    assert!(load_jobs(&strange).is_err());
}
