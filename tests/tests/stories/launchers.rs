//! What both launchers of training keep: who died first and how is told within a second, the rest is
//! stopped at once, nothing is left, and nobody above the ranks is needed for them to go on.
//!
//! The ranks are stand-ins; `msrun` is MindSpore's own where `QCTL_TEST_PYTHON` names an interpreter with it, else a
//! stand-in too.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use stories::job::{Event, iterations, stage};
use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;
use stories::process::Process;
use stories::program::{mindspore_python, python, run, workspace};

/// From a death to the event that tells of it, and to the end of the others.
const AT_ONCE: Duration = Duration::from_secs(1);
/// For ranks to be up; msrun takes two imports of MindSpore for it.
const UP: Duration = Duration::from_secs(90);
/// The rank that fails where one fails: not on the scheduler's node, and not the one that prints.
const VICTIM: u32 = 2;

/// Who starts the ranks.
enum Launcher {
    /// The agent's shim.
    Ranks,
    /// MindSpore's msrun, beside this interpreter.
    Msrun(String),
    /// A script with msrun's habits.
    Standin,
}

impl Launcher {
    /// Those that can be tried here.
    fn all() -> Vec<Self> {
        let msrun = mindspore_python().map_or_else(
            || {
                println!(
                    "skipped for MindSpore's msrun: QCTL_TEST_PYTHON names no interpreter with mindspore; a stand-in"
                );
                Self::Standin
            },
            Self::Msrun,
        );
        vec![Self::Ranks, msrun]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ranks => "ranks",
            Self::Msrun(_) | Self::Standin => "msrun",
        }
    }

    /// A training of stand-ins that this launcher starts once.
    fn spec(&self, lab: &Lab, iterations: u64, step_ms: u64, args: &[&str]) -> Value {
        let mut spec = pipeline::training(lab, self.name(), iterations, step_ms, args);
        let train = spec["stages"]["train"].as_object_mut().unwrap();
        train.insert("retries".into(), json!(0));
        train.insert("launcher".into(), json!(self.name()));
        let python = match self {
            Self::Ranks => return spec,
            Self::Msrun(python) => python.clone(),
            Self::Standin => interpreter_beside_standin(lab),
        };
        train.remove("scheduler");
        spec["runtime"]["python"] = json!(python);
        spec
    }
}

