//! The whole way, and the second time.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use stories::input::Shape;
use stories::job::{iterations, stage};
use stories::lab::Lab;
use stories::pipeline;

const STAGES: [&str; 5] = ["preflight", "convert", "preprocess", "train", "after"];

#[test]
fn a_pipeline_runs_over_two_agents_and_the_second_submission_does_again_only_what_changed() {
    let lab = Lab::start();
    pipeline::inputs(&lab, Shape::SMALL, 500);
    let mut spec = pipeline::whole(&lab, "whole", 10, 20, &[]);
    spec["stages"]["after"] = serde_json::json!({"run": {"argv": ["true"]}, "after": ["train"]});
    let job = lab.accepted(&spec);
    lab.succeeds(&job, Duration::from_secs(120));

    let told = lab.describe(&job);
    for name in STAGES {
        assert_eq!(stage(&told, name)["phase"], "succeeded", "{name}");
    }
    let train = stage(&told, "train");
    let nodes = &train["tasks"][0]["history"][0]["nodes"];
    assert_eq!(nodes.as_array().map(Vec::len), Some(2), "the ranks lie on both agents: {train}");
    assert_ne!(nodes[0], nodes[1]);
    let log = lab.log(&job, "train", 3);
    assert_eq!(iterations(&log), (2..=10).collect::<Vec<_>>(), "a converted checkpoint is iteration 1");
    assert_eq!(fs::read_to_string(lab.work().join("mcore/latest_checkpointed_iteration.txt")).unwrap().trim(), "1");
    for rank in ["mp_rank_00_000", "mp_rank_00_001", "mp_rank_01_000", "mp_rank_01_001"] {
        for checkpoint in ["mcore/iter_0000001", "checkpoints/iter_0000005", "checkpoints/iter_0000010"] {
            let shard = lab.work().join(checkpoint).join(rank).join("model_optim_rng.pt");
            assert!(shard.is_file(), "{}", shard.display());
        }
    }
    let left = ["mcore", "data"].into_iter().flat_map(|name| fs::read_dir(lab.work().join(name)).unwrap());
    let mut left: Vec<String> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    let results =
        ["iter_0000001", "latest_checkpointed_iteration.txt", "text_text_document.bin", "text_text_document.idx"];
    assert_eq!(left, results, "what the tasks wrote was moved into place, and nothing is left of it");
    let mut tokens = stories::input::tokens(&lab.work().join("text.jsonl"));
    tokens.extend(stories::input::tokens(&lab.work().join("more.jsonl")));
    let merged = fs::read(lab.work().join("data/text_text_document.bin")).unwrap();
    assert!(merged == tokens, "the parts of both agents are merged in the input's order");
    let ran_on = |name: &str| -> BTreeSet<String> {
        let tasks = stage(&told, name)["tasks"].as_array().unwrap().iter();
        tasks.map(|task| task["history"][0]["nodes"].to_string()).collect()
    };
    // The two stages run beside each other: which of them finds room where depends on who is done first.
    let both: BTreeSet<String> = ran_on("convert").into_iter().chain(ran_on("preprocess")).collect();
    assert_eq!(both.len(), 2, "the engines' tasks ran on both agents: {both:?}");
    let completed: Vec<String> =
        lab.events(&job).into_iter().filter(|e| e.kind == "checkpoint-completed").map(|e| e.message).collect();
    assert_eq!(completed.len(), 2, "{completed:?}");

    // Untouched: everything that has a digest is taken over, and the submission says so.
    let again = lab.submit(&spec, &[]).code(0);
    lab.succeeds("whole", Duration::from_secs(60));
    let told = lab.describe("whole");
    assert_ne!(told["id"], serde_json::json!(job), "the name leads to its newest job");
    for name in ["convert", "preprocess", "train"] {
        assert_eq!(stage(&told, name)["phase"], "reused", "{name}");
        let said = again.stderr.lines().any(|line| line.starts_with("reused: ") && line.contains(name));
        assert!(said, "the submission says that `{name}` is reused: {again}");
    }
    assert_eq!(stage(&told, "preflight")["phase"], "succeeded", "a node that was sound yesterday proves nothing today");

    // Other text: tokens and training are made anew, weights are not.
    stories::input::rows(&lab.work().join("text.jsonl"), 501);
    let third = lab.accepted(&spec);
    lab.succeeds(&third, Duration::from_secs(60));
    let told = lab.describe(&third);
    let phases =
        ["convert", "preprocess", "train"].map(|name| stage(&told, name)["phase"].as_str().unwrap().to_owned());
    assert_eq!(phases, ["reused", "succeeded", "succeeded"]);
}
