//! The command line at the edges: exit codes, completion, output that nobody reads, leaving.

use std::fs::File;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;
use stories::program::run;

/// Asks for completions as the script for bash does; the last word is the one being typed.
fn completed(lab: &Lab, words: &[&str]) -> (Vec<String>, Duration) {
    let mut shell = lab.command([] as [&str; 0]);
    let program = shell.get_program().to_owned();
    shell = Command::new(program);
    shell.env("QCTL_STATE_DIR", lab.state()).current_dir(lab.root());
    shell.env("QCTL_COMPLETE", "bash").env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    shell.args(["--", "qctl"]).args(words);
    let begun = Instant::now();
    let outcome = run(&mut shell, Duration::from_secs(10));
    let took = begun.elapsed();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "a key press is no place for an error: {outcome}");
    (outcome.stdout.lines().map(str::to_owned).collect(), took)
}

/// Whether a process has a handler for SIGINT, the second signal of the mask.
fn catches_interrupts(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 2 != 0)
}

#[test]
fn the_exit_codes_of_the_help_hold_for_every_command() {
    let lab = Lab::start();
    let file = lab.write(&pipeline::command(&lab, "good", &["true"], 1));
    let submit = |name: &str, argv: &[&str]| {
        let _ = lab.submit(&pipeline::command(&lab, name, argv, 1), &[]).ok();
    };
    submit("good", &["true"]);
    submit("bad", &["false"]);
    submit("long", &["sleep", "300"]);
    lab.succeeds("good", Duration::from_secs(30));
    let table: &[(i32, &[&str])] = &[
        (0, &["--help"]),
        (0, &["version"]),
        (0, &["ps", "-a", "-o", "wide"]),
        (0, &["ps", "--phase", "running", "--name", "lo", "-o", "yaml"]),
        (0, &["nodes", "-o", "wide"]),
        (0, &["top"]),
        (0, &["doctor", "-o", "json"]),
        (0, &["describe", "good", "-o", "yaml"]),
        (0, &["describe", "good", "-w"]),
        (0, &["explain", "good", "-o", "name"]),
        (0, &["report", "good"]),
        (0, &["events", "good", "-o", "wide"]),
        (0, &["logs", "good"]),
        (0, &["ckpt", "ls"]),
        (0, &["plan", "-f", &file]),
        (0, &["submit", "-f", &file, "--dry-run"]),
        (0, &["wait", "good"]),
        (0, &["wait", "long", "--for", "started"]),
        (0, &["wait", "bad", "--for", "failed"]),
        (0, &["wait", "bad", "--for", "ended"]),
        (0, &["dev", "status", "-o", "name"]),
        (0, &["completion", "fish"]),
        (0, &["man"]),
        (1, &["wait", "long", "--timeout", "50ms"]),
        (1, &["wait", "good", "--for", "failed"]),
        (2, &["submit"]),
        (2, &["submit", "-f", "."]),
        (2, &["submit", "-f", &file, "-f", &file]),
        (2, &["submit", "-f", &file, "--set", "stages.work.run.cuont=2"]),
        (2, &["logs", "good", "--rank", "x"]),
        (2, &["logs", "good", "--grep", "["]),
        (2, &["logs", "good", "-f", "--until", "1m"]),
        (2, &["cancel", "good", "--grace", "1s", "--force"]),
        (2, &["wait", "good", "--for", "done"]),
        (2, &["nonsense"]),
        (3, &["wait", "bad"]),
        (3, &["follow", "bad"]),
        (3, &["wait", "bad", "--for", "stage=work"]),
        (5, &["submit", "-f", "nowhere.yaml"]),
        (5, &["describe", "nothing"]),
        (5, &["explain", "nothing"]),
        (5, &["report", "nothing"]),
        (5, &["events", "nothing"]),
        (5, &["cancel", "nothing"]),
        (5, &["wait", "nothing"]),
        (5, &["follow", "nothing"]),
        (5, &["ckpt", "ls", "nothing"]),
        (5, &["logs", "good", "--stage", "wrok"]),
        (5, &["logs", "good", "--node", "node-9"]),
        (5, &["logs", "good", "--attempt", "9"]),
        (0, &["cancel", "long", "--force", "--reason", "enough"]),
        (4, &["wait", "long"]),
        (4, &["wait", "long", "--for", "succeeded"]),
    ];
    for (code, words) in table {
        let _ = lab.qctl(*words).code(*code);
    }
    lab.stop();
    for words in [&["ps"][..], &["ps", "-w"], &["top"], &["report", "good"], &["follow", "good"], &["events", "good"]] {
        let _ = lab.qctl(words).code(6);
    }
    let _ = lab.qctl(["doctor"]).code(1);
}

