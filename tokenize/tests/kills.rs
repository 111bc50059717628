//! Killed at random moments, a run or a merge leaves nothing half done under a
//! final name, and the next one ends as if nothing had happened.
//!
//! `QCTL_KILLS` sets how many times each is killed.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{names, tiny_tokenizer_json, write_tokenizer};
use serde_json::json;

fn kills() -> u64 {
    std::env::var("QCTL_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(12)
}

/// splitmix64: the moments of a run can be had again from its seed.
fn random(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let mut model = tiny_tokenizer_json();
        let added = model["added_tokens"].as_array_mut().unwrap();
        let next = added.iter().map(|token| token["id"].as_u64().unwrap()).max().unwrap() + 1;
        for (id, content) in (next..).zip(["<|im_start|>", "<|im_end|>"]) {
            let mut token = added[0].clone();
            token["id"] = json!(id);
            token["content"] = json!(content);
            added.push(token);
        }
        write_tokenizer(&place.path().join("tokenizer"), &model);
        let row = |row: u64| {
            let text = |salt: u64| "the on and ".repeat(usize::try_from(random(row * 3 + salt) % 40).unwrap() + 1);
            json!({"instruction": text(0), "input": text(1), "output": text(2), "text": text(3)}).to_string()
        };
        let lines: Vec<String> = (0..4000).map(row).collect();
        fs::write(place.path().join("in.jsonl"), lines.join("\n")).unwrap();
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qctl-tokenize"));
        command.current_dir(self.path()).args(line.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs to the end.
    fn finish(&self, line: &str) -> Duration {
        let begin = Instant::now();
        let output = self.command(line).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        begin.elapsed()
    }

    /// Kills a run at some moment of `whole`, or shortly behind its end.
    /// Returns whether it had ended by then.
    fn kill(&self, line: &str, whole: Duration, seed: u64) -> bool {
        let mut child = self.command(line).spawn().unwrap();
        let share = u32::try_from(random(seed) % 1100).unwrap();
        std::thread::sleep(whole * share / 1000);
        // It may be over already.
        let _ = child.kill();
        child.wait().unwrap().success()
    }

    /// The content of the files that begin with `prefix`.
    fn files(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let ours = names(self.path()).into_iter().filter(|name| name.starts_with(prefix));
        ours.map(|name| (name.clone(), fs::read(self.path().join(name)).unwrap())).collect()
    }

    /// Whatever has a final name is what it will be in the end.
    fn assert_whole(&self, expected: &[(String, Vec<u8>)], seed: u64) {
        for (name, content) in self.files("x_") {
            let whole = expected.iter().any(|(other, wanted)| *other == name && *wanted == content);
            assert!(whole, "{name} is not whole after kill {seed}");
        }
    }
}

#[test]
fn runs_that_were_killed_end_equal_when_run_again() {
    let place = Place::new();
    let base = "--input in.jsonl --tokenizer-name-or-path tokenizer --output-prefix x --workers 2";
    let chat = "--handler-name AlpacaStyleInstructionHandler --prompt-type qwen --seq-length 512";
    for line in [base.to_owned(), format!("{base} {chat} --pack")] {
        let whole = place.finish(&line);
        let expected = place.files("x_");
        for seed in 0..kills() {
            // Sometimes an older result is there, sometimes none.
            if seed % 2 == 0 {
                expected.iter().for_each(|(name, _)| fs::remove_file(place.path().join(name)).unwrap());
            }
            place.kill(&line, whole, seed);
            place.assert_whole(&expected, seed);
            place.finish(&line);
            assert!(place.files("x_") == expected, "after kill {seed} of {line}");
        }
        expected.iter().for_each(|(name, _)| fs::remove_file(place.path().join(name)).unwrap());
    }
}

#[test]
fn merges_that_were_killed_end_equal_when_run_again() {
    let place = Place::new();
    let base = "--input in.jsonl --tokenizer-name-or-path tokenizer --workers 2";
    place.finish(&format!("{base} --output-prefix x"));
    let expected = place.files("x_");
    let shards: Vec<String> = (0..8).map(|shard| format!("--rows {}..{}", shard * 500, (shard + 1) * 500)).collect();
    for (number, rows) in shards.iter().enumerate() {
        place.finish(&format!("{base} --output-prefix part{number} {rows}"));
    }
    let parts = place.files("part");
    let list: Vec<String> = (0..8).map(|part| format!("part{part}")).collect();
    let line = format!("merge --output-prefix x --part {} --remove-parts", list.join(" "));
    let restore = || parts.iter().for_each(|(name, content)| fs::write(place.path().join(name), content).unwrap());
    let whole = place.finish(&line);
    for seed in 0..kills() {
        restore();
        expected.iter().for_each(|(name, _)| fs::remove_file(place.path().join(name)).unwrap());
        let ended = place.kill(&line, whole, seed);
        place.assert_whole(&expected, seed);
        // A merge that has taken its parts away, and its note of that, is over.
        let over = place.files("part").is_empty() && !place.path().join(".x.merged").exists();
        assert!(over || !ended, "kill {seed}");
        if !over {
            place.finish(&line);
        }
        assert!(place.files("x_") == expected, "after kill {seed}");
        assert_eq!(place.files("part"), Vec::new(), "parts are left after kill {seed}");
        assert!(!place.path().join(".x.merged").exists());
    }
}

#[test]
fn a_note_of_another_merge_is_not_believed() {
    let place = Place::new();
    let base = "--input in.jsonl --tokenizer-name-or-path tokenizer";
    place.finish(&format!("{base} --output-prefix a --rows 0..10"));
    place.finish("merge --output-prefix x --part a");
    fs::write(place.path().join(".x.merged"), "{}").unwrap();
    let missing = place.command("merge --output-prefix x --part gone --remove-parts").output().unwrap();
    assert!(!missing.status.success());
}
