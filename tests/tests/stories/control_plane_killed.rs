//! The whole control plane dies at once; the work does not.

use std::fs;
use std::time::Duration;

use stories::job::iterations;
use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;
use stories::process::Process;

#[test]
fn training_outlives_controller_agents_and_dev_and_is_found_again() {
    let lab = Lab::start();
    let job = lab.accepted(&pipeline::training(&lab, "survivor", 80, 100, &[]));
    lab.reaches(&job, 3);
    let ranks = lab.ranks();
    assert_eq!(ranks.len(), 4);
    // Whatever holds the others first, so that nothing is started again meanwhile.
    let shims = |process: &Process| process.program() == "qctl-shim" || process.env.contains_key("QCTL_ATTEMPT");
    let mut plane: Vec<Process> = lab.processes().into_iter().filter(|process| !shims(process)).collect();
    plane.sort_by_key(|process| process.program() != "qctl");
    let names: Vec<&str> = plane.iter().map(Process::program).collect();
    for name in ["qctl", "qctl-controller", "qctl-agent"] {
        assert!(names.contains(&name), "{names:?}");
    }
    plane.iter().for_each(Process::kill9);
    until("the control plane is gone", Duration::from_secs(5), || (!plane.iter().any(Process::lives)).then_some(()));
    assert_eq!(lab.qctl(["ps"]).code, 6, "nobody answers");
    let log = ranks[3].stdout();
    let steps = || iterations(&fs::read_to_string(&log).unwrap());
    let reached = steps().len();
    until("training goes on with nobody above it", Duration::from_secs(10), || {
        (steps().len() >= reached + 10).then_some(())
    });
    assert!(ranks.iter().all(Process::lives), "no rank died with it");
    assert!(lab.controller().is_none() && lab.agents().is_empty(), "nobody started the control plane again");

    lab.dev();
    lab.succeeds(&job, Duration::from_secs(60));
    assert_eq!(iterations(&lab.log(&job, "train", 3)), (1..=80).collect::<Vec<_>>(), "each line once, none missing");
    let events = lab.events(&job);
    assert_eq!(events.iter().filter(|event| event.kind == "attempt-placed").count(), 1, "{events:#?}");
}
