//! The store is another one than it was, or its leader's clock is.

use std::time::{Duration, Instant};

use stories::pipeline;
use stories::poll::until;
use stories::program::{Outcome, built, run};

use crate::preload;
use crate::rounds::Turn;
use crate::site::{LONG, LOST_AFTER, Place, Plan, Site};
use crate::train::Training;

/// An older backup is restored while jobs run: one that it does not know is shown, and not stopped.
pub(crate) fn restored(turn: &mut Turn) {
    let mut site = Site::three(3);
    let training = Training::start(&site, turn, "known", &[]);
    let file = site.lab.root().join("backup").to_string_lossy().into_owned();
    assert_eq!(manage(&site, "backup", &["--store", "etcd", &file]).code, 0);
    let unknown = site.lab.accepted(&pipeline::command(&site.lab, "unknown", &["sleep", "6000"], 1));
    let sleeper = until("it runs", LONG, || site.lab.called("sleep").into_iter().find(|one| one.argv[1] == "6000"));
    turn.moment("what the backup does not know", Duration::from_secs(2));
    site.controllers.iter_mut().for_each(|place| place.end("KILL"));
    let said = manage(&site, "restore", &["--store", "etcd", "--replace", &file]);
    assert!(said.code == 0 && said.stdout.contains("incarnation 2"), "{said}");
    site.controllers.iter_mut().for_each(Place::start);
    let begun = Instant::now();
    site.ready(3);
    turn.measured("all agents follow it", begun.elapsed(), Duration::from_secs(30));
    assert_eq!(site.lab.qctl(["describe", &unknown]).code, 5, "the backup is older than the job");
    until("what nobody knows is shown", LONG, || {
        site.nodes().iter().any(|node| node["quarantined"].to_string().contains(&unknown)).then_some(())
    });
    training.goes_on();
    assert!(sleeper.lives(), "and not stopped");
    training.did_not_notice(&site);
    assert!(sleeper.lives());
}

/// From a file of one controller into an etcd that three share.
pub(crate) fn migrated(turn: &mut Turn) {
    let mut site = Site::prepare(Plan { controllers: 3, etcd: 3, agents: 2 });
    site.etcd.iter_mut().for_each(Place::start);
    let shared = site.controllers[0].retell("--store", "embedded");
    site.controllers[0].start();
    site.login();
    (0..2).for_each(|at| site.join(at));
    site.ready(2);
    let training = Training::start(&site, turn, "moved", &[]);
    site.controllers[0].end("TERM");
    turn.moment("the migration", Duration::from_secs(3));
    let said = manage(&site, "migrate", &["--to", "etcd"]);
    assert!(said.code == 0 && said.stdout.contains("incarnation 2"), "{said}");
    site.controllers[0].retell("--store", &shared);
    site.controllers.iter_mut().for_each(Place::start);
    let begun = Instant::now();
    site.ready(2);
    turn.measured("all agents follow it", begun.elapsed(), Duration::from_secs(30));
    let leader = site.leader();
    site.controllers[leader].end("KILL");
    let took = site.somebody_leads("after-migration");
    turn.measured("another leader accepts", took, Duration::from_secs(5));
    training.did_not_notice(&site);
}

/// The leader's clock is minutes ahead, then that of its successor is right: nobody is buried for a clock.
pub(crate) fn clock_ahead(turn: &mut Turn) {
    let mut site = Site::prepare(Plan { controllers: 2, etcd: 3, agents: 2 });
    let minutes = turn.one(&[2, 10, 50]);
    turn.note(format!("{minutes} minutes ahead"));
    let library = preload::built(&site);
    let ahead = &mut site.controllers[0];
    ahead.set("LD_PRELOAD", &library);
    ahead.set("LAB_CLOCK_MS", &(minutes * 60_000).to_string());
    site.etcd.iter_mut().for_each(Place::start);
    site.controllers[0].start();
    site.login();
    (0..2).for_each(|at| site.join(at));
    site.ready(2);
    let training = Training::start(&site, turn, "early", &[]);
    let said = site.lab.qctl(["doctor"]).stdout;
    assert!(
        said.lines().any(|line| line.contains("clock") && !line.starts_with("OK")),
        "doctor compares clocks: {said}"
    );
    site.controllers[1].start();
    for (gone, next) in [(0, 1), (1, 0)] {
        site.controllers[gone].end("KILL");
        let took = site.somebody_leads(&format!("led-by-{next}"));
        turn.measured("another leader accepts", took, Duration::from_secs(5));
        assert_eq!(site.leader(), next);
        site.ready(2);
        let begun = Instant::now();
        until("a whole window and more", LONG, || {
            let lost = site.nodes().iter().any(|node| node["phase"] == "lost");
            assert!(!lost, "nobody is buried for a clock");
            (begun.elapsed() > Duration::from_secs(LOST_AFTER + 2)).then_some(())
        });
        site.controllers[gone].start();
    }
    training.did_not_notice(&site);
}

/// An operator's command on the first controller's host.
fn manage(site: &Site, verb: &str, more: &[&str]) -> Outcome {
    let host = &site.controllers[0].host;
    let mut command = host.command(&built("qctl-controller"));
    command.args([verb, "--state-dir", &host.own("state")]).args(site.etcd_flags()).args(more);
    run(&mut command, LONG)
}
