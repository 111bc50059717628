//! `--set` words: one to a line, over a sound file.

const SOUND: &str = "name: a\nworkdir: /w\nstages:\n  train:\n    script: t.py\n    nodes: 1\n    ranks_per_node: 2\n";

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let words: Vec<(String, String)> = text
        .lines()
        .take(8)
        .filter_map(|line| line.split_once('='))
        .map(|(path, value)| (path.to_owned(), value.to_owned()))
        .collect();
    if let Err(problems) = spec::parse_with_overrides(SOUND, "job.yaml", &words) {
        assert!(!problems.is_empty());
        let said = spec::render(&problems);
        crate::assert_printable(&said);
    }
}
