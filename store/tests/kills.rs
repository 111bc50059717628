//! A process that commits is killed at random moments.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::print_stdout)]

#[path = "common/numbered.rs"]
mod numbered;
#[path = "common/random.rs"]
mod random;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use random::Random;
use store::{Embedded, Store as _};

const ROUNDS: u32 = 200;

#[tokio::test]
async fn killed_two_hundred_times_it_loses_nothing_acknowledged_and_shows_no_half_batch() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut random = Random(random::seed());
    let began = Instant::now();
    let (mut acknowledged, mut unclean) = (0, 0);
    for round in 1..=ROUNDS {
        acknowledged = write_and_kill(&path, &mut random).max(acknowledged);
        // Not looked at each time, so that a writer, too, finds what a killed one left.
        if random.below(2) == 0 && round < ROUNDS {
            continue;
        }
        // Killed before it had made the store at all.
        if acknowledged == 0 && !path.exists() {
            continue;
        }
        unclean += 1;
        let mut store = Embedded::open(&path).unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        let held = numbered::last(&store.load("rolling/").await.unwrap());
        assert!(held >= acknowledged, "round {round}: {acknowledged} was acknowledged, {held} is held");
        let content = store.load("").await.unwrap().into_iter().collect::<std::collections::BTreeMap<_, _>>();
        assert!(content == numbered::content(held), "round {round}: not exactly what batches 1 to {held} wrote");
        if let Some((_, seq)) = store.last_batch().await.unwrap() {
            assert!(seq <= held, "round {round}");
        }
    }
    assert!(acknowledged > u64::from(ROUNDS), "only {acknowledged} batches were acknowledged in all");
    println!("{ROUNDS} kills, {acknowledged} batches acknowledged, looked at {unclean} times, {:.1?}", began.elapsed());
}

/// Starts a writer, kills it at some moment, and returns the last batch it acknowledged.
fn write_and_kill(path: &Path, random: &mut Random) -> u64 {
    let mut child = Command::new(writer()).arg(path).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = 0;
    // One in four dies at any moment of its life: while it opens and verifies, too.
    if random.below(4) != 0 {
        acknowledged = lines.next().unwrap().unwrap().parse().unwrap();
    }
    std::thread::sleep(Duration::from_micros(random.below(25_000)));
    child.kill().unwrap();
    // What it wrote to the pipe before it died is acknowledged.
    for line in lines.map_while(Result::ok) {
        acknowledged = line.parse().unwrap();
    }
    child.wait().unwrap();
    acknowledged
}

/// The example `writer`, which cargo builds beside the tests.
fn writer() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let writer = tests.parent().unwrap().parent().unwrap().join("examples/writer");
    assert!(writer.exists(), "`{}` is missing: cargo build -p store --examples", writer.display());
    writer
}
