//! Cables that carry less than they should: nobody is lost for that, and nothing is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stories::poll::until;
use stories::relay::Relay;

use crate::host::HERE;
use crate::rounds::Turn;
use crate::site::{LONG, LOST_AFTER, Plan, Site};
use crate::train::{self, Training};

/// Pulled and plugged in again several times.
pub(crate) fn flaps(turn: &mut Turn) {
    let site = Site::alone(2);
    let training = Training::start(&site, turn, "flaps", &[]);
    for _ in 0..3 {
        let victim = turn.one(&site.training());
        turn.note(format!("a{}", victim + 1));
        site.agents[victim].host.cut();
        turn.moment("a cut", Duration::from_secs(LOST_AFTER) / 2);
        site.agents[victim].host.heal();
        turn.moment("a pause", Duration::from_secs(2));
    }
    let begun = Instant::now();
    training.goes_on();
    turn.measured("training goes on", begun.elapsed(), Duration::from_secs(30));
    // Cuts in a row may add up to a silence that counts as lost: that alone stops nothing.
    training.was_left_alone(&site);
}

/// As narrow as an old telephone line for some seconds.
pub(crate) fn narrow(turn: &mut Turn) {
    let site = Site::alone(2);
    let training = Training::start(&site, turn, "narrow", &[]);
    let victim = turn.one(&site.training());
    let kilobits = turn.one(&[64, 128, 512]);
    turn.note(format!("a{} at {kilobits} kbit/s", victim + 1));
    site.agents[victim].host.narrow(kilobits);
    turn.moment("the narrow cable", Duration::from_secs(8));
    training.goes_on();
    site.agents[victim].host.widen();
    training.did_not_notice(&site);
}

/// Packets get lost. Where there is no `nft`, nothing can lose them, and the turn says so.
pub(crate) fn lossy(turn: &mut Turn) {
    let site = Site::alone(2);
    let training = Training::start(&site, turn, "lossy", &[]);
    let victim = turn.one(&site.training());
    let percent = turn.one(&[2, 10, 20]);
    turn.note(format!("a{} loses {percent} %", victim + 1));
    if site.agents[victim].host.lossy(percent) {
        turn.moment("the loss", Duration::from_secs(8));
        training.goes_on();
        site.agents[victim].host.lossless();
    } else {
        turn.note("skipped: no `nft`");
    }
    training.did_not_notice(&site);
}

/// The controller is far away: a death is told later by the way, and no more.
pub(crate) fn far(turn: &mut Turn) {
    let mut site = Site::prepare(Plan { controllers: 1, etcd: 0, agents: 2 });
    let delay = Duration::from_millis(turn.one(&[20, 100, 300]));
    turn.note(format!("{} ms each way", delay.as_millis()));
    let controller: SocketAddr = format!("{}:7400", site.controllers[0].host.address).parse().unwrap();
    let relay = Relay::between(HERE.parse().unwrap(), controller, delay);
    let through = format!("https://{HERE}:{}", relay.port());
    site.agents.iter_mut().for_each(|place| drop(place.retell("--controller", &through)));
    site.bring_up();
    let (mut spec, record) = train::spec(&site, "far", &[]);
    spec["stages"]["train"]["retries"] = serde_json::json!(0);
    let training = Training::of(&site, turn, &spec, record);
    let victim = turn.one(&training.ranks);
    turn.note(format!("rank {}", victim.rank().unwrap()));
    victim.kill9();
    let begun = Instant::now();
    let (event, told) = train::event(&site, &training.job, "attempt-failed", 0);
    turn.measured("told after the death", told, Duration::from_secs(1) + delay);
    assert_eq!(event.rank, victim.rank().map(u64::from), "{event:?}");
    until("no rank is left", LONG, || (!training.ranks.iter().any(stories::process::Process::lives)).then_some(()));
    turn.measured("to the last rank's end", begun.elapsed(), Duration::from_secs(2) + delay * 2);
    assert_eq!(site.lab.wait(&training.job, LONG), 3);
    let log = stories::job::iterations(&site.lab.log(&training.job, "train", 3));
    assert_eq!(log, (1..).take(log.len()).collect::<Vec<_>>(), "each line once, none missing");
}
