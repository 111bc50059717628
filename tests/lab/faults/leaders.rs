//! Who leads dies, is cut off, or does not see the time.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use stories::poll::until;

use crate::rounds::Turn;
use crate::site::{LONG, Site};
use crate::train::Training;

/// A new leader acts, and nothing that was acknowledged is lost; a follower of logs misses nothing.
pub(crate) fn killed(turn: &mut Turn) {
    let mut site = Site::three(2);
    let training = Training::start(&site, turn, "led", &[]);
    let mut follow = site.lab.command(["logs", &training.job, "--stage", "train", "--rank", "3", "-f", "-o", "raw"]);
    let followed = site.lab.root().join("followed");
    let mut follower = follow.stdout(File::create(&followed).unwrap()).spawn().unwrap();
    for nth in 1..=2 {
        let victim = site.leader();
        turn.moment("its lead", Duration::from_secs(2));
        site.controllers[victim].end("KILL");
        let took = site.somebody_leads(&format!("after-kill-{nth}"));
        turn.measured("another leader accepts", took, Duration::from_secs(5));
        site.controllers[victim].start();
    }
    training.did_not_notice(&site);
    until("the follower has seen the end", LONG, || follower.try_wait().unwrap());
    let (seen, log) = (fs::read_to_string(&followed).unwrap(), site.lab.log(&training.job, "train", 3));
    assert!(seen == log, "the follower saw {} bytes of {}", seen.len(), log.len());
    let all = site.lab.qctl(["ps", "-a", "-o", "name"]).ok();
    assert_eq!(all.lines().count(), 3, "each submission is one job, however often it was sent: {all}");
}

/// Cut from etcd alone, it steps down: agents and users still reach it, and it says nothing that it cannot know.
pub(crate) fn cut_from_etcd(turn: &mut Turn) {
    let site = Site::three(2);
    let training = Training::start(&site, turn, "led", &[]);
    let cut = site.leader();
    turn.note(format!("c{}", cut + 1));
    site.etcd.iter().for_each(|member| site.controllers[cut].host.cut_from(&member.host));
    let took = site.somebody_leads("after-cut");
    turn.measured("another leader accepts", took, Duration::from_secs(5));
    let refused = site.ask(cut, &["ps", "-a", "-o", "json"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (6, ""), "{refused}");
    turn.moment("the cut", Duration::from_secs(5));
    training.goes_on();
    site.etcd.iter().for_each(|member| site.controllers[cut].host.heal_to(&member.host));
    let begun = Instant::now();
    let leads = site.leader();
    until("it follows again", LONG, || {
        let said = site.ask(cut, &["ps"]);
        (leads == cut || said.stderr.contains(&site.controllers[leads].host.address)).then_some(())
    });
    turn.measured("it follows again", begun.elapsed(), Duration::from_secs(15));
    training.did_not_notice(&site);
}

/// All dead for long: training goes on, its results are delivered afterwards, and nobody is declared lost.
pub(crate) fn all_dead(turn: &mut Turn) {
    let absence = Duration::from_secs(turn.one(&[10, 20, 60]));
    let mut site = Site::three(2);
    let training = Training::start(&site, turn, "unled", &[]);
    site.controllers.iter_mut().for_each(|place| place.end("KILL"));
    turn.note(format!("all dead for {} s", absence.as_secs()));
    let (begun, reached) = (Instant::now(), training.record.last());
    until("the absence is over", LONG, || (begun.elapsed() >= absence).then_some(()));
    assert!(training.record.last() > reached + 20, "training went on with nobody above it");
    site.controllers.iter_mut().for_each(crate::site::Place::start);
    site.ready(2);
    turn.measured("all agents are back", begun.elapsed() - absence, Duration::from_secs(30));
    training.did_not_notice(&site);
}
