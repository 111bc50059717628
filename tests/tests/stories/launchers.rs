//! What both launchers of training keep: who died first and how is told within a second, the rest is
//! stopped at once, nothing is left, and nobody above the ranks is needed for them to go on.
//!
//! The ranks are stand-ins; `msrun` is MindSpore's own where `QCTL_TEST_PYTHON` names an interpreter with it.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use stories::job::{Event, iterations, stage};
use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;
use stories::process::Process;
use stories::program::mindspore_python;

/// From a death to the event that tells of it, and to the end of the others.
const AT_ONCE: Duration = Duration::from_secs(1);
/// For ranks to be up; msrun takes two imports of MindSpore for it.
const UP: Duration = Duration::from_secs(90);
/// The rank that fails where one fails: not on the scheduler's node, and not the one that prints.
const VICTIM: u32 = 2;

/// How ranks are started.
struct Launcher {
    name: &'static str,
    python: Option<String>,
}

impl Launcher {
    /// Those that can be tried here.
    fn all() -> Vec<Self> {
        let mut all = vec![Self { name: "ranks", python: None }];
        match mindspore_python() {
            Some(python) => all.push(Self { name: "msrun", python: Some(python) }),
            None => println!("skipped for msrun: QCTL_TEST_PYTHON names no interpreter with mindspore"),
        }
        all
    }

    /// A training of stand-ins that this launcher starts once.
    fn spec(&self, lab: &Lab, iterations: u64, step_ms: u64, args: &[&str]) -> Value {
        let mut spec = pipeline::training(lab, self.name, iterations, step_ms, args);
        let train = spec["stages"]["train"].as_object_mut().unwrap();
        train.insert("retries".into(), json!(0));
        train.insert("launcher".into(), json!(self.name));
        if let Some(python) = &self.python {
            train.remove("scheduler");
            spec["runtime"]["python"] = json!(python);
        }
        spec
    }
}

/// A gang that is up.
struct Gang<'a> {
    lab: &'a Lab,
    launcher: &'a Launcher,
    job: String,
    ranks: Vec<Process>,
    port: String,
}

impl<'a> Gang<'a> {
    fn start(lab: &'a Lab, launcher: &'a Launcher, spec: &Value) -> Self {
        let job = lab.accepted(spec);
        let ranks = until("all ranks train", UP, || {
            // The last rank prints only when all have met.
            let ranks = lab.ranks();
            let printed = ranks
                .iter()
                .find(|rank| rank.rank() == Some(3))
                .is_some_and(|last| fs::read_to_string(last.stdout()).is_ok_and(|log| !iterations(&log).is_empty()));
            (printed && ranks.len() == 4).then_some(ranks)
        });
        let port = ranks[0].env["MS_SCHED_PORT"].clone();
        Self { lab, launcher, job, ranks, port }
    }

    fn rank(&self, number: u32) -> &Process {
        &self.ranks[usize::try_from(number).unwrap()]
    }

    fn scheduler(&self) -> Process {
        let mut all = self.lab.work_processes();
        let is_it = |one: &Process| one.env.get("MS_ROLE").is_some_and(|role| role == "MS_SCHED");
        all.retain(|one| is_it(one) && one.program() != "qctl-shim");
        assert_eq!(all.len(), 1, "one scheduler, whatever the number of launchers: {all:#?}");
        all.remove(0)
    }

    /// Waits for `victim` to end; milliseconds of the wall clock when it did.
    fn ends(&self, victim: &Process) -> u64 {
        until("the victim ends", UP, || (!victim.lives()).then(now_ms))
    }

