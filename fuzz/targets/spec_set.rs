//! `--set` words: one to a line, over a sound file.
#![no_main]

use libfuzzer_sys::fuzz_target;

const SOUND: &str = "name: a\nworkdir: /w\nstages:\n  train:\n    script: t.py\n    nodes: 1\n    ranks_per_node: 2\n";

fuzz_target!(|text: &str| {
    let words: Vec<(String, String)> = text
        .lines()
        .take(8)
        .filter_map(|line| line.split_once('='))
        .map(|(path, value)| (path.to_owned(), value.to_owned()))
        .collect();
    if let Err(problems) = spec::parse_with_overrides(SOUND, "job.yaml", &words) {
        assert!(!problems.is_empty());
        let said = spec::render(&problems);
        let raw = said.chars().find(|c| c.is_control() && *c != '\n');
        assert!(raw.is_none(), "{raw:?} would reach the terminal: {said:?}");
    }
});
