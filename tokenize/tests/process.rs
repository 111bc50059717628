//! The binary: flags, JSON lines, exit codes.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::{names, plain_run, read_pair, tiny_tokenizer};
use serde_json::{Value, json};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        tiny_tokenizer(&place.path().join("tokenizer"));
        let lines: Vec<String> = texts().iter().map(|text| json!({"text": text, "output": "on"}).to_string()).collect();
        fs::write(place.path().join("in.jsonl"), lines.join("\n")).unwrap();
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn call(&self, line: &str) -> Output {
        let program = env!("CARGO_BIN_EXE_qctl-tokenize");
        Command::new(program).current_dir(self.path()).args(line.split_whitespace()).output().unwrap()
    }

    fn expect(&self, line: &str, code: i32) -> (Vec<Value>, String) {
        let output = self.call(line);
        let talk = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}\n{talk}");
        let text = String::from_utf8(output.stdout).unwrap();
        (text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(), talk)
    }
}

fn texts() -> Vec<String> {
    let mut texts: Vec<String> = (0..300).map(|row| format!("the row {row} and on\n")).collect();
    texts[7].clear();
    texts
}

const RUN: &str = "--input in.jsonl --tokenizer-name-or-path tokenizer --output-prefix x";

#[test]
fn a_run_talks_like_the_reference() {
    let place = Place::new();
    let (out, talk) = place
        .expect(&format!("{RUN} --tokenizer-type PretrainedFromHF --workers 2 --log-interval 100 --append-eod"), 0);
    assert!(out.is_empty());
    for part in ["Vocab size: 274", "Output prefix: x", "Time to startup:", "Skip 0.0 sample exceeded seq-length(None)"]
    {
        assert!(talk.contains(part), "{talk}");
    }
    assert!(talk.contains("Processed 300 documents ("), "{talk}");
    assert!(talk.contains(" tokens/s, ") && talk.contains("100 % done, 0 s left"), "{talk}");
    let expected = plain_run(&[texts()], &place.path().join("tokenizer"), true, None);
    assert!(read_pair(&place.path().join("x"), "text") == expected[0]);
}

#[test]
fn progress_is_json_lines_with_a_result_at_the_end() {
    let place = Place::new();
    let (out, _) =
        place.expect(&format!("{RUN} --json-keys text output --seq-length 12 --progress json --n-subs 3"), 0);
    let result = out.last().unwrap();
    assert_eq!(result["type"], "result");
    assert_eq!(result["rows"], 300);
    let files = result["files"].as_array().unwrap();
    assert_eq!(files.len(), 4);
    for file in files {
        let path = place.path().join(file["path"].as_str().unwrap());
        assert_eq!(fs::metadata(&path).unwrap().len(), file["size"].as_u64().unwrap());
        assert_eq!(tokenize::digest_file(&path).unwrap(), file["digest"].as_str().unwrap());
    }
    let progress = &out[out.len() - 2];
    assert_eq!((&progress["type"], &progress["unit"]), (&json!("progress"), &json!("rows")));
    assert_eq!((&progress["done"], &progress["total"]), (&json!(300), &json!(300)));
    assert_eq!(progress["tokens"], result["tokens"]);
    assert!(progress["bytes"].as_u64().unwrap() > 0);
    assert_eq!(progress["seconds_left"], 0.0);
    for rate in ["rows_per_s", "tokens_per_s", "bytes_per_s"] {
        assert!(progress[rate].as_f64().unwrap() > 0.0, "{rate}");
    }
}

#[test]
fn slices_and_a_manifest_make_the_whole() {
    let place = Place::new();
    let size = fs::metadata(place.path().join("in.jsonl")).unwrap().len();
    for (part, slice) in
        [format!("--byte-range 0..{}", size / 2), format!("--byte-range {}..{size}", size / 2)].iter().enumerate()
    {
        let line = RUN.replace(" x", &format!(" part{part}"));
        place.expect(&format!("{line} {slice} --progress json"), 0);
    }
    let manifest = json!([{"task": 1, "path": "part1"}, {"task": 0, "path": "part0"}]);
    fs::write(place.path().join("parts.json"), manifest.to_string()).unwrap();
    let (out, _) = place
        .expect("merge --output-prefix x --json-keys text --manifest parts.json --remove-parts --progress json", 0);
    assert_eq!(out.last().unwrap()["sequences"], 299);
    assert!(
        out.iter().any(|line| line["type"] == "progress" && line["unit"] == "parts" && line["done"] == line["total"])
    );
    let expected = plain_run(&[texts()], &place.path().join("tokenizer"), false, None);
    assert!(read_pair(&place.path().join("x"), "text") == expected[0]);
    assert_eq!(
        names(place.path()),
        ["in.jsonl", "parts.json", "tokenizer", "x_text_document.bin", "x_text_document.idx"]
    );

    place.expect(&format!("{} --rows 4..4", RUN.replace(" x", " empty")), 0);
    let (out, _) = place.expect("describe --prefix empty_text_document", 0);
    assert_eq!((&out[0]["sequences"], &out[0]["consistent"]), (&json!(0), &json!(true)));
    place.expect("merge --output-prefix y --part x empty", 0);
    assert!(read_pair(&place.path().join("y"), "text") == expected[0]);

    for (manifest, what) in [
        ("[{\"task\": 0, \"path\": \"x\"}, {\"task\": 0, \"path\": \"x\"}]", "task 0 twice"),
        ("[{\"task\": 1, \"path\": \"x\"}]", "task 1"),
        ("[{\"task\": 0}]", "missing field"),
        ("{}", "is not one"),
    ] {
        fs::write(place.path().join("parts.json"), manifest).unwrap();
        let (_, talk) = place.expect("merge --output-prefix z --manifest parts.json", 1);
        assert!(talk.contains(what) && talk.contains("hint: "), "{talk}");
    }
}

