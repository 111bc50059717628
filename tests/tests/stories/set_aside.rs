//! Nodes that an operator sets aside: cordoned, drained, and taken back.

use std::time::Duration;

use serde_json::{Value, json};
use stories::job::stage;
use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;
use stories::process::Process;

const SOON: Duration = Duration::from_secs(60);

/// A node as `qctl nodes` lists it.
fn node(lab: &Lab, id: &str) -> Value {
    let listed: Value = serde_json::from_str(&lab.qctl(["nodes", id, "-o", "json"]).ok()).unwrap();
    listed["nodes"][0].clone()
}

/// The line of a node in the table.
fn row(lab: &Lab, id: &str) -> String {
    let table = lab.qctl(["nodes"]).ok();
    table.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("no `{id}` in {table}")).to_owned()
}

/// Where a job's only task runs now.
fn runs_on(lab: &Lab, job: &str) -> Option<String> {
    let told = lab.describe(job);
    let seats = stage(&told, "work")["tasks"][0]["seats"].clone();
    Some(seats[0]["node"].as_str()?.to_owned())
}

/// A job that holds one slot until it is told to end.
fn sleeper(lab: &Lab, name: &str) -> String {
    let mut spec = pipeline::command(lab, name, &["sleep", "3600"], 1);
    spec["stages"]["work"]["run"]["slots"] = json!(1);
    lab.accepted(&spec)
}

fn told(lab: &Lab, job: &str, kind: &str) -> Vec<String> {
    lab.events(job).into_iter().filter(|event| event.kind == kind).map(|event| event.message).collect()
}

#[test]
fn a_cordoned_node_keeps_its_work_and_gets_none() {
    let lab = Lab::start();
    let first = sleeper(&lab, "first");
    let _ = lab.qctl_for(SOON, ["wait", &first, "--for", "started"]).ok();
    let home = runs_on(&lab, &first).unwrap();
    let other = if home == "node-1" { "node-2" } else { "node-1" };
    let said = lab.qctl(["cordon", &home, "--reason", "fan"]).ok();
    assert_eq!(said.trim(), format!("{home} cordoned: 1 attempt may go on there"));
    assert_eq!(lab.qctl(["cordon", &home, "--reason", "fan"]).ok().trim(), format!("{home} unchanged"));
    assert!(row(&lab, &home).contains("ready, cordoned"), "{}", row(&lab, &home));
    let cordon = node(&lab, &home)["cordon"].clone();
    assert_eq!(
        (&cordon["reason"], &cordon["draining"], &cordon["empty"]),
        (&json!("fan"), &json!(false), &json!(false))
    );
    assert!(told(&lab, &first, "node-cordoned")[0].ends_with("what runs there goes on: fan"));

    // Two slots on the other node, then none.
    let jobs: Vec<String> = ["second", "third", "fourth"].iter().map(|name| sleeper(&lab, name)).collect();
    for job in &jobs[..2] {
        let _ = lab.qctl_for(SOON, ["wait", job, "--for", "started"]).ok();
        assert_eq!(runs_on(&lab, job).as_deref(), Some(other));
    }
    let waits = lab.qctl(["explain", &jobs[2]]).ok();
    assert!(waits.contains("pending") && waits.contains("slot"), "{waits}");
    // Another node set aside leaves no room that could be waited for.
    let _ = lab.qctl(["cordon", other]).ok();
    let waits = lab.qctl(["explain", &jobs[2]]).ok();
    assert!(waits.contains(&format!("node `{home}` is cordoned by")) && waits.contains(": fan"), "{waits}");
    assert!(waits.contains(&format!("node `{other}` is cordoned by")), "{waits}");
    assert_eq!(lab.phase(&jobs[2]), "pending");

    let said = lab.qctl(["uncordon", &home, "node-9", other]).code(5);
    assert!(said.stdout.contains(&format!("{home} uncordoned")), "{said}");
    assert!(
        said.stdout.contains(&format!("{other} uncordoned")),
        "one that is missing does not spare the rest: {said}"
    );
    assert!(said.stderr.contains("there is no node `node-9`"), "{said}");
    let _ = lab.qctl_for(SOON, ["wait", &jobs[2], "--for", "started"]).ok();
    assert_eq!(runs_on(&lab, &jobs[2]), Some(home.clone()));
    assert_eq!(node(&lab, &home)["cordon"], Value::Null);
    assert_eq!(told(&lab, &first, "node-uncordoned").len(), 1);
    assert_eq!(lab.describe(&first)["stages"][0]["tasks"][0]["history"], json!([]), "nothing of it was touched");
    for job in jobs.iter().chain([&first]) {
        let _ = lab.qctl(["cancel", job, "--force"]).ok();
        assert_eq!(lab.wait(job, SOON), 4);
    }
}

