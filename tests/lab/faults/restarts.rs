//! Planned restarts: the job does not notice.

use std::fs;
use std::path::Path;
use std::time::Duration;

use stories::program::built;

use crate::rounds::Turn;
use crate::site::Site;
use crate::train::Training;

/// All controllers and agents one after the other, from a directory of programs of its own.
pub(crate) fn rolling(turn: &mut Turn) {
    let mut site = Site::three(2);
    let training = Training::start(&site, turn, "rolled", &[]);
    let newer = site.lab.root().join("newer");
    fs::create_dir(&newer).unwrap();
    for name in ["qctl-controller", "qctl-agent", "qctl-shim", "qctl-convert", "qctl-tokenize"] {
        install(&built(name), &newer.join(name));
    }
    let leader = site.leader();
    turn.note(format!("c{} leads", leader + 1));
    for at in 0..site.controllers.len() {
        site.controllers[at].end("TERM");
        site.controllers[at].upgrade(&newer.join("qctl-controller"));
        turn.moment("a controller's absence", Duration::from_secs(1));
        site.controllers[at].start();
        let took = site.somebody_leads(&format!("rolled-{at}"));
        turn.measured("somebody leads", took, Duration::from_secs(5));
    }
    for at in 0..site.agents.len() {
        site.agents[at].end("TERM");
        site.agents[at].upgrade(&newer.join("qctl-agent"));
        turn.moment("an agent's absence", Duration::from_secs(1));
        site.agents[at].start();
        site.ready(2);
    }
    training.did_not_notice(&site);
}

/// A copy is another file, as an installed program is.
fn install(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}
