//! A rank dies: who, where and why is told, and no other outlives it by long.

use std::time::{Duration, Instant};

use serde_json::json;
use stories::poll::until;
use stories::process::Process;

use crate::rounds::Turn;
use crate::site::{LONG, Site};
use crate::train::{self, RANKS, Training};

/// A way to end, as the stand-in is told; what is said about it, and a line that proves it.
struct Death {
    how: &'static str,
    said: &'static str,
    proof: &'static str,
}

const DEATHS: [Death; 2] = [
    Death { how: "exit3", said: "exit code 3", proof: "failing on purpose" },
    Death { how: "exception", said: "exit code 1", proof: "RuntimeError: a failure that was asked for" },
];
const EARLY: [Death; 1] = [Death { how: "exit0", said: "exit code 0", proof: "failing on purpose" }];

/// SIGKILL from outside at a drawn moment.
pub(crate) fn killed(turn: &mut Turn) {
    let site = Site::alone(2);
    let (mut spec, record) = train::spec(&site, "killed", &[]);
    spec["stages"]["train"]["retries"] = json!(0);
    let training = Training::of(&site, turn, &spec, record);
    let victim = turn.one(&training.ranks);
    turn.note(format!("rank {}", victim.rank().unwrap()));
    let node = host_of(&site, &victim);
    victim.kill9();
    told_and_over(&site, turn, &training, &victim, &node, "SIGKILL");
}

/// It leaves by itself, with a code or by an exception.
pub(crate) fn leaves(turn: &mut Turn) {
    each(turn, &DEATHS);
}

/// It leaves with 0, as if all were done.
pub(crate) fn leaves_early(turn: &mut Turn) {
    each(turn, &EARLY);
}

fn each(turn: &mut Turn, deaths: &[Death]) {
    let site = Site::alone(2);
    for death in deaths {
        let rank: u32 = turn.one(&(0..RANKS).collect::<Vec<_>>());
        // Late enough that a slow machine has seen all ranks before one of them leaves.
        let at: u32 = turn.one(&(60..90).collect::<Vec<_>>());
        turn.note(format!("rank {rank} by {} at iteration {at}", death.how));
        let fail = format!("{rank}:{at}:{}", death.how);
        let (mut spec, record) = train::spec(&site, death.how, &["--fail", &fail]);
        spec["stages"]["train"]["retries"] = json!(0);
        let job = site.lab.accepted(&spec);
        until("it trains", LONG, || (record.last() >= 3).then_some(()));
        let training = Training::seen(&site, job, record);
        let victim = training.ranks.iter().find(|one| one.rank() == Some(rank)).unwrap();
        let node = host_of(&site, victim);
        until("the rank leaves", LONG, || (!victim.lives()).then_some(()));
        let event = told_and_over(&site, turn, &training, victim, &node, death.said);
        assert!(event.iter().any(|line| line.contains(death.proof)), "{}: {event:#?}", death.how);
    }
}

/// It stops without ending: seen by what does not move, not by a collective's time-out.
pub(crate) fn hangs(turn: &mut Turn) {
    let site = Site::alone(2);
    let (mut spec, record) = train::spec(&site, "hangs", &["--collective-timeout", "3000"]);
    spec["stages"]["train"]["retries"] = json!(0);
    spec["runtime"]["env"]["QCTL_HANG_AFTER"] = json!("5");
    let training = Training::of(&site, turn, &spec, record);
    let victim = turn.one(&training.ranks);
    turn.note(format!("rank {}", victim.rank().unwrap()));
    let node = host_of(&site, &victim);
    victim.stop();
    let begun = Instant::now();
    let (event, _) = train::event(&site, &training.job, "attempt-failed", 0);
    turn.measured("told with a limit of 5 s", begun.elapsed(), Duration::from_secs(7));
    assert_eq!((event.node.as_str(), event.rank), (node.as_str(), victim.rank().map(u64::from)), "{event:?}");
    assert!(event.message.contains("has been stopped for"), "{event:?}");
    until("no rank is left", LONG, || (!training.ranks.iter().any(Process::lives)).then_some(()));
    turn.measured("to the last rank's end", begun.elapsed(), Duration::from_secs(10));
    assert_eq!(site.lab.wait(&training.job, LONG), 3);
}

/// The same without the user's word: it is told who stands still, and nothing is stopped.
pub(crate) fn hangs_unasked(turn: &mut Turn) {
    let site = Site::alone(2);
    let training = Training::start(&site, turn, "waits", &["--collective-timeout", "3000"]);
    let victim = turn.one(&training.ranks);
    turn.note(format!("rank {}", victim.rank().unwrap()));
    let node = host_of(&site, &victim);
    victim.stop();
    let begun = Instant::now();
    let told = until("a warning names the rank", LONG, || {
        let events = site.lab.events(&training.job).into_iter();
        let told: Vec<_> = events.filter(|event| event.message.contains("has been stopped for")).collect();
        told.first().cloned()
    });
    turn.measured("warned with steps of 0.1 s", begun.elapsed(), Duration::from_secs(34));
    assert!(told.message.contains(&format!("rank {}", victim.rank().unwrap())) && told.node == node, "{told:?}");
    assert!(training.ranks.iter().all(Process::lives), "and nothing is stopped");
    victim.go_on();
    training.did_not_notice(&site);
}

/// The event names the victim, its node and its cause, all others stop; returns the proof.
fn told_and_over(
    site: &Site,
    turn: &mut Turn,
    training: &Training,
    victim: &Process,
    node: &str,
    said: &str,
) -> Vec<String> {
    let begun = Instant::now();
    let (event, told) = train::event(site, &training.job, "attempt-failed", 0);
    // Ranks that are done do not end together, and only the last rank's host sees that these are not.
    let (what, bar) = match said {
        "exit code 0" if victim.rank() >= Some(RANKS / 2) => ("told after an early 0 beside the last rank", 1),
        "exit code 0" => ("told after an early 0", 21),
        _ => ("told after the death", 1),
    };
    turn.measured(what, told, Duration::from_secs(bar));
    until("no rank is left", LONG, || (!training.ranks.iter().any(Process::lives)).then_some(()));
    // Told within a second, then a second's grace.
    turn.measured(&format!("{what}, to the last rank's end"), begun.elapsed(), Duration::from_secs(bar + 1));
    assert_eq!(event.rank, victim.rank().map(u64::from), "{event:?}");
    assert_eq!(event.node, node, "{event:?}");
    assert!(event.message.contains(said), "{event:?}");
    let log = site.lab.log(&training.job, "train", victim.rank().unwrap());
    assert_eq!(event.evidence.is_empty(), log.is_empty(), "its last lines, where it wrote any: {event:?}");
    assert_eq!(site.lab.wait(&training.job, LONG), 3);
    let events = site.lab.events(&training.job);
    assert_eq!(events.iter().filter(|event| event.kind == "attempt-failed").count(), 1, "{events:#?}");
    until("nothing of the job is left", LONG, || site.lab.work_processes().is_empty().then_some(()));
    event.evidence
}

fn host_of(site: &Site, rank: &Process) -> String {
    let holds = |at: &usize| site.ranks_on(*at).iter().any(|one| one.pid == rank.pid);
    let at = (0..site.agents.len()).find(holds).unwrap();
    site.agents[at].host.name.clone()
}
