//! Nothing acknowledged is lost, whenever the controller or an agent dies.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use stories::input::Shape;
use stories::job::{Event, iterations, stage};
use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;
use stories::program::python;

/// Stages that a kill must hit, with the moments drawn for each in a run.
const MOMENTS: [(&str, u32); 5] = [("preflight", 1), ("convert", 1), ("preprocess", 1), ("train", 2), ("after", 1)];

/// The first stages are over sooner than a killed process is back, so each run aims at one of them in turn.
const SHORT: u32 = 3;

/// Pipelines until there were ten kills and every stage was hit; a stage may pass between two looks.
const MOST_RUNS: u32 = 12;

/// What a user was shown before a kill.
struct Shown {
    events: Vec<Event>,
    log: String,
}

#[test]
fn ten_kills_of_the_controller_at_random_moments_lose_nothing_that_was_acknowledged() {
    ten_kills(|lab, _| kill_controller(lab));
}

#[test]
fn ten_kills_of_agents_at_random_moments_lose_nothing_that_was_acknowledged() {
    ten_kills(kill_agent);
}

fn ten_kills(kill: fn(&Lab, &mut StdRng)) {
    let seed: u64 = std::env::var("STORY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed} (again with STORY_SEED={seed})");
    let mut random = StdRng::seed_from_u64(seed);
    let lab = Lab::start();
    pipeline::inputs(&lab, Shape::LARGE, 60_000);
    // A toolkit's own takes about as long; without it a preflight is over before anybody sees that it runs.
    fs::write(lab.work().join("set_env.sh"), "sleep 0.6\n").unwrap();
    let took = undisturbed(&lab);
    println!("undisturbed: {took:?}");

    let mut kills = 0;
    let mut hit = BTreeSet::new();
    for run in 1..=MOST_RUNS {
        if kills >= 10 && hit.len() == MOMENTS.len() {
            break;
        }
        let job = lab.accepted(&spec(&lab, &format!("killed-{run}")));
        let mut before = Vec::new();
        for (at, ((name, moments), took)) in (0..).zip(MOMENTS.iter().zip(&took)) {
            if at < SHORT && at != (run - 1) % SHORT {
                continue;
            }
            let mut drawn: Vec<Duration> = (0..*moments).map(|_| took.mul_f64(random.random())).collect();
            drawn.sort_unstable();
            if !begins(&lab, &job, name) {
                continue;
            }
            let begun = Instant::now();
            for moment in drawn {
                until("the drawn moment", Duration::from_secs(60), || (begun.elapsed() >= moment).then_some(()));
                let Some((phase, shown)) = look(&lab, &job) else { continue };
                println!("run {run}: kill {} in `{phase}`, drawn {moment:?} into `{name}`", kills + 1);
                before.push(shown);
                kill(&lab, &mut random);
                kills += 1;
                hit.extend(phase.split('+').map(str::to_owned));
            }
        }
        lab.succeeds(&job, Duration::from_secs(120));
        nothing_is_missing(&lab, &job, &before);
    }
    assert!(kills >= 10, "{kills} kills");
    let all: BTreeSet<String> = MOMENTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(hit, all, "every stage was hit");
}

/// A pipeline that shares no output with an earlier one, so that nothing is reused.
fn spec(lab: &Lab, name: &str) -> Value {
    let mut spec = pipeline::whole(lab, name, 40, 200, &[]);
    spec["stages"]["convert"]["save_dir"] = json!(format!("./{name}/mcore"));
    spec["stages"]["preprocess"]["output_prefix"] = json!(format!("./{name}/text"));
    spec["stages"]["train"]["save_dir"] = json!(format!("./{name}/checkpoints"));
    spec["runtime"]["python"] = json!(slow_python(lab));
    spec["runtime"]["source"] = json!(["./set_env.sh"]);
    spec["stages"]["after"] = json!({"run": {"argv": ["sleep", "2"]}, "after": ["train"]});
    spec
}

