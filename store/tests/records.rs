//! Records that earlier versions wrote are read, and mean what they meant.
//!
//! `records/v1` holds a sample of every kind, one file for each encoder, as
//! entries of `key NUL length value`. Samples are only added: a version that
//! writes something else keeps a directory of its own.

#![allow(clippy::unwrap_used)]

use model::{
    AttemptState, Body, Cause, DeviceKind, Drain, Job, Launcher, Outcome, SeatState, StageKind, TaskState, Timestamp,
    Tool,
};
use store::record::{load_events, load_jobs, load_nodes};

type Entries = Vec<(String, Vec<u8>)>;

fn sample(name: &str) -> Entries {
    let path = format!("{}/tests/records/v1/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("`{path}`: {error}"));
    let mut entries = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let end = rest.iter().position(|b| *b == 0).unwrap();
        let (length, after) = rest[end + 1..].split_first_chunk::<2>().unwrap();
        let (value, after) = after.split_at(usize::from(u16::from_le_bytes(*length)));
        entries.push((String::from_utf8(rest[..end].to_vec()).unwrap(), value.to_vec()));
        rest = after;
    }
    entries
}

/// The job whose plan, head, tasks and checkpoints were kept.
fn job() -> Job {
    let mut entries: Entries = ["job_plan", "job_head", "tasks", "checkpoints"].into_iter().flat_map(sample).collect();
    entries.sort();
    load_jobs(&entries).unwrap().pop().unwrap()
}

/// Reads the door's own list of encoders, so that a new one without a sample is found.
#[test]
fn every_kind_of_record_has_a_kept_sample() {
    let door = include_str!("../src/record/mod.rs");
    let list = door.split_once("pub use encode::{").unwrap().1.split_once("};").unwrap().0;
    let encoders: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    assert!(encoders.len() >= 6, "{encoders:?}");
    for encoder in encoders {
        assert!(!sample(encoder).is_empty(), "no sample of `{encoder}` is kept in tests/records");
    }
}

#[test]
fn nodes_mean_what_they_meant() {
    let nodes = load_nodes(&sample("node")).unwrap();
    let [ascend, cpu] = nodes.as_slice() else { panic!("{nodes:?}") };
    assert_eq!((ascend.id.as_str(), ascend.device, cpu.device), ("n1", DeviceKind::Ascend, DeviceKind::Cpu));
    assert_eq!((ascend.boot_id.as_str(), ascend.hostname.as_str(), ascend.address.as_str()), ("b", "h", "10.0.0.1"));
    assert_eq!((ascend.version.as_str(), ascend.slots, ascend.cpus, ascend.memory), ("1", 8, 4, 1 << 40));
    assert_eq!(ascend.joined, Timestamp(3));
}

#[test]
fn events_mean_what_they_meant() {
    let events = load_events(&sample("event")).unwrap();
    assert!(events.len() >= 19, "{}", events.len());
    for (seq, event) in events.iter().enumerate() {
        // Each was written with its kind's name as its message.
        assert_eq!((event.message.as_str(), event.seq), (event.kind.name(), seq as u64));
        assert_eq!((event.job.as_str(), event.at, event.rank), ("j1", Timestamp(2), Some(0)));
        assert_eq!(event.stage.as_ref().unwrap().as_str(), "train");
        assert_eq!((event.node.as_ref().unwrap().as_str(), event.evidence.as_slice()), ("n1", &["e".to_owned()][..]));
    }
}

#[test]
fn a_job_means_what_it_meant() {
    let job = job();
    assert_eq!((job.id.as_str(), job.name.as_str(), job.owner.as_str(), job.priority), ("j1", "demo", "ada", -5));
    assert_eq!((job.submitted, job.ended, job.last_event), (Timestamp(1), Some(Timestamp(10)), 12));
    assert_eq!((job.idempotency_key.as_deref(), job.spec_text.as_str()), (Some("k"), "name: demo"));
    let cancel = job.cancel.as_ref().unwrap();
    assert_eq!((cancel.by.as_str(), cancel.reason.as_str(), cancel.at), ("ada", "why not", Timestamp(9)));
    assert_eq!((job.runtime.device, job.runtime.mindspeed_root.as_deref()), (DeviceKind::Cpu, Some("/ms")));
    assert!(job.runtime.shared_storage && job.runtime.env["A"] == "1");
    let kinds: Vec<StageKind> = job.stages.iter().map(|stage| stage.kind).collect();
    let drawn = [StageKind::Preflight, StageKind::Convert, StageKind::Preprocess, StageKind::Train, StageKind::Export];
    assert_eq!((&kinds[..5], kinds[5]), (&drawn[..], StageKind::Run));
    assert_eq!((job.stages[1].digest, &job.stages[4].after), (Some([7; 32]), &vec![0, 1, 2, 3]));
    assert_eq!(job.stages[1].reused.as_ref().unwrap().as_str(), "old");
    let checkpoints = &job.stages[5].checkpoints;
    assert_eq!(checkpoints.keys().copied().collect::<Vec<_>>(), [5, 10]);
    assert!(checkpoints[&5].tracked && checkpoints[&5].complete == Some(Timestamp(6)) && !checkpoints[&10].tracked);
    let shard = &checkpoints[&5].shards[&(1, 0)];
    assert_eq!((shard.node.as_str(), shard.path.as_str(), shard.size), ("n1", "/c", 3));
}

