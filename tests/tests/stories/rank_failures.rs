//! The first death is named, and takes the rest with it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use stories::job::{Event, stage};
use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;
use stories::process::Process;

/// A way to die, and what is said about it.
struct Death {
    how: &'static str,
    rank: u32,
    said: &'static [&'static str],
    proof: &'static str,
}

const DEATHS: [Death; 3] = [
    Death {
        how: "kill",
        rank: 2,
        said: &["signal 9", "SIGKILL"],
        proof: "stand-in: failing on purpose at iteration 4: kill",
    },
    Death {
        how: "exit3",
        rank: 1,
        said: &["exit code 3"],
        proof: "stand-in: failing on purpose at iteration 4: exit3",
    },
    Death {
        how: "exception",
        rank: 3,
        said: &["exit code 1", "RuntimeError: a failure that was asked for"],
        proof: "Traceback (most recent call last)",
    },
];

#[test]
fn the_first_death_is_named_within_a_second_and_no_rank_outlives_it() {
    let lab = Lab::start();
    for death in &DEATHS {
        let name = format!("dies-by-{}", death.how);
        let fail = format!("{}:4:{}", death.rank, death.how);
        let mut spec = pipeline::training(&lab, &name, 1_000, 300, &["--fail", &fail]);
        spec["stages"]["train"]["retries"] = json!(0);
        let job = lab.accepted(&spec);
        let ranks =
            until("all ranks are up", Duration::from_secs(30), || Some(lab.ranks()).filter(|ranks| ranks.len() == 4));
        let victim = &ranks[usize::try_from(death.rank).unwrap()];
        assert_eq!(victim.rank(), Some(death.rank));
        let died_ms = until("the rank dies", Duration::from_secs(30), || (!victim.lives()).then(now_ms));
        let seen = until("the failure is told", Duration::from_secs(5), || failure(&lab, &job));
        let told_ms = now_ms();
        until("no other rank runs", Duration::from_secs(4), || (!ranks.iter().any(Process::lives)).then_some(()));

        let delay = seen.at_ms.saturating_sub(died_ms);
        println!("{}: told after {delay} ms, shown after {} ms", death.how, told_ms - died_ms);
        assert!(delay < 1_000, "{delay} ms from the death to the event");
        assert_eq!((seen.rank, seen.stage.as_str()), (Some(u64::from(death.rank)), "train"));
        for word in death.said {
            assert!(seen.message.contains(word), "{}: {}", death.how, seen.message);
        }
        assert!(seen.evidence.iter().any(|line| line.contains(death.proof)), "{:#?}", seen.evidence);

        assert_eq!(lab.wait(&job, Duration::from_secs(30)), 3);
        let told = lab.describe(&job);
        let seats = stage(&told, "train")["tasks"][0]["history"][0]["nodes"].clone();
        assert_eq!(json!(seen.node), seats[usize::try_from(death.rank / 2).unwrap()], "the victim's own node: {told}");
        let blamed = &told["failure"];
        assert_eq!((&blamed["rank"], &blamed["node"]), (&json!(death.rank), &json!(seen.node)), "{blamed}");
        let left = lab.work_processes();
        assert!(left.is_empty(), "{left:#?}");
    }
}

#[test]
fn a_killed_rank_is_started_again_from_the_last_whole_checkpoint() {
    let lab = Lab::start();
    let mut spec = pipeline::training(&lab, "again", 20, 30, &["--fail", "1:15:kill"]);
    spec["stages"]["train"]["checkpoint_optimizer"] = json!(true);
    let job = lab.accepted(&spec);
    lab.succeeds(&job, Duration::from_secs(60));
    let kinds: Vec<String> = lab.events(&job).into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "attempt-placed").count(), 2, "{kinds:?}");
    assert!(kinds.contains(&"task-retried".to_owned()), "{kinds:?}");
    let log = lab.log(&job, "train", 3);
    let steps = stories::job::iterations(&log);
    assert_eq!(steps, (11..=20).collect::<Vec<_>>(), "the second attempt goes on behind iteration 10");
}

#[test]
fn a_stage_has_a_budget_of_its_own_and_says_what_is_left_of_it() {
    let lab = Lab::start();
    let mut spec = pipeline::command(&lab, "budget", &["false"], 1);
    spec["stages"]["work"]["retries"] = json!({"max": 2, "window": "1h", "backoff": "100ms"});
    let job = lab.accepted(&spec);
    assert_eq!(lab.wait(&job, Duration::from_secs(60)), 3);
    let events = lab.events(&job);
    let told: Vec<&str> =
        events.iter().filter(|event| event.kind == "task-retried").map(|event| event.message.as_str()).collect();
    let said = ["in 100 ms (retry 1 of 2 within 1 h)", "in 200 ms (retry 2 of 2 within 1 h)"];
    assert!(told.len() == 2 && told.iter().zip(said).all(|(told, said)| told.ends_with(said)), "{told:?}");
    let why = lab.qctl(["explain", &job]).ok();
    assert!(why.contains("all retries are used: 2 within 1 h"), "{why}");

    spec["name"] = json!("slow");
    spec["stages"]["work"]["retries"] = json!({"max": 5, "backoff": "1h"});
    let waits = lab.accepted(&spec);
    let why = until("it waits for its next try", Duration::from_secs(60), || {
        Some(lab.qctl(["explain", &waits]).ok()).filter(|why| why.contains("is tried again in"))
    });
    assert!(why.contains("(retry 1 of 5 within 24 h): ") && why.contains("exit code 1"), "{why}");
    let _ = lab.qctl(["cancel", &waits]).ok();
    assert_eq!(lab.wait(&waits, Duration::from_secs(30)), 4);
}

fn failure(lab: &Lab, job: &str) -> Option<Event> {
    lab.events(job).into_iter().find(|event| event.kind == "attempt-failed")
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}