/// An interpreter that takes its time, as one with large libraries does, so that a preflight can be hit.
fn slow_python(lab: &Lab) -> PathBuf {
    let path = lab.work().join("slow-python");
    if !path.exists() {
        fs::write(&path, format!("#!/bin/sh\nsleep 0.7\nexec {} \"$@\"\n", python())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    path
}

/// How long each stage takes when nobody kills anything.
fn undisturbed(lab: &Lab) -> Vec<Duration> {
    let job = lab.accepted(&spec(lab, "undisturbed"));
    lab.succeeds(&job, Duration::from_secs(120));
    let told = lab.describe(&job);
    let took = |name: &str| {
        let stage = stage(&told, name);
        let moment = |key: &str| stage[key].as_u64().unwrap_or_else(|| panic!("`{key}` of {stage}"));
        Duration::from_millis(moment("ended_ms").saturating_sub(moment("started_ms")))
    };
    MOMENTS.iter().map(|(name, _)| took(name)).collect()
}

/// Waits until a stage runs; false if it has ended meanwhile.
fn begins(lab: &Lab, job: &str, name: &str) -> bool {
    until(&format!("stage `{name}` begins"), Duration::from_secs(60), || {
        let told = lab.describe(job);
        match stage(&told, name)["phase"].as_str()? {
            "pending" => None,
            "running" => Some(true),
            _ => Some(false),
        }
    })
}

/// What runs, and all that is shown of the job; none once it has ended.
fn look(lab: &Lab, job: &str) -> Option<(String, Shown)> {
    let events = lab.events(job);
    let log = log(lab, job);
    let told = lab.describe(job);
    let running = |name: &&str| stage(&told, name)["phase"] == "running";
    let names: Vec<&str> = MOMENTS.iter().map(|(name, _)| *name).filter(running).collect();
    (!names.is_empty()).then(|| (names.join("+"), Shown { events, log }))
}

fn log(lab: &Lab, job: &str) -> String {
    lab.log(job, "train", 3)
}

/// Ends one of the agents, and waits until its successor is heard.
fn kill_agent(lab: &Lab, random: &mut StdRng) {
    let agents =
        until("both agents are up", Duration::from_secs(20), || Some(lab.agents()).filter(|all| all.len() == 2));
    let victim = &agents[random.random_range(0..agents.len())];
    victim.kill9();
    until("the agent is gone", Duration::from_secs(5), || (!victim.lives()).then_some(()));
    until("another agent takes its place", Duration::from_secs(20), || (lab.agents().len() == 2).then_some(()));
}

/// Ends the controller, and waits until its successor answers.
fn kill_controller(lab: &Lab) {
    let victim = until("a controller is up", Duration::from_secs(20), || lab.controller());
    victim.kill9();
    until("the controller is gone", Duration::from_secs(5), || (!victim.lives()).then_some(()));
    until("another controller answers", Duration::from_secs(20), || (lab.qctl(["ps"]).code == 0).then_some(()));
}

fn nothing_is_missing(lab: &Lab, job: &str, before: &[Shown]) {
    let events = lab.events(job);
    let log = log(lab, job);
    for shown in before {
        assert_eq!(events.get(..shown.events.len()), Some(&shown.events[..]), "every event, as it was shown");
        assert!(log.starts_with(&shown.log), "every byte of the log, as it was shown");
    }
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..).take(seqs.len()).collect::<Vec<_>>());
    assert_eq!(iterations(&log), (2..=40).collect::<Vec<_>>(), "one attempt trained, each line once");
    let bad: Vec<&Event> =
        events.iter().filter(|event| ["attempt-failed", "task-retried", "node-lost"].contains(&&*event.kind)).collect();
    assert!(bad.is_empty(), "no reason to fail anything: {bad:#?}");
    let name = lab.describe(job)["name"].as_str().unwrap().to_owned();
    let tracker = lab.work().join(name).join("checkpoints/latest_checkpointed_iteration.txt");
    assert_eq!(fs::read_to_string(tracker).unwrap().trim(), "40");
}
