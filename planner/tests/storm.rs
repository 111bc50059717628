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

/// What some histories were made of.
#[derive(Default)]
struct Seen {
    attempts: usize,
    returned: usize,
    ahead: usize,
    events: BTreeMap<&'static str, u64>,
}

fn play(seeds: impl Iterator<Item = u64>) -> Result<Seen, String> {
    let mut seen = Seen::default();
    for seed in seeds {
        let sim = sim::play(seed, None).map_err(|rule| format!("STORM_SEED={seed} plays this again: {rule}"))?;
        seen.returned += sim.truth.returned;
        seen.ahead += sim.truth.ahead;
        let saved = &sim.driver.saved;
        let tasks = saved.jobs.values().flat_map(|job| &job.stages).flat_map(|stage| &stage.tasks);
        seen.attempts += tasks.map(|task| task.history.len()).sum::<usize>();
        for event in saved.events.values().flatten() {
            *seen.events.entry(event.kind.name()).or_default() += 1;
        }
    }
    Ok(seen)
}

#[test]
fn every_history_keeps_the_rules_and_every_job_ends() {
    let seeds = match number("STORM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("STORM_SEEDS").unwrap_or(1_000) + 1,
    };
    let (mut attempts, mut returned, mut ahead) = (0, 0, 0);
    let mut events: BTreeMap<&str, u64> = BTreeMap::new();
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let shares: Vec<_> = (0..threads).map(|first| seeds.clone().skip(first).step_by(threads)).collect();
    let played: Vec<Result<Seen, String>> = std::thread::scope(|scope| {
        let running: Vec<_> = shares.into_iter().map(|share| scope.spawn(move || play(share))).collect();
        running.into_iter().map(|share| share.join().unwrap()).collect()
    });
    for seen in played {
        let seen = seen.unwrap_or_else(|rule| panic!("{rule}"));
        attempts += seen.attempts;
        returned += seen.returned;
        ahead += seen.ahead;
        for (kind, count) in seen.events {
            *events.entry(kind).or_default() += count;
        }
    }
    let played = seeds.end - seeds.start;
    println!("{played} histories, {attempts} attempts, {returned} given back, {ahead} queues, events {events:?}");
    // No job of the storm takes a stage over, and no simulated agent warns.
    let expected = Kind::ALL.iter().filter(|kind| !matches!(kind, Kind::StageReused | Kind::Warning));
    let absent: Vec<&str> = expected.map(|kind| kind.name()).filter(|name| !events.contains_key(name)).collect();
    assert!(played < 50 || (returned > 0 && ahead > 0), "nothing was sent ahead, or nothing taken back");
    assert!(played < 50 || absent.is_empty(), "the storm never made {absent:?}");
}
