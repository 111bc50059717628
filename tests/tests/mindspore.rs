//! The real thing: MindSpore's own collectives, a real model, and an independent forward pass as the judge.
//!
//! Runs where `QCTL_TEST_PYTHON` names an interpreter with MindSpore.

#![allow(clippy::unwrap_used, reason = "a helper says by panicking that a story went wrong")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use stories::input::{Tensors, tensors};
use stories::job::{iterations, stage};
use stories::lab::Lab;
use stories::program::{mindspore_python, run, workspace};

/// Iterations of the run; a converted checkpoint is the first.
const ITERATIONS: u64 = 8;
/// Iterations between checkpoints.
const INTERVAL: u64 = 2;
/// Samples of an iteration, as the quickstart says.
const BATCH: u64 = 8;

#[test]
fn a_real_model_trains_over_two_agents_and_starts_from_the_loss_of_an_independent_forward_pass() {
    let Some(python) = mindspore_python() else {
        println!("skipped: QCTL_TEST_PYTHON names no interpreter with mindspore");
        return;
    };
    let lab = Lab::start();
    let work = lab.work();
    let make = workspace().join("examples/quickstart/make_input.py");
    let _ = run(Command::new(&python).arg(make).arg(&work), Duration::from_secs(180)).ok();
    let file = workspace().join("examples/quickstart/pipeline.yaml").to_string_lossy().into_owned();
    let script = workspace().join("examples/trainer/pretrain_gpt.py");
    let values = [
        format!("workdir={}", work.display()),
        format!("runtime.python={python}"),
        format!("stages.train.script={}", script.display()),
        format!("stages.train.train_iters={ITERATIONS}"),
        format!("stages.train.save_interval={INTERVAL}"),
    ];
    let submit = |more: &[&str]| {
        let mut words = vec!["submit", "-f", &file, "-o", "name"];
        words.extend(values.iter().map(String::as_str).chain(more.iter().copied()).flat_map(|value| ["--set", value]));
        lab.qctl(words).ok().trim().to_owned()
    };
    let job = submit(&[]);
    lab.succeeds(&job, Duration::from_secs(420));

    let told = lab.describe(&job);
    for name in ["preflight", "convert", "preprocess", "train", "export"] {
        assert_eq!(stage(&told, name)["phase"], "succeeded", "{name}");
    }
    let log = lab.log(&job, "train", 3);
    assert_eq!(iterations(&log), (2..=ITERATIONS).collect::<Vec<_>>());
    let first = loss_of(&log, 2);
    let judged = judge(&python, &work);
    println!("first loss {first}, by the independent forward pass {judged}");
    assert!((first - judged).abs() < 1e-3, "{first} against {judged}");

    let listed = lab.qctl(["ckpt", "ls", &job, "-o", "json"]).ok();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let complete = listed["checkpoints"].as_array().unwrap().iter().filter(|one| one["complete"] == true);
    let complete: BTreeSet<u64> = complete.filter_map(|one| one["iteration"].as_u64()).collect();
    assert_eq!(complete, (1..=ITERATIONS / INTERVAL).map(|n| n * INTERVAL).collect());

    let (before, after) = (tensors(&work.join("model_hf")), tensors(&work.join("exported/mg2hf")));
    let described = |all: &Tensors| {
        all.iter().map(|(name, (dtype, shape, _))| format!("{name} {dtype} {shape}")).collect::<Vec<_>>()
    };
    assert_eq!(described(&before), described(&after), "the export has the input's tensors");
    let moved = before.iter().filter(|(name, tensor)| after[*name].2 != tensor.2).count();
    assert!(moved * 10 > before.len() * 9, "{moved} of {} tensors were trained", before.len());
    assert!(lab.work_processes().is_empty());

    let again = submit(&[
        "stages.train.launcher=msrun",
        "stages.train.save_dir=./checkpoints_by_msrun",
        "stages.export.save_dir=./exported_by_msrun",
    ]);
    lab.succeeds(&again, Duration::from_secs(420));
    let by_msrun = lab.log(&again, "train", 3);
    let losses = |log: &str| (2..=ITERATIONS).map(|iteration| loss_of(log, iteration)).collect::<Vec<_>>();
    assert_eq!(losses(&by_msrun), losses(&log), "who starts the ranks changes nothing");
    assert!(after == tensors(&work.join("exported_by_msrun/mg2hf")), "nor does it change a bit of the result");
    assert!(lab.work_processes().is_empty());
}

/// The loss of the batch that iteration 2 trains on, from the Hugging Face files alone.
fn judge(python: &str, work: &Path) -> f64 {
    let mut command = Command::new(python);
    command.arg(workspace().join("examples/trainer/check_forward.py"));
    command.arg("--hf-dir").arg(work.join("model_hf"));
    command.arg("--data-path").arg(work.join("dataset/docs_text_document"));
    command.args(["--seq-length", "128", "--batch", &format!("{BATCH}..{}", 2 * BATCH)]);
    let said = run(&mut command, Duration::from_secs(120)).ok();
    let said: Value = serde_json::from_str(&said).unwrap();
    said["loss"].as_f64().unwrap()
}

fn loss_of(log: &str, iteration: u64) -> f64 {
    let line = log.lines().find(|line| iterations(line) == [iteration]);
    let line = line.unwrap_or_else(|| panic!("no line of iteration {iteration} in {log}"));
    let (_, rest) = line.split_once("lm loss: ").unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}