    /// A failure is told within a second of `died_ms`, and by then the others are gone.
    ///
    /// Returns what is told in the end: where a victim on another node was heard first, the cause comes next.
    fn fails(&self, died_ms: u64) -> Event {
        until("the failure is told", AT_ONCE * 5, || (!self.failures().is_empty()).then_some(()));
        until("no rank runs", AT_ONCE * 3, || (!self.ranks.iter().any(Process::lives)).then_some(()));
        let gone = now_ms() - died_ms;
        assert_eq!(self.lab.wait(&self.job, Duration::from_secs(30)), 3);
        let seen = self.failures().pop().unwrap();
        let told = seen.at_ms.saturating_sub(died_ms);
        println!("{}: told {told} ms after the death, no rank ran {gone} ms after it", self.launcher.name);
        assert!(u128::from(told.max(gone)) < AT_ONCE.as_millis(), "{told} ms to the event, {gone} ms to the end");
        let blamed = &self.lab.describe(&self.job)["failure"];
        assert_eq!((&blamed["node"], &blamed["rank"]), (&json!(seen.node), &json!(seen.rank)), "{blamed}");
        self.leaves_nothing();
        seen
    }

    fn failures(&self) -> Vec<Event> {
        let mut events = self.lab.events(&self.job);
        events.retain(|event| event.kind == "attempt-failed");
        events
    }

    /// No process of the gang lives, be it known by its attempt or by its port alone.
    fn leaves_nothing(&self) {
        let mut left = self.lab.processes();
        let by_port = |one: &Process| one.env.get("MS_SCHED_PORT") == Some(&self.port);
        left.retain(|one| one.env.contains_key("QCTL_ATTEMPT") || by_port(one));
        assert!(left.is_empty(), "{left:#?}");
    }

    fn node_of(&self, rank: u32) -> Value {
        let told = self.lab.describe(&self.job);
        stage(&told, "train")["tasks"][0]["history"][0]["nodes"][usize::try_from(rank / 2).unwrap()].clone()
    }
}

fn says(event: &Event, words: &[&str]) {
    for word in words {
        assert!(event.message.contains(word), "{}", event.message);
    }
}

#[test]
fn a_normal_end_is_seen_in_every_rank() {
    for launcher in Launcher::all() {
        let lab = Lab::start();
        let spec = launcher.spec(&lab, 20, 50, &[]);
        let gang = Gang::start(&lab, &launcher, &spec);
        let scheduler = gang.scheduler();
        lab.succeeds(&gang.job, Duration::from_secs(60));
        assert!(!scheduler.lives());
        gang.leaves_nothing();
        assert_eq!(iterations(&lab.log(&gang.job, "train", 3)), (1..=20).collect::<Vec<_>>());
        let listed: Value = serde_json::from_str(&lab.qctl(["ckpt", "ls", &gang.job, "-o", "json"]).ok()).unwrap();
        let complete = |one: &&Value| one["complete"] == true;
        assert_eq!(listed["checkpoints"].as_array().unwrap().iter().filter(complete).count(), 2, "{listed}");
    }
}

#[test]
fn a_killed_rank_is_named_with_its_signal() {
    for launcher in Launcher::all() {
        let lab = Lab::start();
        let gang = Gang::start(&lab, &launcher, &launcher.spec(&lab, 1_000, 100, &[]));
        gang.rank(VICTIM).kill9();
        let seen = gang.fails(gang.ends(gang.rank(VICTIM)));
        assert_eq!((seen.rank, json!(seen.node)), (Some(VICTIM.into()), gang.node_of(VICTIM)));
        says(&seen, &["signal 9", "SIGKILL"]);
    }
}

#[test]
fn a_rank_that_fails_by_itself_is_named_with_its_code_and_its_last_words() {
    let words = "RuntimeError: a failure that was asked for";
    for (how, said, proof) in [
        ("exit3", "exited with code 3", "stand-in: failing on purpose at iteration 8: exit3"),
        ("exception", words, "Traceback (most recent call last)"),
    ] {
        for launcher in Launcher::all() {
            let lab = Lab::start();
            let fail = format!("{VICTIM}:8:{how}");
            let gang = Gang::start(&lab, &launcher, &launcher.spec(&lab, 1_000, 300, &["--fail", &fail]));
            let seen = gang.fails(gang.ends(gang.rank(VICTIM)));
            assert_eq!((seen.rank, json!(seen.node)), (Some(VICTIM.into()), gang.node_of(VICTIM)));
            says(&seen, &[said]);
            assert!(seen.evidence.iter().any(|line| line.contains(proof)), "{:#?}", seen.evidence);
        }
    }
}

