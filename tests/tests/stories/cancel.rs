//! A job that is not wanted any more.

use std::time::Duration;

use stories::lab::Lab;
use stories::pipeline;

#[test]
fn a_cancelled_training_leaves_nothing_behind_and_is_cancelled_once() {
    let lab = Lab::start();
    let job = lab.accepted(&pipeline::training(&lab, "unwanted", 10_000, 50, &["--exit-signal-handler"]));
    lab.reaches(&job, 3);
    let _ = lab.qctl(["cancel", &job]).ok();
    assert_eq!(lab.wait(&job, Duration::from_secs(30)), 4);
    assert_eq!(lab.phase(&job), "cancelled");
    let left = lab.work_processes();
    assert!(left.is_empty(), "{left:#?}");
    let log = lab.log(&job, "train", 0);
    assert!(log.contains("exiting program after receiving SIGTERM"), "the ranks were asked first: {log}");

    let again = lab.qctl(["cancel", &job]).code(0);
    let said = format!("{}{}", again.stdout, again.stderr);
    assert!(said.contains("ended") && said.contains("cancelled"), "{again}");
    let missing = lab.qctl(["cancel", "no-such-job"]).code(5);
    assert!(missing.stderr.contains("no-such-job"), "{missing}");
}
