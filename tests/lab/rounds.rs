//! Rounds over the faults, with a seed each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};

use crate::report::{Line, Report};
use crate::{faults, host, site};

/// A fault and what must happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// Part of every test run.
    pub(crate) cheap: bool,
    /// Needs an etcd.
    pub(crate) etcd: bool,
    pub(crate) run: fn(&mut Turn),
}

/// One fault of one round.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) random: StdRng,
    strict: bool,
    line: Line,
}

/// What the command line asks for.
#[derive(Debug)]
struct Asked {
    names: Vec<String>,
    all: bool,
    strict: bool,
    list: bool,
    rounds: u64,
    seed: u64,
    report: Option<String>,
}

impl Turn {
    /// Waits for a drawn moment, at most `longest` into `what`.
    pub(crate) fn moment(&mut self, what: &str, longest: Duration) {
        let drawn = longest.mul_f64(self.random.random());
        self.note(format!("{:.2} s into {what}", drawn.as_secs_f64()));
        // The wait itself is the point: nothing tells when a fault strikes.
        thread::sleep(drawn);
    }

    /// Draws one.
    pub(crate) fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.random).unwrap().clone()
    }

    /// Says more about the moment or the victim.
    pub(crate) fn note(&mut self, words: impl Into<String>) {
        self.line.moment.push(words.into());
    }

    /// A measured time, beside what it should be. On a loaded machine a time that is missed is told; it is a failure
    /// only with `--strict`.
    pub(crate) fn measured(&mut self, what: &str, took: Duration, bar: Duration) {
        println!("    {what}: {:.2} s (bar {} s)", took.as_secs_f64(), bar.as_secs_f64());
        self.line.measured.push((what.to_owned(), took, bar));
        assert!(!self.strict || took <= bar, "{what}: over its bar");
    }
}

/// Runs what the command line asks for; `possible` says why nothing can be run here.
pub(crate) fn main(possible: Result<(), String>, words: &[String]) -> ExitCode {
    let asked = Asked::read(words);
    let mut wanted: Vec<Fault> = faults::ALL.to_vec();
    wanted.retain(|fault| match asked.names.is_empty() {
        true => asked.all || fault.cheap,
        false => asked.names.iter().any(|name| fault.name.contains(name.as_str())),
    });
    if asked.list {
        wanted.iter().for_each(|fault| println!("{}: test", fault.name));
        return ExitCode::SUCCESS;
    }
    let mut skipped = 0;
    if let Err(why) = possible {
        println!("skipped: the network laboratory: {why}");
        skipped = wanted.len();
        wanted.clear();
    } else {
        host::bridge();
    }
    if wanted.iter().any(|fault| fault.etcd) && site::program().is_none() {
        let skip = std::env::var_os("QCTL_SKIP_ETCD").is_some_and(|value| !value.is_empty());
        assert!(skip, "etcd is not installed (Debian: etcd-server; or name it in QCTL_TEST_ETCD)");
        let before = wanted.len();
        wanted.retain(|fault| !fault.etcd);
        skipped += before - wanted.len();
        println!("skipped: etcd is not installed: {} faults of the laboratory", before - wanted.len());
    }
    println!("\nrunning {} tests", wanted.len());
    let mut report = Report::default();
    for round in 0..asked.rounds {
        for fault in &wanted {
            report.add(turn(fault, asked.seed.wrapping_add(round), asked.strict));
            if let Some(path) = &asked.report {
                report.write(path);
            }
        }
    }
    let (passed, failed) = report.counts();
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured\n");
    ExitCode::from(u8::from(failed > 0))
}

/// One fault, with a seed of its own.
fn turn(fault: &Fault, seed: u64, strict: bool) -> Line {
    println!("{} seed {seed} …", fault.name);
    let line = Line { fault: fault.name, seed, ..Line::default() };
    let mut turn = Turn { random: StdRng::seed_from_u64(seed), strict, line };
    let begun = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| (fault.run)(&mut turn)));
    turn.line.took = begun.elapsed();
    turn.line.passed = ended.is_ok();
    let verdict = if turn.line.passed { "ok" } else { "FAILED" };
    let (name, moment) = (fault.name, turn.line.moment.join(", "));
    println!("test {name} ... {verdict} (seed {seed}; {moment}; {:.1} s)", turn.line.took.as_secs_f64());
    turn.line
}

impl Asked {
    /// Words that libtest would know and this does not are passed over, as `cargo test` gives them to all.
    fn read(words: &[String]) -> Self {
        let seed = std::env::var("STORY_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| rand::random_range(0..1_000_000_000));
        let mut asked =
            Self { names: Vec::new(), all: false, strict: false, list: false, rounds: 1, seed, report: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("`{word}` wants a value"));
            match word.as_str() {
                "--all" => asked.all = true,
                "--strict" => asked.strict = true,
                "--list" => asked.list = true,
                "--rounds" => asked.rounds = value().parse().unwrap(),
                "--seed" => asked.seed = value().parse().unwrap(),
                "--report" => asked.report = Some(value().clone()),
                "--skip" | "--test-threads" | "--color" | "--format" => drop(value().clone()),
                other if other.starts_with('-') => {}
                name => asked.names.push(name.to_owned()),
            }
        }
        asked
    }
}