#[test]
fn a_rank_that_leaves_early_is_named_instead_of_those_that_wait_for_it() {
    for launcher in Launcher::all() {
        let lab = Lab::start();
        // One on the node of the rank that prints iterations, one on the other.
        for victim in [1, 2] {
            let args = ["--fail", &format!("{victim}:8:exit0"), "--collective-timeout", "2"];
            let gang = Gang::start(&lab, &launcher, &launcher.spec(&lab, 1_000, 300, &args));
            gang.ends(gang.rank(victim));
            // A code of 0 proves nothing before the others have waited in vain.
            let seen = gang.fails(gang.ends(gang.rank(3)));
            assert_eq!(seen.rank, Some(victim.into()), "{}", seen.message);
            says(&seen, &["with code 0"]);
        }
    }
}

#[test]
fn a_lost_scheduler_is_named_and_not_the_ranks_that_miss_it() {
    for launcher in Launcher::all() {
        let lab = Lab::start();
        let gang = Gang::start(&lab, &launcher, &launcher.spec(&lab, 1_000, 100, &[]));
        let scheduler = gang.scheduler();
        scheduler.kill9();
        let seen = gang.fails(gang.ends(&scheduler));
        assert_eq!((seen.rank, json!(seen.node)), (None, gang.node_of(0)));
        says(&seen, &["the scheduler was killed by signal 9"]);
    }
}

#[test]
fn a_cancelled_gang_is_asked_first_and_leaves_nothing() {
    for launcher in Launcher::all() {
        let lab = Lab::start();
        let gang = Gang::start(&lab, &launcher, &launcher.spec(&lab, 10_000, 50, &["--exit-signal-handler"]));
        let _ = lab.qctl(["cancel", &gang.job]).ok();
        assert_eq!(lab.wait(&gang.job, Duration::from_secs(30)), 4);
        gang.leaves_nothing();
        for rank in [0, 3] {
            let log = lab.log(&gang.job, "train", rank);
            let asked = if rank == 0 { "exiting program after receiving SIGTERM" } else { "iteration" };
            assert!(log.contains(asked), "{}: {log}", launcher.name);
        }
        let events = lab.events(&gang.job);
        assert!(events.iter().all(|event| event.kind != "attempt-failed"), "{events:#?}");
    }
}

#[test]
fn ranks_outlive_their_agents_and_their_controller() {
    for launcher in Launcher::all() {
        let lab = Lab::start();
        let gang = Gang::start(&lab, &launcher, &launcher.spec(&lab, 100, 100, &[]));
        let mut above = lab.agents();
        above.extend(lab.controller());
        assert_eq!(above.len(), 3);
        for process in &above {
            process.kill9();
            until("it is gone", AT_ONCE * 5, || (!process.lives()).then_some(()));
        }
        until("all are back", Duration::from_secs(20), || {
            (lab.agents().len() == 2 && lab.controller().is_some()).then_some(())
        });
        let answered = || (lab.qctl(["ps"]).code == 0).then_some(());
        until("the controller answers", Duration::from_secs(20), answered);
        assert!(gang.ranks.iter().all(Process::lives), "no rank died with them");
        lab.succeeds(&gang.job, Duration::from_secs(60));
        gang.leaves_nothing();
        assert_eq!(iterations(&lab.log(&gang.job, "train", 3)), (1..=100).collect::<Vec<_>>());
        let events = lab.events(&gang.job);
        assert_eq!(events.iter().filter(|event| event.kind == "attempt-placed").count(), 1, "{events:#?}");
        assert!(events.iter().all(|event| event.kind != "attempt-failed"), "{events:#?}");
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}
