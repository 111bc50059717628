//! Agents die; what they have started does not.

use std::time::{Duration, Instant};

use stories::poll::until;

use crate::rounds::Turn;
use crate::site::{LONG, Site};
use crate::train::{self, Training};

/// Ranks go on; the next agent adopts them.
pub(crate) fn killed(turn: &mut Turn) {
    let mut site = Site::alone(2);
    let training = Training::start(&site, turn, "orphans", &[]);
    let victim = turn.one(&site.training());
    turn.note(format!("agent of a{}", victim + 1));
    site.agents[victim].end("KILL");
    turn.moment("its absence", Duration::from_secs(4));
    training.goes_on();
    site.agents[victim].start();
    let begun = Instant::now();
    let (adopted, _) = train::event(&site, &training.job, "attempt-adopted", 0);
    assert_eq!(adopted.node, site.agents[victim].host.name);
    turn.measured("adopted after the restart", begun.elapsed(), Duration::from_secs(5));
    until("the node is ready", LONG, || (site.node(&adopted.node)?["phase"] == "ready").then_some(()));
    training.did_not_notice(&site);
}
