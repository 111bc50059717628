//! Spec files, as JSON values that a story can edit.

use serde_json::{Value, json};

use crate::input::{self, Shape};
use crate::lab::Lab;
use crate::program::{python, workspace};

/// Writes a model and two files of text into the laboratory's working directory.
pub fn inputs(lab: &Lab, shape: Shape, rows: usize) {
    input::model(&lab.work().join("model"), shape);
    input::rows(&lab.work().join("text.jsonl"), rows);
    input::rows(&lab.work().join("more.jsonl"), rows / 2);
}

/// Every stage up to training, with the stand-in as trainer: 2 nodes x 2 ranks, TP 2 x PP 2.
///
/// `step_ms` is how long an iteration takes; `args` go to the stand-in.
#[must_use]
pub fn whole(lab: &Lab, name: &str, iterations: u64, step_ms: u64, args: &[&str]) -> Value {
    let train = json!({
        "seq_length": 16,
        "micro_batch_size": 1,
        "global_batch_size": 2,
        "train_iters": iterations,
        "save_interval": (iterations / 2).max(1),
        "expect_pretrained": false,
    });
    let mut spec = file(lab, name);
    spec["model"] = json!({"hf_dir": "./model"});
    spec["dataset"] = json!({"files": ["./text.jsonl", "./more.jsonl"]});
    spec["stages"] = json!({
        "preflight": {},
        "convert": {"save_dir": "./mcore", "dtype": "bf16"},
        "preprocess": {"output_prefix": "./data/text", "workers": 1, "shards": 2},
        "train": standin(train, &step_words(step_ms, args)),
    });
    spec
}

/// Training alone, with the stand-in: it needs neither model nor data.
#[must_use]
pub fn training(lab: &Lab, name: &str, iterations: u64, step_ms: u64, args: &[&str]) -> Value {
    let numbers = [
        ("--tensor-model-parallel-size", 2),
        ("--pipeline-model-parallel-size", 2),
        ("--micro-batch-size", 1),
        ("--global-batch-size", 2),
        ("--train-iters", iterations),
        ("--save-interval", (iterations / 2).max(1)),
    ];
    let mut words: Vec<String> = numbers.iter().flat_map(|(flag, n)| [(*flag).to_owned(), n.to_string()]).collect();
    words.extend(step_words(step_ms, args));
    let mut spec = file(lab, name);
    spec["stages"] = json!({"train": standin(json!({"derive": false}), &words)});
    spec
}

/// A job of one stage that runs a command.
#[must_use]
pub fn command(lab: &Lab, name: &str, argv: &[&str], count: u32) -> Value {
    let mut spec = file(lab, name);
    spec["stages"] = json!({"work": {"run": {"argv": argv, "count": count}}});
    spec
}

fn file(lab: &Lab, name: &str) -> Value {
    json!({
        "name": name,
        "workdir": lab.work(),
        "parallel": {"tp": 2, "pp": 2},
        "runtime": {"python": python(), "device": "cpu", "env": {"PYTHONDONTWRITEBYTECODE": "1"}},
        "storage": "shared",
    })
}

fn standin(mut train: Value, words: &[String]) -> Value {
    let directory = workspace().join("examples/standin");
    train["script"] = json!(directory.join("pretrain_gpt.py"));
    train["scheduler"] = json!([python(), "-u", directory.join("scheduler.py")]);
    train["nodes"] = json!(2);
    train["ranks_per_node"] = json!(2);
    train["save_dir"] = json!("./checkpoints");
    train["args"] = json!(words);
    train
}

fn step_words(step_ms: u64, args: &[&str]) -> Vec<String> {
    let first = ["--step-ms".to_owned(), step_ms.to_string()];
    first.into_iter().chain(args.iter().map(|word| (*word).to_owned())).collect()
}
