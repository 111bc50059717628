//! A host dies or is cut off: its gang goes on elsewhere, and never twice at once.

use std::time::{Duration, Instant};

use serde_json::json;
use stories::poll::until;
use stories::process::Process;

use crate::record::{self, What};
use crate::rounds::Turn;
use crate::site::{FENCE_MARGIN, LONG, Site};
use crate::train::{self, Training};

/// How long a trainer's collective waits for a peer, in seconds.
const COLLECTIVE: &str = "5";

/// How long a gang may take to go on elsewhere, once nobody says that its silent host is dead.
const WAITED: Duration = Duration::from_secs(FENCE_MARGIN + 30);

/// A checkpoint as old as this, in nanoseconds, has been reported by all that hold a part of it.
const KNOWN: u64 = 3_000_000_000;

/// The cable is pulled while ranks, shim and agent behind it go on.
pub(crate) fn cut_off(turn: &mut Turn) {
    let site = three(turn);
    let training = saves(&site, turn, COLLECTIVE);
    let victim = turn.one(&site.training());
    turn.note(format!("a{}", victim + 1));
    let old = site.ranks_on(victim);
    site.agents[victim].host.cut();
    goes_on_elsewhere(&site, turn, &training, victim, WAITED);
    let name = site.agents[victim].host.name.clone();
    let withheld = site.node(&name).unwrap();
    assert_eq!(withheld["phase"], "lost", "{withheld}");
    turn.moment("the cut", Duration::from_secs(5));
    site.agents[victim].host.heal();
    let begun = Instant::now();
    until("the node is back", LONG, || (site.node(&name)?["phase"] == "ready").then_some(()));
    turn.measured("the node is back", begun.elapsed(), Duration::from_secs(30));
    until("the old attempt's ranks are gone", LONG, || (!old.iter().any(Process::lives)).then_some(()));
    training.goes_on();
    ends(&site, &training);
}

/// Everything on it is killed; or it loses its power, and comes back as another boot.
pub(crate) fn killed(turn: &mut Turn) {
    let mut site = three(turn);
    let training = saves(&site, turn, COLLECTIVE);
    let victim = turn.one(&site.training());
    let power = turn.one(&[false, true]);
    turn.note(format!("a{} {}", victim + 1, if power { "loses its power" } else { "has all killed" }));
    if power {
        site.agents[victim].host.reboot()
    } else {
        site.agents[victim].host.kill_all()
    }
    site.agents[victim].ended();
    goes_on_elsewhere(&site, turn, &training, victim, WAITED);
    site.agents[victim].start();
    let begun = Instant::now();
    let name = site.agents[victim].host.name.clone();
    until("the node is back", LONG, || (site.node(&name)?["phase"] == "ready").then_some(()));
    turn.measured("the node is back", begun.elapsed(), Duration::from_secs(10));
    training.goes_on();
    ends(&site, &training);
}

/// A host loses its power while its peers wait for it: the operator's word brings the gang back at once.
pub(crate) fn fenced(turn: &mut Turn) {
    let mut site = three(turn);
    let training = saves(&site, turn, "3000");
    let victim = turn.one(&site.training());
    let name = site.agents[victim].host.name.clone();
    turn.note(name.clone());
    let refused = site.lab.qctl(["node", "fence", &name]);
    assert_ne!(refused.code, 0, "a node that speaks is not fenced: {refused}");
    // Its peers are not told: no end of a connection comes from a host without power.
    site.agents[victim].host.cut();
    site.agents[victim].host.reboot();
    site.agents[victim].ended();
    until("it may be fenced", LONG, || {
        (site.lab.qctl(["node", "fence", &name, "--reason", "power supply"]).code == 0).then_some(())
    });
    // No margin is waited for.
    goes_on_elsewhere(&site, turn, &training, victim, Duration::from_secs(FENCE_MARGIN));
    site.agents[victim].host.heal();
    site.agents[victim].start();
    until("the node is back, and the word has ended", LONG, || {
        let node = site.node(&name)?;
        (node["phase"] == "ready" && node["fence"].is_null()).then_some(())
    });
    training.goes_on();
    ends(&site, &training);
}

/// Two hosts for a gang of two, and a third one: free, or a spare.
fn three(turn: &mut Turn) -> Site {
    let site = Site::alone(3);
    if turn.one(&[false, true]) {
        turn.note("a3 is a spare");
        let _ = site.lab.qctl(["node", "spare", "a3"]).ok();
    }
    site
}

/// Training that saves every ten iterations, past its first checkpoint.
fn saves(site: &Site, turn: &mut Turn, collective: &str) -> Training {
    let more = ["--save-interval", "10", "--collective-timeout", collective];
    let (mut spec, record) = train::spec(site, "saves", &more);
    spec["stages"]["train"]["checkpoint_optimizer"] = json!(true);
    spec["stages"]["train"]["retries"] = json!({"max": 5, "backoff": "100ms"});
    let job = site.lab.accepted(&spec);
    until("a checkpoint is whole", LONG, || {
        record.read().iter().any(|entry| matches!(entry.what, What::Tracker(_))).then_some(())
    });
    turn.moment("train, behind its first checkpoint", Duration::from_secs(3));
    Training::seen(site, job, record)
}

/// The second attempt begins without the victim, behind the newest checkpoint, and what the first had completed ended
/// before that.
fn goes_on_elsewhere(site: &Site, turn: &mut Turn, training: &Training, victim: usize, bar: Duration) {
    let (begun, struck) = (Instant::now(), record::now());
    train::event(site, &training.job, "attempt-placed", 1);
    turn.measured("placed again", begun.elapsed(), bar);
    let second = |entry: &&record::Entry| entry.attempt.ends_with(".2");
    let first = until("the second attempt completes an iteration", LONG, || {
        let all = training.record.read();
        all.iter().filter(second).find_map(|entry| match entry.what {
            What::Iteration(number) => Some(number),
            What::Saved(_) | What::Tracker(_) => None,
        })
    });
    turn.measured("trains again", begun.elapsed(), WAITED);
    let told = site.lab.describe(&training.job);
    let seats = told["stages"][0]["tasks"][0]["seats"].as_array().unwrap();
    let now: Vec<&str> = seats.iter().map(|seat| seat["node"].as_str().unwrap()).collect();
    let name = &site.agents[victim].host.name;
    assert!(now.len() == 2 && !now.contains(&name.as_str()), "not on the silent node: {now:?}");
    let known = training.record.trackers(".1", struck - KNOWN);
    let all = training.record.trackers(".1", struck);
    // One that was named in the last moment was not reported whole by everybody.
    let behind = all.contains(&(first - 1)) || (first == 1 && known.is_empty());
    assert!(behind, "behind a checkpoint of the first attempt: {first} of {all:?}");
    assert!(known.last().is_none_or(|known| first > *known), "behind the newest that was known: {first}, {known:?}");
    training.record.attempts_follow_each_other();
}

fn ends(site: &Site, training: &Training) {
    let events = site.lab.events(&training.job);
    training.kept(&events);
    assert_eq!(events.iter().filter(|event| event.kind == "attempt-placed").count(), 2, "{events:#?}");
    training.cancel(site);
    training.record.attempts_follow_each_other();
    until("nothing of the job is left", LONG, || site.lab.work_processes().is_empty().then_some(()));
}
