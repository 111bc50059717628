//! Questions that change nothing, and their answers.

use std::time::Duration;

use serde_json::{Value, json};
use stories::input::Shape;
use stories::job::stage;
use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;

#[test]
fn the_plan_shows_the_very_words_that_the_ranks_then_get_and_runs_nothing() {
    let lab = Lab::start();
    pipeline::inputs(&lab, Shape::SMALL, 100);
    let spec = pipeline::whole(&lab, "planned", 200, 20, &["--log-interval", "5"]);
    let file = lab.write(&spec);
    let plan: Value = serde_json::from_str(&lab.qctl(["plan", "-f", &file, "-o", "json"]).ok()).unwrap();
    assert_eq!(lab.qctl(["ps", "-a", "-o", "name"]).ok(), "", "a plan is no job");
    assert!(!lab.work().join("mcore").exists() && !lab.work().join("data").exists(), "a plan writes nothing");

    let commands = stage(&plan, "train")["tasks"][0]["commands"].as_array().unwrap();
    let planned = commands.iter().find(|one| one["process"] == "worker").unwrap();
    let job = lab.accepted(&spec);
    let ranks = until("the ranks are up", Duration::from_secs(60), || Some(lab.ranks()).filter(|all| all.len() == 4));
    for rank in &ranks {
        assert_eq!(json!(rank.argv), planned["argv"], "rank {:?}", rank.rank());
    }
    let _ = lab.qctl(["cancel", &job]).ok();
    assert_eq!(lab.wait(&job, Duration::from_secs(30)), 4);
}

#[test]
fn a_job_that_waits_says_what_for() {
    let lab = Lab::start();
    let mut spec = pipeline::command(&lab, "large", &["true"], 1);
    spec["stages"]["work"]["run"]["slots"] = json!(3);
    let job = lab.accepted(&spec);
    let told = lab.qctl(["explain", &job]).ok();
    assert!(told.contains("pending") && told.contains("3 free cpu slots on one node"), "{told}");
    assert_eq!(lab.phase(&job), "pending");
    // What fits is not held up by what never will.
    let small = lab.accepted(&pipeline::command(&lab, "small", &["true"], 1));
    lab.succeeds(&small, Duration::from_secs(30));
    let _ = lab.qctl(["cancel", &job]).ok();
    assert_eq!(lab.wait(&job, Duration::from_secs(30)), 4);
}