#[test]
fn describe_answers_planners() {
    let place = Place::new();
    let (out, _) = place.expect("describe --input in.jsonl --tokenizer-name-or-path tokenizer", 0);
    let input = place.path().join("in.jsonl");
    assert_eq!((&out[0]["format"], &out[0]["rows"]), (&json!("jsonl"), &Value::Null));
    assert_eq!(out[0]["bytes"], fs::metadata(&input).unwrap().len());
    assert_eq!(
        (&out[0]["digest"], &out[0]["digest_kind"]),
        (&json!(tokenize::digest_file(&input).unwrap()), &json!("full"))
    );
    assert_eq!(out[0]["tokenizer"]["vocab_size"], 274);
    assert_eq!((&out[0]["tokenizer"]["eos_token"], &out[0]["tokenizer"]["eos_id"]), (&json!("<|end|>"), &json!(272)));
    let (alone, _) = place.expect("describe --tokenizer-name-or-path tokenizer", 0);
    assert_eq!(alone[0], json!({"tokenizer": out[0]["tokenizer"]}));
    place.expect("describe", 2);
    let (out, _) = place.expect("describe --input in.jsonl --count", 0);
    assert_eq!(out[0]["rows"], 300);

    let rows = (0..25).map(|row| (format!("the {row}"), String::new())).collect();
    common::write_parquet(&place.path().join("in.parquet"), &rows, 10);
    let (out, _) = place.expect("describe --input in.parquet", 0);
    assert_eq!((&out[0]["rows"], &out[0]["columns"]), (&json!(25), &json!(["output", "text"])));
    let groups: Vec<u64> =
        out[0]["row_groups"].as_array().unwrap().iter().map(|group| group["rows"].as_u64().unwrap()).collect();
    assert_eq!(groups, [10, 10, 5]);

    place.expect(RUN, 0);
    let (out, _) = place.expect("describe --prefix x_text_document.idx", 0);
    assert_eq!((&out[0]["sequences"], &out[0]["documents"]), (&json!(299), &json!(299)));
    fs::write(place.path().join("x_text_document.bin"), "1234").unwrap();
    let (out, _) = place.expect("describe --prefix x_text_document", 1);
    assert_eq!(out[0]["consistent"], false);
}

