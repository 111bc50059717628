//! A stage of the user's own.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use stories::job::stage;
use stories::lab::Lab;
use stories::pipeline;
use stories::program::python;

const WORDS: [&str; 8] = ["two words", "it's", "\"quoted\"", "$HOME", "*", "日本 é", "back\\slash", "line\nbreak"];

const SCRIPT: &str = "\
import json, os, sys
with open('seen-' + os.environ['QCTL_ATTEMPT'], 'w') as out:
    json.dump({'argv': sys.argv[1:], 'value': os.environ['VALUE']}, out)
";

#[test]
fn twenty_tasks_get_their_words_and_variables_to_the_letter() {
    let lab = Lab::start();
    let mut argv = vec![python(), "-c", SCRIPT];
    argv.extend(WORDS);
    let mut spec = pipeline::command(&lab, "words", &argv, 20);
    let value = "a b $PATH 'ü' \"x\"";
    spec["runtime"]["env"]["VALUE"] = json!(value);
    let job = lab.accepted(&spec);
    lab.succeeds(&job, Duration::from_secs(60));

    let told = lab.describe(&job);
    let work = stage(&told, "work");
    assert_eq!((&work["tasks_total"], &work["tasks_done"]), (&json!(20), &json!(20)), "{work}");
    let files = fs::read_dir(lab.work()).unwrap().map(|entry| entry.unwrap());
    let seen: BTreeSet<String> = files
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("seen-"))
        .map(|entry| {
            let seen: Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
            assert_eq!(seen["argv"], json!(WORDS));
            assert_eq!(seen["value"], json!(value));
            entry.file_name().to_string_lossy().into_owned()
        })
        .collect();
    assert_eq!(seen.len(), 20, "each task ran once, as an attempt of its own");
}