/// An interpreter with the stand-in of msrun beside it.
fn interpreter_beside_standin(lab: &Lab) -> String {
    let bin = lab.work().join("bin");
    if !bin.exists() {
        fs::create_dir(&bin).unwrap();
        symlink(python(), bin.join("python")).unwrap();
        let script = workspace().join("examples/standin/msrun.py");
        let text = format!("#!{}\nimport runpy\nrunpy.run_path({:?}, run_name='__main__')\n", python(), script);
        fs::write(bin.join("msrun"), text).unwrap();
        fs::set_permissions(bin.join("msrun"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    bin.join("python").to_string_lossy().into_owned()
}

/// A gang that is up.
struct Gang<'a> {
    lab: &'a Lab,
    launcher: &'a Launcher,
    job: String,
    ranks: Vec<Process>,
    scheduler: Process,
    port: String,
}

/// The scheduler, once it is up: one, whatever the number of launchers.
fn scheduler_of(lab: &Lab) -> Option<Process> {
    let mut all = lab.work_processes();
    let is_it = |one: &Process| one.env.get("MS_ROLE").is_some_and(|role| role == "MS_SCHED");
    all.retain(|one| is_it(one) && one.program() != "qctl-shim");
    if all.len() == 1 { all.pop() } else { None }
}

impl<'a> Gang<'a> {
    fn start(lab: &'a Lab, launcher: &'a Launcher, spec: &Value) -> Self {
        let job = lab.accepted(spec);
        let (ranks, scheduler) = until("all ranks train, and one scheduler runs", UP, || {
            // The last rank prints only when all have met.
            let ranks = lab.ranks();
            let scheduler = scheduler_of(lab)?;
            let printed = ranks
                .iter()
                .find(|rank| rank.rank() == Some(3))
                .is_some_and(|last| fs::read_to_string(last.stdout()).is_ok_and(|log| !iterations(&log).is_empty()));
            (printed && ranks.len() == 4).then_some((ranks, scheduler))
        });
        let port = ranks[0].env["MS_SCHED_PORT"].clone();
        Self { lab, launcher, job, ranks, scheduler, port }
    }

    fn rank(&self, number: u32) -> &Process {
        &self.ranks[usize::try_from(number).unwrap()]
    }

    /// The launchers, in order of their nodes.
    fn msruns(&self) -> Vec<Process> {
        let mut all = self.lab.work_processes();
        all.retain(|one| !one.env.contains_key("MS_ROLE") && one.argv.iter().any(|word| word == "--node_rank"));
        all.sort_by_key(|one| one.argv.iter().skip_while(|word| *word != "--node_rank").nth(1).cloned());
        all
    }

    /// Waits for `victim` to end; milliseconds of the wall clock when it did.
    fn ends(&self, victim: &Process) -> u64 {
        until("the victim ends", UP, || (!victim.lives()).then(now_ms))
    }

    /// A failure is told within a second of `died_ms`, and by then the others are gone.
    ///
    /// Returns what is told in the end: where a victim on another node was heard first, the cause comes next.
    fn fails(&self, died_ms: u64) -> Event {
        self.fails_within(died_ms, AT_ONCE, AT_ONCE)
    }

    fn fails_within(&self, died_ms: u64, told_limit: Duration, gone_limit: Duration) -> Event {
        until("the failure is told", AT_ONCE * 5, || (!self.failures().is_empty()).then_some(()));
        until("no rank runs", AT_ONCE * 3, || (!self.ranks.iter().any(Process::lives)).then_some(()));
        let gone = now_ms().saturating_sub(died_ms);
        assert_eq!(self.lab.wait(&self.job, Duration::from_secs(30)), 3);
        let seen = self.failures().pop().unwrap();
        let told = seen.at_ms.saturating_sub(died_ms);
        println!("{}: told {told} ms after the death, no rank ran {gone} ms after it", self.launcher.name());
        assert!(u128::from(told) < told_limit.as_millis(), "{told} ms from the death to the event");
        assert!(u128::from(gone) < gone_limit.as_millis(), "{gone} ms from the death to the end of the others");
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
        let spec = launcher.spec(&lab, 20, 200, &[]);
        let gang = Gang::start(&lab, &launcher, &spec);
        lab.succeeds(&gang.job, Duration::from_secs(60));
        assert!(!gang.scheduler.lives());
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
fn a_rank_that_hangs_is_named_after_the_time_that_the_user_allows() {
    let allowed = 3_000;
    for launcher in Launcher::all() {
        let lab = Lab::start();
        let spec = |fail: &[&str]| {
            let mut spec = launcher.spec(&lab, 1_000, 200, fail);
            spec["runtime"]["env"]["QCTL_HANG_AFTER"] = json!("3");
            spec
        };
        let gang = Gang::start(&lab, &launcher, &spec(&[]));
        let _ = run(Command::new("kill").args(["-STOP", &gang.rank(VICTIM).pid.to_string()]), AT_ONCE * 5).ok();
        let stopped_ms = now_ms();
        // It is looked for a few times a second, and a stopped rank needs the kill that comes after the grace.
        let seen = gang.fails_within(stopped_ms + allowed, AT_ONCE * 2, AT_ONCE * 4);
        assert!(seen.at_ms >= stopped_ms + allowed, "{} ms early", stopped_ms + allowed - seen.at_ms);
        assert_eq!((seen.rank, json!(seen.node)), (Some(VICTIM.into()), gang.node_of(VICTIM)));
        says(&seen, &["no progress", "rank 2 has been stopped for 3 s"]);

        // One that only sleeps cannot be told from those that wait for it; the node that prints is named.
        let gang = Gang::start(&lab, &launcher, &spec(&["--fail", &format!("{VICTIM}:8:hang")]));
        let log = gang.rank(3).stdout();
        let mut last_ms = 0;
        until("the failure is told", UP, || {
            // An attempt's directory goes once all of it is with the controller.
            if let Ok(written) = fs::metadata(&log).and_then(|log| log.modified()) {
                last_ms = ms_of(written);
            }
            (!gang.failures().is_empty()).then_some(())
        });
        let seen = gang.fails_within(last_ms + allowed * 3 / 2, AT_ONCE * 2, AT_ONCE * 4);
        assert_eq!((seen.rank, json!(seen.node)), (None, gang.node_of(3)));
        says(&seen, &["no progress", "no rank of this node has logged anything for 4 s"]);
        assert!(seen.evidence.iter().any(|line| line.contains("iteration        7/")), "{:#?}", seen.evidence);
    }
}

#[test]
fn msrun_has_the_words_of_the_plan_and_one_of_them_runs_on_each_node() {
    let launcher = Launcher::all().pop().unwrap();
    let lab = Lab::start();
    let spec = launcher.spec(&lab, 1_000, 100, &[]);
    let file = lab.write(&spec);
    let plan: Value = serde_json::from_str(&lab.qctl(["plan", "-f", &file, "-o", "json"]).ok()).unwrap();
    let commands = stage(&plan, "train")["tasks"][0]["commands"].as_array().unwrap();
    let words = |process: &str| commands.iter().find(|one| one["process"] == process).unwrap()["argv"].clone();
    let gang = Gang::start(&lab, &launcher, &spec);
    for rank in &gang.ranks {
        assert_eq!(json!(rank.argv), words("worker"));
        assert!(!rank.env["PATH"].contains("/attempts/"), "{}", rank.env["PATH"]);
    }
    let planned: Vec<String> = serde_json::from_value(words("msrun")).unwrap();
    let started = gang.msruns();
    assert_eq!(started.len(), 2, "{started:#?}");
    for (node, msrun) in started.iter().enumerate() {
        let argv = &msrun.argv[msrun.argv.iter().position(|word| *word == planned[0]).unwrap()..];
        let logs = &argv[argv.iter().position(|word| word == "--log_dir").unwrap() + 1];
        let known =
            [("<address>", "127.0.0.1"), ("<port>", &gang.port), ("<node>", &node.to_string()), ("<logs>", logs)];
        let filled = planned.iter().map(|word| {
            known.iter().find(|(name, _)| name == word).map_or(word.clone(), |(_, value)| (*value).to_owned())
        });
        assert_eq!(argv, filled.collect::<Vec<_>>());
    }
    // Terminated, it would leave its ranks behind.
    started[1].kill9();
    let seen = gang.fails(gang.ends(&started[1]));
    assert_eq!((seen.rank, json!(seen.node)), (None, gang.node_of(VICTIM)));
    says(&seen, &["msrun was killed by signal 9"]);
}

#[test]
fn a_rank_of_msrun_whose_stand_in_is_killed_is_named_and_ended_too() {
    let launcher = Launcher::all().pop().unwrap();
    let lab = Lab::start();
    let gang = Gang::start(&lab, &launcher, &launcher.spec(&lab, 1_000, 100, &[]));
    let number = VICTIM + 1;
    let mut between = lab.called("qctl-shim");
    between.retain(|one| one.env.get("MS_NODE_ID") == Some(&number.to_string()));
    assert_eq!(between.len(), 1, "{between:#?}");
    between[0].kill9();
    // msrun kills the rank that it still holds; the other one has lost both.
    let seen = gang.fails_within(gang.ends(&between[0]), AT_ONCE, AT_ONCE * 3);
    assert_eq!((seen.rank, json!(seen.node)), (Some(number.into()), gang.node_of(number)));
    says(&seen, &["signal 9"]);
}

#[test]
fn a_lost_scheduler_is_named_and_not_the_ranks_that_miss_it() {
    for launcher in Launcher::all() {
        let lab = Lab::start();
        let gang = Gang::start(&lab, &launcher, &launcher.spec(&lab, 1_000, 100, &[]));
        gang.scheduler.kill9();
        let seen = gang.fails(gang.ends(&gang.scheduler));
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
        until("the last words of rank 0 have come", AT_ONCE * 5, || {
            let log = lab.log(&gang.job, "train", 0);
            log.contains("exiting program after receiving SIGTERM").then_some(())
        });
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
    ms_of(SystemTime::now())
}

fn ms_of(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}