#[test]
fn pairs_are_described_with_samples_and_compared() {
    let place = Place::new();
    place.expect(RUN, 0);
    let (out, _) = place.expect("describe --prefix x_text_document --tokenizer-name-or-path tokenizer --samples 2", 0);
    let buckets = out[0]["histogram"].as_array().unwrap();
    let counted: u64 = buckets.iter().map(|bucket| bucket["sequences"].as_u64().unwrap()).sum();
    assert_eq!(counted, 299);
    let samples: Vec<(u64, &str)> = out[0]["samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sample| (sample["sequence"].as_u64().unwrap(), sample["text"].as_str().unwrap()))
        .collect();
    // Row 7 is empty, so that sequence 149 is row 150.
    assert_eq!(samples, [(0, "the row 0 and on\n"), (149, "the row 150 and on\n")]);

    for (name, change) in [("same", None), ("id", Some(4)), ("none", None)] {
        let mut bin = fs::read(place.path().join("x_text_document.bin")).unwrap();
        if let Some(at) = change {
            bin[at] ^= 1;
        }
        fs::write(place.path().join(format!("{name}.bin")), bin).unwrap();
        fs::copy(place.path().join("x_text_document.idx"), place.path().join(format!("{name}.idx"))).unwrap();
    }
    let (out, _) = place.expect("diff x_text_document same.idx", 0);
    assert_eq!(out[0], json!({"equal": true, "first": null}));
    let (out, _) = place.expect("diff x_text_document id", 1);
    let first = &out[0]["first"];
    assert_eq!((&first["what"], &first["sequence"], &first["position"]), (&json!("id"), &json!(0), &json!(1)));
    place.expect(&format!("{} --rows 0..20", RUN.replace(" x", " few")), 0);
    let (out, _) = place.expect("diff x_text_document few_text_document", 1);
    assert_eq!(out[0]["first"], json!({"what": "sequences", "left": 299, "right": 19}));
    let (_, talk) = place.expect("diff x_text_document gone", 1);
    assert!(talk.contains("gone.idx") && out[0]["equal"] == false, "{talk}");
}

#[test]
fn failures_are_told_twice_and_exit_1() {
    let place = Place::new();
    fs::write(place.path().join("bad.jsonl"), "{\"text\": \"a\"}\n{").unwrap();
    let (out, talk) = place.expect(&format!("{} --progress json", RUN.replace("in.jsonl", "bad.jsonl")), 1);
    let error = out.last().unwrap();
    assert_eq!(error["type"], "error");
    assert!(error["message"].as_str().unwrap().contains("line 2") && !error["hint"].as_str().unwrap().is_empty());
    assert!(talk.contains("error: line 2") && talk.contains("hint: "), "{talk}");
    assert_eq!(names(place.path()), ["bad.jsonl", "in.jsonl", "tokenizer"]);
    let (_, talk) = place.expect("bench", 1);
    assert!(talk.contains("hint: give its directory with `--tokenizer DIR`"), "{talk}");
}

#[test]
fn wrong_usage_exits_2_and_names_the_flag() {
    let place = Place::new();
    let table = [
        ("", "--input"),
        ("--input in.jsonl", "--output-prefix"),
        (&format!("{RUN} --neat-pack"), "`--neat-pack` is not supported"),
        (&format!("{RUN} --prompt-type-path x"), "`--prompt-type-path` is not supported"),
        (&format!("{RUN} --split-sentences"), "`--split-sentences` is not supported"),
        (&format!("{RUN} --tokenizer-type GPT2BPETokenizer"), "PretrainedFromHF"),
        (&format!("{RUN} --worker 2"), "--workers"),
        (&format!("{RUN} --append-eos"), "--append-eod"),
        (&format!("{RUN} --workers 0"), "--workers"),
        (&format!("{RUN} --seq-length -1"), "-1"),
        (&format!("{RUN} --rows 5..2"), "5 is behind 2"),
        (&format!("{RUN} --rows 5"), "0..1000"),
        (&format!("{RUN} --rows 0..1 --byte-range 0..1"), "--byte-range"),
        ("merge --output-prefix x", "--part"),
        ("describe", "--input"),
        ("marge --output-prefix x", "merge"),
    ];
    for (line, part) in table {
        let (_, talk) = place.expect(line, 2);
        assert!(talk.contains(part), "{line}: {talk}");
    }
    assert_eq!(names(place.path()), ["in.jsonl", "tokenizer"]);
    let (_, talk) = place.expect(&format!("{RUN} --cache-dir /nowhere --overwrite-cache --n-subs 4"), 0);
    for flag in ["--cache-dir", "--overwrite-cache", "--n-subs"] {
        assert!(talk.contains(&format!("note: `{flag}` has no effect here")), "{talk}");
    }
}

#[test]
fn directories_and_patterns_are_read_by_name() {
    let place = Place::new();
    let parts = place.path().join("parts");
    fs::create_dir(&parts).unwrap();
    for (position, text) in ["c", "a", "b"].iter().enumerate() {
        fs::write(parts.join(format!("{text}.jsonl")), json!({"text": format!("{text}{position}")}).to_string())
            .unwrap();
    }
    fs::write(parts.join("README.md"), "not data").unwrap();
    for (input, texts) in [
        ("parts", vec!["a1", "b2", "c0"]),
        ("parts/[ab].jsonl", vec![]),
        ("parts/?.jsonl", vec!["a1", "b2", "c0"]),
        ("parts/b*", vec!["b2"]),
    ] {
        let line = RUN.replace("in.jsonl", input);
        if texts.is_empty() {
            place.expect(&line, 1);
            continue;
        }
        place.expect(&line, 0);
        let texts = texts.into_iter().map(str::to_owned).collect();
        let expected = plain_run(&[texts], &place.path().join("tokenizer"), false, None);
        assert!(read_pair(&place.path().join("x"), "text") == expected[0], "{input}");
    }
    for (part, rows) in ["0..1", "1..3"].iter().enumerate() {
        let line = RUN.replace("in.jsonl", "parts").replace(" x", &format!(" p{part}"));
        place.expect(&format!("{line} --rows {rows}"), 0);
    }
    place.expect("merge --output-prefix y --part p0 --part p1", 0);
    let texts = ["a1", "b2", "c0"].map(str::to_owned).to_vec();
    let expected = plain_run(&[texts], &place.path().join("tokenizer"), false, None);
    assert!(read_pair(&place.path().join("y"), "text") == expected[0]);
}
