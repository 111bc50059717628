//! Disks fill up, or take their time.

use std::fs;
use std::time::{Duration, Instant};

use rand::Rng as _;
use serde_json::json;
use stories::pipeline;
use stories::poll::until;

use crate::host::Host;
use crate::rounds::Turn;
use crate::site::{LONG, Plan, Site};
use crate::train::{self, Training};

/// The controller's disk is full: it refuses with the reason, keeps what it has acknowledged, and recovers.
pub(crate) fn of_controller_full(turn: &mut Turn) {
    let mut site = Site::prepare(Plan { controllers: 1, etcd: 0, agents: 2 });
    site.controllers[0].host.disk("state", "24m");
    site.bring_up();
    let training = Training::start(&site, turn, "full", &[]);
    let kept = site.lab.accepted(&pipeline::command(&site.lab, "kept", &["sleep", "1"], 1));
    fill(&site.controllers[0].host);
    let begun = Instant::now();
    // The file may have some room of its own left.
    let (refused, said) = until("a job is refused", LONG, || {
        let name = format!("job-{}", turn.random.random_range(0..1_000_000_000));
        let said =
            site.lab.submit(&pipeline::command(&site.lab, &name, &["true"], 400), &["-o", "name", "--id", &name]);
        (said.code != 0).then_some((name, said))
    });
    assert!(said.stderr.contains("no room") && said.stderr.contains("hint: free"), "{said}");
    turn.measured("refused with the reason", begun.elapsed(), Duration::from_secs(15));
    let shown = site.lab.qctl(["ps"]);
    assert!(shown.code == 0 && shown.stdout.contains("full"), "what is saved can be looked at: {shown}");
    turn.moment("the full disk", Duration::from_secs(5));
    training.goes_on();
    empty(&site.controllers[0].host);
    let begun = Instant::now();
    until("it accepts again", LONG, || {
        let spec = pipeline::command(&site.lab, &refused, &["true"], 1);
        (site.lab.submit(&spec, &["-o", "name", "--id", &refused]).code == 0).then_some(())
    });
    turn.measured("it accepts again", begun.elapsed(), Duration::from_secs(15));
    site.lab.succeeds(&kept, LONG);
    training.did_not_notice(&site);
}

/// An agent's disk is full: `doctor` says so; what was acknowledged stays, and what could not be said comes afterwards.
pub(crate) fn of_agent_full(turn: &mut Turn) {
    let mut site = Site::prepare(Plan { controllers: 1, etcd: 0, agents: 2 });
    site.agents.iter().for_each(|place| place.host.disk("state", "24m"));
    site.bring_up();
    let more = ["--save-interval", "10", "--collective-timeout", "5"];
    let (mut spec, record) = train::spec(&site, "full", &more);
    spec["stages"]["train"]["checkpoint_optimizer"] = json!(true);
    spec["stages"]["train"]["retries"] = json!({"max": 20, "backoff": "100ms"});
    let training = Training::of(&site, turn, &spec, record);
    let log = site.lab.log(&training.job, "train", 3);
    let victim = turn.one(&[0, 1]);
    let name = site.agents[victim].host.name.clone();
    turn.note(name.clone());
    fill(&site.agents[victim].host);
    let begun = Instant::now();
    until("doctor names the disk", LONG, || {
        let said = site.lab.qctl_for(LONG, ["doctor"]).stdout;
        said.lines().any(|line| line.starts_with("FAIL") && line.contains(&format!("disk {name}: 0 "))).then_some(())
    });
    turn.measured("doctor names the disk", begun.elapsed(), Duration::from_secs(60));
    turn.moment("the full disk", Duration::from_secs(5));
    empty(&site.agents[victim].host);
    let begun = Instant::now();
    training.goes_on();
    turn.measured("training goes on", begun.elapsed(), Duration::from_secs(30));
    assert!(
        site.lab.qctl(["logs", &training.job, "--rank", "3", "--attempt", "1", "-o", "raw"]).ok().starts_with(&log)
    );
    training.kept(&site.lab.events(&training.job));
    training.record.attempts_follow_each_other();
    training.cancel(&site);
}

/// Every fsync of the control plane takes its time; it is slower, and nothing is wrong.
pub(crate) fn slow(turn: &mut Turn) {
    let delay = turn.one(&[50, 200, 500]);
    turn.note(format!("{delay} ms for each fsync"));
    let mut site = Site::prepare(Plan { controllers: 1, etcd: 0, agents: 2 });
    let library = crate::preload::built(&site);
    let delayed = [("LD_PRELOAD", library), ("LAB_FSYNC_MS", delay.to_string())];
    for place in site.controllers.iter_mut().chain(&mut site.agents) {
        delayed.iter().for_each(|(name, value)| place.set(name, value));
    }
    site.bring_up();
    let begun = Instant::now();
    let training = Training::start(&site, turn, "slow", &[]);
    turn.measured("submitted and under way, with the drawn moment", begun.elapsed(), Duration::from_secs(15));
    let job = site.lab.accepted(&pipeline::command(&site.lab, "small", &["true"], 50));
    site.lab.succeeds(&job, LONG);
    training.did_not_notice(&site);
}

/// Takes all that is free of the daemon's disk.
fn fill(host: &Host) {
    let filler = host.seen("state/filler");
    let mut file = fs::File::create(filler).unwrap();
    let error = std::io::copy(&mut std::io::repeat(0), &mut file).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

fn empty(host: &Host) {
    fs::remove_file(host.seen("state/filler")).unwrap();
}
