//! A whole pipeline, struck once in each of its stages.

use std::fs;
use std::time::Duration;

use rand::Rng as _;
use serde_json::{Value, json};
use stories::input::{self, Shape};
use stories::job::stage;
use stories::pipeline;
use stories::poll::until;

use crate::record::Record;
use crate::rounds::Turn;
use crate::site::{LONG, LOST_AFTER, Site};

/// Stages, and how long each may be waited into.
const STAGES: [(&str, f64); 4] = [("preflight", 0.6), ("convert", 1.0), ("preprocess", 1.0), ("train", 5.0)];

/// What strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    LeaderKilled,
    MemberKilled,
    AgentKilled,
    CutForAMoment,
    CutUntilLost,
    HostKilled,
    PowerLost,
}

/// Blows that no work may notice, and all.
const MILD: [Blow; 4] = [Blow::LeaderKilled, Blow::MemberKilled, Blow::AgentKilled, Blow::CutForAMoment];
const HARD: [Blow; 7] = [
    Blow::LeaderKilled,
    Blow::MemberKilled,
    Blow::AgentKilled,
    Blow::CutForAMoment,
    Blow::CutUntilLost,
    Blow::HostKilled,
    Blow::PowerLost,
];

/// The control plane is struck: nothing fails, nothing is done twice.
pub(crate) fn control_plane(turn: &mut Turn) {
    let (site, job) = struck(turn, &MILD);
    let events = site.lab.events(&job);
    let bad = ["attempt-failed", "task-retried", "node-lost"];
    assert!(events.iter().all(|event| !bad.contains(&&*event.kind)), "{events:#?}");
}

/// Whole hosts are struck, too: what was lost is done again, and the results are the same.
pub(crate) fn hosts(turn: &mut Turn) {
    let _ = struck(turn, &HARD);
}

fn struck(turn: &mut Turn, blows: &[Blow]) -> (Site, String) {
    let mut site = Site::three(3);
    pipeline::inputs(&site.lab, Shape::LARGE, 60_000);
    fs::write(site.lab.work().join("set_env.sh"), "sleep 0.6\n").unwrap();
    let record = Record::new(&site.lab.work(), "struck");
    let path = record.path();
    let mut spec = pipeline::whole(&site.lab, "struck", 60, 100, &["--record", &path, "--collective-timeout", "5"]);
    spec["runtime"]["source"] = json!(["./set_env.sh"]);
    spec["stages"]["train"]["save_interval"] = json!(10);
    spec["stages"]["train"]["checkpoint_optimizer"] = json!(true);
    for name in ["convert", "preprocess", "train"] {
        spec["stages"][name]["retries"] = json!({"max": 20, "backoff": "100ms"});
    }
    let job = site.lab.accepted(&spec);
    for (name, longest) in STAGES {
        if runs(&site, &job, name) {
            // A preflight is about its very hosts: one that is lost while it is looked at fails it.
            let blow = turn.one(if name == "preflight" { &MILD } else { blows });
            turn.moment(&format!("{name}: {blow:?}"), Duration::from_secs_f64(longest));
            strike(&mut site, turn, blow);
        }
    }
    until("the job ends", LONG, || {
        let said = site.lab.qctl_for(LONG, ["wait", &job]);
        // Nobody may lead at this moment.
        (![1, 6].contains(&said.code)).then_some(())
    });
    site.lab.succeeds(&job, LONG);
    record.attempts_follow_each_other();
    assert_eq!(record.last(), 60);
    let mut tokens = input::tokens(&site.lab.work().join("text.jsonl"));
    tokens.extend(input::tokens(&site.lab.work().join("more.jsonl")));
    let merged = fs::read(site.lab.work().join("data/text_text_document.bin")).unwrap();
    assert!(merged == tokens, "the tokens in the input's order");
    let tracker = site.lab.work().join("checkpoints/latest_checkpointed_iteration.txt");
    assert_eq!(fs::read_to_string(tracker).unwrap().trim(), "60");
    until("nothing of the job is left", LONG, || site.lab.work_processes().is_empty().then_some(()));
    (site, job)
}

/// Waits until a stage runs; false if it has ended meanwhile.
fn runs(site: &Site, job: &str, name: &str) -> bool {
    until(&format!("stage `{name}` begins"), LONG, || {
        let told = site.lab.qctl_for(LONG, ["describe", job, "-o", "json"]);
        let told: Value = serde_json::from_str(&told.stdout).ok()?;
        match stage(&told, name)["phase"].as_str()? {
            "pending" => None,
            "running" => Some(true),
            _ => Some(false),
        }
    })
}

fn strike(site: &mut Site, turn: &mut Turn, blow: Blow) {
    let victim = turn.random.random_range(0..site.agents.len());
    let host = |site: &Site| site.agents[victim].host.name.clone();
    match blow {
        Blow::LeaderKilled => {
            let leader = site.leader();
            site.controllers[leader].end("KILL");
            turn.moment("its absence", Duration::from_secs(4));
            site.controllers[leader].start();
        }
        Blow::MemberKilled => {
            let member = turn.one(&[0, 1, 2]);
            site.etcd[member].end("KILL");
            turn.moment("its absence", Duration::from_secs(4));
            site.etcd[member].start();
        }
        Blow::AgentKilled => {
            turn.note(host(site));
            site.agents[victim].end("KILL");
            // Lone work of a host that counts as lost is begun elsewhere, as it should be.
            turn.moment("its absence", Duration::from_secs(LOST_AFTER) / 3);
            site.agents[victim].start();
        }
        Blow::CutForAMoment | Blow::CutUntilLost => {
            turn.note(host(site));
            site.agents[victim].host.cut();
            turn.moment("the cut", Duration::from_secs(LOST_AFTER) / 3);
            if blow == Blow::CutUntilLost {
                let name = host(site);
                until("it counts as lost", LONG, || (site.node(&name)?["phase"] == "lost").then_some(()));
            }
            site.agents[victim].host.heal();
        }
        Blow::HostKilled | Blow::PowerLost => {
            turn.note(host(site));
            if blow == Blow::PowerLost {
                site.agents[victim].host.reboot()
            } else {
                site.agents[victim].host.kill_all()
            }
            site.agents[victim].ended();
            turn.moment("its absence", Duration::from_secs(LOST_AFTER) * 2);
            site.agents[victim].start();
        }
    }
}
