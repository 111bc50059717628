//! Names and keys of submissions.

use std::time::Duration;

use stories::lab::Lab;
use stories::pipeline;

#[test]
fn a_name_is_taken_until_its_job_ends_and_a_key_is_one_job_for_ever() {
    let lab = Lab::start();
    let long = pipeline::command(&lab, "taken", &["sleep", "300"], 1);
    let first = lab.submit(&long, &["-o", "name", "--id", "key-1"]).ok().trim().to_owned();

    let refused = lab.submit(&long, &[]).code(1);
    assert!(refused.stderr.contains("`taken`") && refused.stderr.contains("hint: "), "{refused}");
    let same = lab.submit(&long, &["-o", "name", "--id", "key-1"]).ok().trim().to_owned();
    assert_eq!(same, first, "the same key is the same job");
    let other = lab.submit(&long, &["-o", "name", "--name", "another"]).ok().trim().to_owned();
    assert_ne!(other, first);
    let listed = lab.qctl(["ps", "-o", "name"]).ok();
    assert_eq!(listed.lines().count(), 2, "the refused submission left nothing: {listed}");

    for job in ["taken", "another"] {
        let _ = lab.qctl(["cancel", job]).ok();
        assert_eq!(lab.wait(job, Duration::from_secs(30)), 4);
    }
    let id = lab.describe("taken")["id"].clone();
    let next = lab.accepted(&pipeline::command(&lab, "taken", &["true"], 1));
    lab.succeeds(&next, Duration::from_secs(30));
    assert_ne!(lab.describe("taken")["id"], id, "a free name resolves to its newest job");
}
