//! Seeded storms: whole clusters that crash, lose and repeat, with every rule
//! checked after every step. `STORM_SEED=n` plays one history again,
//! `STORM_SEEDS=n` plays more of them.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "the bans are for the planner, not for what drives it"
)]

mod common;
mod sim;

use std::collections::BTreeMap;

use model::event::Kind;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn every_history_keeps_the_rules_and_every_job_ends() {
    let seeds = match number("STORM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("STORM_SEEDS").unwrap_or(300) + 1,
    };
    let mut attempts = 0;
    let mut events: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds.clone() {
        match sim::play(seed, None) {
            Ok(sim) => {
                let saved = &sim.driver.saved;
                let tasks = saved.jobs.values().flat_map(|job| &job.stages).flat_map(|stage| &stage.tasks);
                attempts += tasks.map(|task| task.history.len()).sum::<usize>();
                for event in saved.events.values().flatten() {
                    *events.entry(event.kind.name()).or_default() += 1;
                }
            }
            Err(rule) => panic!("STORM_SEED={seed} plays this again: {rule}"),
        }
    }
    let played = seeds.end - seeds.start;
    println!("{played} histories, {attempts} attempts, events {events:?}");
    // No job of the storm takes a stage over, and no simulated agent warns.
    let expected = Kind::ALL.iter().filter(|kind| !matches!(kind, Kind::StageReused | Kind::Warning));
    let absent: Vec<&str> = expected.map(|kind| kind.name()).filter(|name| !events.contains_key(name)).collect();
    assert!(played < 50 || absent.is_empty(), "the storm never made {absent:?}");
}