#[test]
fn bodies_of_tasks_mean_what_they_meant() {
    let tasks = &job().stages[5].tasks;
    assert_eq!(tasks.len(), 130);
    assert!(
        tasks[129].closing
            && !tasks[0].closing
            && tasks[7].label == "task 7"
            && tasks[7].retries == model::Retries::new(2)
    );
    assert_eq!(tasks[1].shape.pinned.as_ref().unwrap().as_str(), "n2");
    assert!(matches!(&tasks[0].body, Body::Run { argv, .. } if *argv == ["true", "a b"]));
    assert!(matches!(&tasks[1].body, Body::Preflight(p) if p.require["python"] == "3.11" && p.needs_mindspore));
    assert!(matches!(&tasks[2].body, Body::Engine(e) if e.tool == Tool::Convert && e.manifest && e.args == ["--x"]));
    assert!(matches!(&tasks[3].body, Body::Engine(e) if e.tool == Tool::Tokenize && e.out.is_none()));
    let Body::Train(train) = &tasks[4].body else { panic!("{:?}", tasks[4].body) };
    assert_eq!((train.launcher, train.parallel.tp(), train.parallel.pp()), (Launcher::Msrun, 2, 3));
    assert_eq!((train.script.as_str(), train.save_dir.as_str(), train.train_iters), ("t.py", "/s", 20));
    assert_eq!((train.vocab_size, train.grace_ms), (1000, 30_000));
}

#[test]
fn states_of_tasks_mean_what_they_meant() {
    let tasks = &job().stages[5].tasks;
    let attempt = |at: usize| {
        let TaskState::Active(attempt) = &tasks[at].state else { panic!("task {at}: {:?}", tasks[at].state) };
        attempt
    };
    assert!(matches!(tasks[0].state, TaskState::Waiting { not_before: Some(Timestamp(9)), .. }));
    assert!(matches!(tasks[1].state, TaskState::Waiting { not_before: None, .. }));
    let drawn = [
        (AttemptState::Preparing, Cause::Exit(-3)),
        (AttemptState::Running, Cause::Signal(9)),
        (AttemptState::Draining(Drain::Failed), Cause::Refused),
        (AttemptState::Draining(Drain::Cancelled), Cause::NodeLost),
        (AttemptState::Draining(Drain::NodeLost), Cause::Hang),
    ];
    for (at, (state, cause)) in (2..).zip(drawn) {
        let attempt = attempt(at);
        let failure = attempt.first_failure.as_ref().unwrap();
        assert_eq!((&attempt.state, &failure.cause), (&state, &cause));
        assert_eq!((attempt.number, attempt.resume, attempt.port, failure.rank), (3, Some(15), 4242, Some(3)));
        assert!(matches!(attempt.seats[1].state, SeatState::Prepared { port: 65_535, .. }));
        assert!(matches!(&attempt.seats[3].state, SeatState::Ended(end) if end.ok && end.output.files[0].size == 9));
        assert_eq!((attempt.seats[4].first_rank, &attempt.seats[4].slots), (2, &vec![0, 1]));
    }
    let some = |is: fn(&TaskState) -> bool| tasks.iter().any(|task| is(&task.state));
    assert!(some(|s| matches!(s, TaskState::Done { attempt: 2, output, .. } if output.summary == "9 bytes")));
    assert!(some(|s| matches!(s, TaskState::Failed { failure, .. } if failure.message == "rank 3 died")));
    assert!(some(|s| matches!(s, TaskState::Cancelled { at: Timestamp(7), .. })));
    assert!(some(|s| matches!(s, TaskState::Skipped)));
    // The third chunk, and the history beside a state.
    let history = &tasks[128].history;
    assert!(matches!(history[0].outcome, Outcome::Succeeded) && matches!(history[2].outcome, Outcome::Cancelled));
    assert_eq!((history[1].nodes.len(), tasks[127].history.len()), (2, 0));
}
