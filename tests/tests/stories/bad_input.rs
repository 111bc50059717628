//! Bad input: a clear sentence, and nothing half written.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stories::input::{self, Shape};
use stories::lab::Lab;
use stories::pipeline;

/// One way to get it wrong.
struct Case {
    name: &'static str,
    /// Spoils the files or the spec.
    spoil: fn(&Lab, &mut Value),
    /// Exit code of `submit --wait`: 2 for the user's file, 1 for what was refused, 3 for what failed later.
    code: i32,
    /// Words that the message must have.
    said: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "unknown-key",
        spoil: |_, spec| spec["stages"]["train"]["train_iter"] = json!(3),
        code: 2,
        said: &["train_iter", "train_iters", "pipeline.yaml:"],
    },
    Case {
        name: "wrong-type",
        spoil: |_, spec| spec["parallel"]["tp"] = json!("two"),
        code: 2,
        said: &["tp", "two", "pipeline.yaml:"],
    },
    Case {
        name: "tp-does-not-divide",
        spoil: |_, spec| {
            spec["parallel"] = json!({"tp": 3, "pp": 1});
            spec["stages"]["train"]["nodes"] = json!(1);
            spec["stages"]["train"]["ranks_per_node"] = json!(3);
        },
        code: 2,
        said: &["tp", "3", "1, 2"],
    },
    Case {
        name: "pp-does-not-divide",
        spoil: |_, spec| {
            spec["parallel"] = json!({"tp": 1, "pp": 3});
            spec["stages"]["train"]["nodes"] = json!(1);
            spec["stages"]["train"]["ranks_per_node"] = json!(3);
        },
        code: 2,
        said: &["pp", "3", "1, 2"],
    },
    Case {
        name: "no-model",
        spoil: |_, spec| spec["model"]["hf_dir"] = json!("./nowhere"),
        code: 2,
        said: &["nowhere", "config.json"],
    },
    Case {
        name: "truncated-weights",
        spoil: |lab, _| input::truncate(&lab.work().join("model/model-00002-of-00002.safetensors")),
        code: 2,
        said: &["model-00002-of-00002.safetensors", "truncated"],
    },
    Case {
        name: "missing-weights",
        spoil: |lab, _| fs::remove_file(lab.work().join("model/model-00002-of-00002.safetensors")).unwrap(),
        code: 2,
        said: &["model-00002-of-00002.safetensors"],
    },
    Case {
        name: "contradicting-shape",
        spoil: |lab, _| edit(&lab.work().join("model/config.json"), |config| config["intermediate_size"] = json!(96)),
        code: 2,
        said: &["mlp", "96"],
    },
    Case {
        name: "html-parquet",
        spoil: |lab, spec| {
            fs::write(lab.work().join("text.parquet"), "<!DOCTYPE html><html>404 not found</html>\n").unwrap();
            spec["dataset"]["files"] = json!(["./text.parquet"]);
        },
        code: 2,
        said: &["text.parquet", "HTML"],
    },
    Case {
        name: "no-column",
        spoil: |lab, _| fs::write(lab.work().join("text.jsonl"), "{\"body\": \"x\"}\n{\"body\": \"y\"}\n").unwrap(),
        code: 3,
        said: &["text.jsonl", "`text`"],
    },
    Case {
        name: "broken-line",
        spoil: |lab, _| {
            let mut text = "{\"text\": \"fine\"}\n".repeat(6);
            text += "{\"text\": \"bro\n";
            text += &"{\"text\": \"fine\"}\n".repeat(3);
            fs::write(lab.work().join("text.jsonl"), text).unwrap();
        },
        code: 3,
        said: &["text.jsonl", "line 7"],
    },
    Case {
        name: "no-tokenizer",
        spoil: |lab, _| fs::remove_file(lab.work().join("model/tokenizer.json")).unwrap(),
        code: 2,
        said: &["tokenizer.json"],
    },
    Case {
        name: "not-writable",
        spoil: |lab, spec| {
            fs::write(lab.work().join("file"), "").unwrap();
            spec["stages"]["convert"]["save_dir"] = json!("./file/mcore");
        },
        code: 3,
        said: &["file/mcore"],
    },
    Case {
        name: "no-script",
        spoil: |_, spec| spec["stages"]["train"]["script"] = json!("./no_such_script.py"),
        code: 3,
        said: &["no_such_script.py"],
    },
    Case {
        name: "no-python",
        spoil: |_, spec| spec["runtime"]["python"] = json!("/nowhere/bin/python"),
        code: 3,
        said: &["/nowhere/bin/python"],
    },
    Case {
        name: "no-mindspore",
        // Whatever this machine's Python has: a module that cannot be imported stands before it.
        spoil: |lab, spec| {
            spec["stages"]["train"].as_object_mut().unwrap().remove("scheduler");
            fs::create_dir(lab.work().join("shadow")).unwrap();
            fs::write(lab.work().join("shadow/mindspore.py"), "raise ImportError('not here')\n").unwrap();
            spec["runtime"]["env"]["PYTHONPATH"] = json!(lab.work().join("shadow"));
        },
        code: 3,
        said: &["mindspore"],
    },
];

#[test]
fn every_mistake_has_its_sentence_and_leaves_nothing_behind() {
    let lab = Lab::start();
    let mut wrong = Vec::new();
    for case in CASES {
        let _ = fs::remove_dir_all(lab.work());
        pipeline::inputs(&lab, Shape::SMALL, 40);
        let mut spec = pipeline::whole(&lab, case.name, 4, 10, &[]);
        (case.spoil)(&lab, &mut spec);
        let outcome = lab.submit(&spec, &["--wait"]);
        let mut said = outcome.stderr.clone();
        if outcome.code == 3 {
            said += &lab.describe(case.name).to_string();
        }
        let missing: Vec<&&str> = case.said.iter().filter(|word| !said.contains(**word)).collect();
        if outcome.code != case.code || !missing.is_empty() {
            wrong.push(format!("{}: wanted code {} and {missing:?}: {outcome}\n{said}", case.name, case.code));
        }
        let half = half_written(&lab.work());
        if !half.is_empty() {
            wrong.push(format!("{}: left {half:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), CASES.len(), wrong.join("\n\n"));
}

/// Whatever somebody could take for a result, and is not whole.
///
/// A stage that succeeded beside the one that failed has published its own. What tasks wrote under their attempts' names
/// lies in a hidden directory, where nobody looks for results.
fn half_written(work: &Path) -> Vec<PathBuf> {
    let all = tree(work);
    let has = |path: &Path| all.iter().any(|other| other == path);
    let shards = |parent: &Path| all.iter().filter(|path| path.starts_with(parent) && is(path, "pt")).count();
    let tracker = "latest_checkpointed_iteration.txt";
    let half = all.iter().filter(|path| {
        let directory = path.parent().unwrap();
        if path.ends_with("iter_0000001") {
            return !(has(&directory.join(tracker)) && shards(path) == 4);
        }
        let pair = (is(path, "bin") && !has(&path.with_extension("idx")))
            || (is(path, "idx") && !has(&path.with_extension("bin")));
        let name = path.file_name().unwrap().to_string_lossy();
        pair || name.contains(".tmp") || name.contains(".part") || path.ends_with("checkpoints")
    });
    half.cloned().collect()
}

fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|other| other == extension)
}

/// Every path but those in hidden directories.
fn tree(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with('.') {
                continue;
            }
            if path.is_dir() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}
