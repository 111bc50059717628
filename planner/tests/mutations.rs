//! Rules broken on purpose: each breakage must be noticed by some history.
#![allow(clippy::unwrap_used)]

mod common;
mod sim;

use planner::Mutation;

/// Histories within which every breakage must show.
const SEEDS: u64 = 150;

#[test]
fn every_broken_rule_is_noticed() {
    let mut unnoticed = Vec::new();
    for mutation in Mutation::ALL {
        let noticed = (1..=SEEDS).find_map(|seed| sim::play(seed, Some(mutation)).err());
        match noticed {
            Some(rule) => println!("{mutation:?}: {rule}"),
            None => unnoticed.push(mutation),
        }
    }
    assert!(unnoticed.is_empty(), "nobody noticed {unnoticed:?} in {SEEDS} histories");
}
