//! Seeded storms: whole clusters that crash, lose and repeat, with every rule
//! checked after every step. `STORM_SEED=n` plays one history again,
//! `STORM_SEEDS=n` plays more of them.
#![allow(clippy::unwrap_used)]

mod common;
mod sim;

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
    let mut events = 0;
    for seed in seeds.clone() {
        match sim::play(seed, None) {
            Ok(sim) => {
                let saved = &sim.driver.saved;
                let tasks = saved.jobs.values().flat_map(|job| &job.stages).flat_map(|stage| &stage.tasks);
                attempts += tasks.map(|task| task.history.len()).sum::<usize>();
                events += saved.events.values().map(Vec::len).sum::<usize>();
            }
            Err(rule) => panic!("STORM_SEED={seed} plays this again: {rule}"),
        }
    }
    let played = seeds.end - seeds.start;
    println!("{played} histories, {attempts} attempts, {events} events");
    assert!(attempts as u64 > played, "the storm ran next to nothing: {attempts} attempts");
}
