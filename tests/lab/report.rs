//! What became of the rounds, as a page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

/// One fault of one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    pub(crate) fault: &'static str,
    pub(crate) seed: u64,
    pub(crate) moment: Vec<String>,
    /// What, how long, and how long it should take at most.
    pub(crate) measured: Vec<(String, Duration, Duration)>,
    pub(crate) passed: bool,
    pub(crate) took: Duration,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Line>);

impl Report {
    pub(crate) fn add(&mut self, line: Line) {
        self.0.push(line);
    }

    /// Passed and failed.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let passed = self.0.iter().filter(|line| line.passed).count();
        (passed, self.0.len() - passed)
    }

    /// Writes the page anew.
    pub(crate) fn write(&self, path: &str) {
        fs::write(path, self.page()).unwrap();
    }

    fn page(&self) -> String {
        let (passed, failed) = self.counts();
        let mut page = format!("# The laboratory's rounds\n\n{passed} passed, {failed} failed.\n");
        page.push_str("\n## Measured\n\n| fault | what | times | median | longest | bar | over it |\n|---|---|---|---|---|---|---|\n");
        let mut times: BTreeMap<(&str, &str), (Vec<Duration>, Duration)> = BTreeMap::new();
        for line in &self.0 {
            for (what, took, bar) in &line.measured {
                times.entry((line.fault, what)).or_insert_with(|| (Vec::new(), *bar)).0.push(*took);
            }
        }
        for ((fault, what), (mut took, bar)) in times {
            took.sort_unstable();
            let over = took.iter().filter(|one| **one > bar).count();
            let (median, longest) = (seconds(took[took.len() / 2]), seconds(took[took.len() - 1]));
            let (count, bar) = (took.len(), seconds(bar));
            let _ = writeln!(page, "| {fault} | {what} | {count} | {median} | {longest} | {bar} | {over} |");
        }
        page.push_str("\n## Rounds\n\n| fault | seed | moment | measured | result |\n|---|---|---|---|---|\n");
        for line in &self.0 {
            let measured: Vec<String> =
                line.measured.iter().map(|(what, took, _)| format!("{what} {}", seconds(*took))).collect();
            let (moment, measured) = (line.moment.join(", "), measured.join(", "));
            let result = if line.passed { "passed" } else { "**failed**" };
            let (fault, seed, took) = (line.fault, line.seed, seconds(line.took));
            let _ = writeln!(page, "| {fault} | {seed} | {moment} | {measured} | {result} in {took} |");
        }
        page
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}