#[test]
fn a_node_is_drained_without_haste_unless_a_deadline_is_given() {
    let lab = Lab::start();
    let job = sleeper(&lab, "long");
    let _ = lab.qctl_for(SOON, ["wait", &job, "--for", "started"]).ok();
    let home = runs_on(&lab, &job).unwrap();
    let said = lab.qctl(["drain", &home, "--reason", "new driver"]).ok();
    assert!(said.starts_with(&format!("{home} draining: 1 attempt may finish; see: ")), "{said}");
    assert!(row(&lab, &home).contains("ready, draining"), "{}", row(&lab, &home));
    let explained = lab.qctl(["explain", &job]).ok();
    assert!(explained.contains("running"), "what runs is let finish: {explained}");

    let said = lab.qctl(["drain", &home, "--reason", "new driver", "--deadline", "1s"]).ok();
    assert!(said.contains("1 attempt may finish for"), "{said}");
    assert!(node(&lab, &home)["cordon"]["deadline_ms"].as_u64().is_some_and(|at| at > 0));
    let moved = until("it runs elsewhere", SOON, || runs_on(&lab, &job).filter(|now| *now != home));
    let attempts = lab.describe(&job)["stages"][0]["tasks"][0]["history"].clone();
    assert_eq!((&attempts[0]["outcome"], &attempts[1]), (&json!("requeued"), &Value::Null), "{attempts}");
    let requeued = told(&lab, &job, "attempt-requeued");
    assert!(requeued[0].contains(&format!("node `{home}` is being drained")), "{requeued:?}");
    assert!(told(&lab, &job, "task-retried").is_empty(), "a move is no failure");
    assert_eq!(told(&lab, &job, "node-draining").len(), 2);
    until("the node is shown as empty", SOON, || row(&lab, &home).contains("ready, drained").then_some(()));
    assert_eq!(node(&lab, &home)["cordon"]["empty"], json!(true));
    let left: Vec<Process> = lab.work_processes();
    assert!(left.iter().all(|one| one.env.get("QCTL_ATTEMPT").is_none_or(|of| !of.ends_with(".1"))), "{left:#?}");
    assert_ne!(moved, home);
    let _ = lab.qctl(["cancel", &job, "--force"]).ok();
    assert_eq!(lab.wait(&job, SOON), 4);
}

#[test]
fn a_drained_training_saves_waits_for_room_and_goes_on_from_what_it_saved() {
    let lab = Lab::start();
    let more = ["--save-interval", "1000000", "--exit-signal-handler"];
    let job = lab.accepted(&pipeline::training(&lab, "gang", 1_000_000, 20, &more));
    lab.reaches(&job, 3);
    let _ = lab.qctl(["drain", "node-2", "--deadline", "0s", "--reason", "fan"]).ok();
    // Both nodes are needed: it waits, and says for what.
    let waits = until("the gang waits", SOON, || {
        let said = lab.qctl(["explain", &job]).ok();
        said.contains("being drained by").then_some(said)
    });
    assert!(waits.contains("needs 2 nodes with 2 free cpu slots each"), "{waits}");
    assert!(waits.contains("node `node-2` is being drained by") && waits.contains(": fan"), "{waits}");
    let saved = until("what it saved when it was asked to go is complete", SOON, || {
        let events = lab.events(&job);
        let whole = events.iter().find(|event| event.kind == "checkpoint-completed")?;
        let number = whole.message.strip_prefix("checkpoint of iteration ")?.split(' ').next()?;
        number.parse::<u64>().ok()
    });
    let _ = lab.qctl(["uncordon", "node-2"]).ok();
    let first = until("it goes on", SOON, || {
        let told = lab.describe(&job);
        let attempt = stage(&told, "train")["tasks"][0]["attempt"].as_str().unwrap_or_default();
        attempt.ends_with(".2").then(|| stories::job::iterations(&lab.log(&job, "train", 3)).first().copied())?
    });
    assert_eq!(first, saved + 1);
    let _ = lab.qctl(["cancel", &job, "--force"]).ok();
    assert_eq!(lab.wait(&job, SOON), 4);
}