#[test]
fn completion_knows_jobs_stages_and_nodes_and_is_silent_without_a_controller() {
    let lab = Lab::start();
    let job = lab.accepted(&pipeline::command(&lab, "quick", &["true"], 1));
    lab.succeeds(&job, Duration::from_secs(30));
    // On a machine that is busy with something else a key press may come to nothing: the next one counts.
    let offers = |words: &[&str], wanted: &[&str]| {
        until(&format!("{words:?} offers {wanted:?} at once"), Duration::from_secs(10), || {
            let (offered, took) = completed(&lab, words);
            (took < Duration::from_millis(200) && offered == wanted).then_some(())
        });
    };
    offers(&["describe", "q"], &["quick"]);
    offers(&["describe", &job[..3]], &[&job]);
    offers(&["logs", "quick", "--stage", ""], &["work"]);
    offers(&["logs", "--node", ""], &["node-1", "node-2"]);
    offers(&["drain", "node-2"], &["node-2"]);
    offers(&["cancel", "quick", "las"], &["last"]);
    offers(&["descr"], &["describe"]);
    lab.stop();
    offers(&["logs", "qu"], &[]);
    offers(&["logs", "--node", "n"], &[]);
}

#[test]
fn a_reader_that_goes_is_no_error_and_a_follower_that_goes_is_told_the_way_back() {
    let lab = Lab::start();
    let many = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    let job = lab.accepted(&pipeline::command(&lab, "many", &["sh", "-c", many], 1));
    lab.succeeds(&job, Duration::from_secs(60));
    let mut logs = lab.command(["logs", &job]);
    let mut child = logs.stdout(Stdio::piped()).stderr(File::create(lab.root().join("err")).unwrap()).spawn().unwrap();
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    // The pipe is closed here, with most lines unread.
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(std::fs::read_to_string(lab.root().join("err")).unwrap(), "");

    let long = lab.accepted(&pipeline::command(&lab, "long", &["sleep", "300"], 1));
    for words in [&["logs", &long, "-f"][..], &["follow", &long], &["wait", &long], &["ps", "-w"]] {
        let said = lab.root().join("said");
        let mut follower = lab.command(words);
        let mut child = follower.stdout(Stdio::null()).stderr(File::create(&said).unwrap()).spawn().unwrap();
        until("it listens for Ctrl-C", Duration::from_secs(10), || catches_interrupts(child.id()).then_some(()));
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let status = until("the follower goes", Duration::from_secs(10), || child.try_wait().unwrap());
        let told = std::fs::read_to_string(&said).unwrap();
        assert_eq!(status.code(), Some(130), "{words:?}: {told}");
        if words[0] != "ps" {
            assert!(told.contains("goes on") && told.contains(&format!("{} {long}", words[0])), "{words:?}: {told}");
        }
    }
    assert_eq!(lab.phase(&long), "running", "nobody's leaving ended it");
    let listed: Value = serde_json::from_str(&lab.qctl(["ps", "-o", "json"]).ok()).unwrap();
    assert_eq!(listed["api_version"], "qctl/v1");
    let _ = lab.qctl(["cancel", &long, "--force"]).ok();
}
