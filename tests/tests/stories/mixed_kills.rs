//! Kills of anything at any moment over a queue of twenty jobs: each ends as its file says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use stories::input::Shape;
use stories::job::Event;
use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;
use stories::process::Process;

/// Jobs of one queue.
const QUEUE: usize = 20;

/// Kills where `QCTL_STORY_KILLS` gives no other number; a hundred take under two minutes.
const KILLS: usize = 100;

/// The longest pause between two kills, in milliseconds.
const PAUSE_MS: u64 = 700;

/// Iterations of a training run.
const ITERATIONS: u64 = 20;

/// How a job must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Succeeded,
    Failed,
    Cancelled,
}

impl End {
    fn code(self) -> i32 {
        match self {
            Self::Succeeded => 0,
            Self::Failed => 3,
            Self::Cancelled => 4,
        }
    }
}

/// A submitted job.
struct Queued {
    id: String,
    name: String,
    end: End,
}

/// What was killed, by attempt.
#[derive(Default)]
struct Killed {
    /// One of the attempt's own processes.
    directly: BTreeSet<String>,
    /// The shim that held them.
    shims: BTreeSet<String>,
    /// What killed shims were called with: the directory of an attempt, or of a job's small tasks.
    called: Vec<String>,
    count: BTreeMap<&'static str, usize>,
}

#[test]
fn whatever_is_killed_every_job_of_a_queue_ends_as_its_file_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let kills = number("QCTL_STORY_KILLS").map_or(KILLS, |given| usize::try_from(given).unwrap());
    let seed = number("STORY_SEED").unwrap_or_else(rand::random);
    println!("seed {seed} (again with STORY_SEED={seed})");
    let mut random = StdRng::seed_from_u64(seed);
    let lab = Lab::start();
    pipeline::inputs(&lab, Shape::SMALL, 20_000);
    fs::create_dir(lab.work().join("done")).unwrap();

    let mut killed = Killed::default();
    let mut all: Vec<Queued> = Vec::new();
    let mut shown: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for round in 0.. {
        if round > 0 && killed.total() >= kills {
            break;
        }
        let queue = thread::scope(|scope| {
            let user = scope.spawn(|| queue(&lab, round));
            let mut queue: Option<Vec<Queued>> = None;
            let mut user = Some(user);
            while killed.total() < kills {
                if user.as_ref().is_some_and(thread::ScopedJoinHandle::is_finished) {
                    queue = user.take().map(|user| user.join().unwrap());
                }
                if queue.as_ref().is_some_and(|queue| !look(&lab, queue, &mut shown)) {
                    break;
                }
                pause(&mut random);
                kill(&lab, &mut random, &mut killed);
            }
            queue.unwrap_or_else(|| user.take().unwrap().join().unwrap())
        });
        for job in &queue {
            let said = waits(&lab, job);
            let told = lab.describe(&job.id);
            assert_eq!(said, job.end.code(), "`{}`: {told:#}\n{}", job.name, lab.qctl(["events", &job.id]));
            assert_eq!(waits(&lab, job), said, "how it ended does not change");
        }
        all.extend(queue);
    }
    println!("{} jobs, {} kills: {:?}", all.len(), killed.total(), killed.count);

    for job in &all {
        let told = lab.describe(&job.id);
        events_are_whole(&lab.events(&job.id), shown.get(&job.id).map_or(&[], Vec::as_slice), &told);
        tasks_are_true(&told, &killed);
        if job.name.starts_with("work") || job.name.starts_with("second") {
            results_are_whole(&lab, &told, &killed);
        }
        if job.name.starts_with("train") {
            let tracker = lab.work().join(&job.name).join("latest_checkpointed_iteration.txt");
            assert_eq!(fs::read_to_string(tracker).unwrap().trim(), ITERATIONS.to_string());
        }
    }
    engines_agree(&lab, &all);
    until("no process is left over", Duration::from_secs(30), || lab.work_processes().is_empty().then_some(()));
    until("no shim is left over", Duration::from_secs(30), || lab.called("qctl-shim").is_empty().then_some(()));
}

impl Killed {
    fn total(&self) -> usize {
        self.count.values().sum()
    }

    fn any(&self, attempt: &str) -> bool {
        self.directly.contains(attempt) || self.shim(attempt)
    }

    /// Whether a shim of the attempt was killed, even before it held a process.
    fn shim(&self, attempt: &str) -> bool {
        let job = attempt.split('.').next().unwrap();
        let its = |words: &String| words.contains(attempt) || (words.contains("pool") && words.contains(job));
        self.shims.contains(attempt) || self.called.iter().any(its)
    }
}

/// Submits the jobs of one queue, whether or not a controller is up.
fn queue(lab: &Lab, round: usize) -> Vec<Queued> {
    let jobs = (0..QUEUE).map(|at| {
        let (name, end, spec) = job(lab, round, at);
        let file = lab.root().join(format!("{name}.yaml"));
        fs::write(&file, serde_json::to_string(&spec).unwrap()).unwrap();
        // One key: however often it is sent, it is one job.
        let words = ["submit", "-f", &file.to_string_lossy(), "--id", &name, "-o", "name"].map(str::to_owned);
        let id = until(&format!("`{name}` is accepted"), Duration::from_secs(60), || {
            let said = lab.qctl(&words);
            assert!([0, 1, 6].contains(&said.code), "{said}");
            (said.code == 0).then(|| said.stdout.trim().to_owned())
        });
        if end == End::Cancelled {
            until(&format!("`{name}` is cancelled"), Duration::from_secs(60), || {
                (lab.qctl(["cancel", &id]).code == 0).then_some(())
            });
        }
        Queued { id, name, end }
    });
    jobs.collect()
}

/// Job `at` of a queue: four kinds that succeed, one that fails, one that is cancelled.
fn job(lab: &Lab, round: usize, at: usize) -> (String, End, Value) {
    let kind = ["train", "work", "fails", "work", "engines", "work", "second", "cancelled", "work", "work"][at % 10];
    let name = format!("{kind}-{round}-{at}");
    let done = format!("sleep 0.{}; echo $QCTL_ATTEMPT >> done/{name}", 2 + at % 7);
    let mut spec = match kind {
        "train" => {
            let mut spec = pipeline::training(lab, &name, ITERATIONS, 100, &[]);
            spec["stages"]["train"]["save_dir"] = json!(format!("./{name}"));
            spec
        }
        "engines" => {
            let mut spec = pipeline::whole(lab, &name, 1, 1, &[]);
            let stages = spec["stages"].as_object_mut().unwrap();
            stages.remove("train");
            stages.remove("preflight");
            spec["stages"]["convert"]["save_dir"] = json!(format!("./{name}/mcore"));
            spec["stages"]["preprocess"]["output_prefix"] = json!(format!("./{name}/text"));
            spec
        }
        "fails" => pipeline::command(lab, &name, &["sh", "-c", "sleep 0.3; echo no; exit 3"], 2),
        "second" => {
            let script = format!("[ $QCTL_ATTEMPT_NUMBER -ge 2 ] || kill -9 $$; {done}");
            pipeline::command(lab, &name, &["sh", "-c", &script], 3)
        }
        "cancelled" => pipeline::command(lab, &name, &["sleep", "600"], 2),
        _ => pipeline::command(lab, &name, &["sh", "-c", &done], 6),
    };
    for stage in spec["stages"].as_object_mut().unwrap().values_mut() {
        stage["retries"] = json!(if kind == "fails" { 1 } else { 100 });
    }
    let end = match kind {
        "fails" => End::Failed,
        "cancelled" => End::Cancelled,
        _ => End::Succeeded,
    };
    (name, end, spec)
}

/// Keeps what is shown of a job's history; false once all jobs have ended.
fn look(lab: &Lab, queue: &[Queued], shown: &mut BTreeMap<String, Vec<Event>>) -> bool {
    let said = lab.qctl(["ps", "-o", "json"]);
    if said.code != 0 {
        return true;
    }
    let running = queue.iter().filter(|job| said.stdout.contains(&job.id)).collect::<Vec<_>>();
    let Some(job) = running.first() else { return false };
    let said = lab.qctl(["events", &job.id, "-o", "json"]);
    if said.code == 0 {
        let events = said.stdout.lines().map(|line| Event::read(&serde_json::from_str(line).unwrap()));
        shown.insert(job.id.clone(), events.collect());
    }
    true
}

fn pause(random: &mut StdRng) {
    let drawn = Duration::from_millis(random.random_range(0..PAUSE_MS));
    let begun = Instant::now();
    until("the drawn moment", Duration::from_secs(60), || (begun.elapsed() >= drawn).then_some(()));
}

/// SIGKILL for one process of a drawn kind, if there is one.
fn kill(lab: &Lab, random: &mut StdRng, killed: &mut Killed) {
    let all = lab.processes();
    let kind = ["controller", "agent", "shim", "shim", "work", "work"].choose(random).unwrap();
    let mut of_kind = all.iter().filter(|process| kind_of(process) == Some(*kind)).collect::<Vec<_>>();
    of_kind.sort_by_key(|process| process.pid);
    let Some(victim) = of_kind.choose(random) else { return };
    if *kind == "shim" {
        let held = all.iter().filter(|process| process.parent == victim.pid);
        killed.called.push(format!("{} {}", victim.argv.join(" "), victim.cwd.display()));
        killed.shims.extend(held.filter_map(|process| process.env.get("QCTL_ATTEMPT").cloned()));
    }
    killed.directly.extend(victim.env.get("QCTL_ATTEMPT").filter(|_| *kind == "work").cloned());
    killed.shims.extend(victim.env.get("QCTL_ATTEMPT").filter(|_| *kind == "shim").cloned());
    victim.kill9();
    *killed.count.entry(kind).or_default() += 1;
}

fn kind_of(process: &Process) -> Option<&'static str> {
    match process.program() {
        "qctl-controller" => Some("controller"),
        "qctl-agent" => Some("agent"),
        "qctl-shim" => Some("shim"),
        _ => process.env.contains_key("QCTL_ATTEMPT").then_some("work"),
    }
}

/// How the job ended, by the exit code of `qctl wait`.
fn waits(lab: &Lab, job: &Queued) -> i32 {
    let begun = Instant::now();
    loop {
        let said = lab.qctl_for(Duration::from_secs(300), ["wait", &job.id]);
        if ![1, 6].contains(&said.code) || begun.elapsed() > Duration::from_secs(300) {
            return said.code;
        }
    }
}

/// The history has no gap, keeps what was shown, and its last word is how the job ended.
fn events_are_whole(events: &[Event], shown: &[Event], told: &Value) {
    assert_eq!(events.get(..shown.len()), Some(shown), "every event, as it was shown");
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..).take(seqs.len()).collect::<Vec<_>>());
    let attempts = |kind: &str| events.iter().filter(|event| event.kind == kind).count();
    let history = tasks(told).into_iter().flat_map(|(_, _, task)| task["history"].as_array().unwrap().clone());
    let failed = history.filter(|past| past["outcome"] == "failed").count();
    assert_eq!(attempts("attempt-failed"), failed, "each failed attempt is told once: {events:#?}\n{told:#}");
}

/// Tasks of a described job: stage, index, task.
fn tasks(told: &Value) -> Vec<(String, usize, Value)> {
    let stages = told["stages"].as_array().unwrap().iter();
    let tasks = stages.flat_map(|stage| {
        let name = stage["name"].as_str().unwrap().to_owned();
        let tasks = stage["tasks"].as_array().cloned().unwrap_or_default();
        tasks.into_iter().enumerate().map(move |(index, task)| (name.clone(), index, task))
    });
    tasks.collect()
}

/// At most one attempt of a task succeeded, and it is the last one; what failed did so by a kill or by its own exit.
fn tasks_are_true(told: &Value, killed: &Killed) {
    let job = told["id"].as_str().unwrap();
    for (stage, index, task) in tasks(told) {
        let history = task["history"].as_array().unwrap();
        let numbers: Vec<u64> = history.iter().map(|past| past["number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..).take(numbers.len()).collect::<Vec<_>>(), "{task:#}");
        let good = history.iter().filter(|past| past["outcome"] == "succeeded").count();
        assert!(good <= 1, "{task:#}");
        assert_eq!(good == 1, history.last().is_some_and(|past| past["outcome"] == "succeeded"), "{task:#}");
        for past in history.iter().filter(|past| past["outcome"] == "failed") {
            let attempt = format!("{job}.{stage}.{index}.{}", past["number"]);
            let failure = &past["failure"];
            let own = failure["cause"] == "exit" && failure["code"] == 3;
            let own = own || told["name"].as_str().unwrap().starts_with("second") && past["number"] == 1;
            assert!(own || killed.any(&attempt), "`{attempt}` had no reason to fail: {failure:#}");
            // In a gang a peer may be seen to die first, while the agent beside the victim is down.
            let alone = stage == "work" && killed.directly.contains(&attempt) && !killed.shim(&attempt);
            if alone && !own {
                assert_eq!(
                    (&failure["cause"], &failure["code"]),
                    (&json!("signal"), &json!(9)),
                    "{attempt}: {failure:#}"
                );
            }
        }
    }
}

/// Each task's accepted attempt left its result once; another's is there only if its process was killed.
fn results_are_whole(lab: &Lab, told: &Value, killed: &Killed) {
    let (job, name) = (told["id"].as_str().unwrap(), told["name"].as_str().unwrap());
    let text = fs::read_to_string(lab.work().join("done").join(name)).unwrap();
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines() {
        *found.entry(line).or_default() += 1;
    }
    for (stage, index, task) in tasks(told) {
        let history = task["history"].as_array().unwrap();
        let accepted = format!("{job}.{stage}.{index}.{}", history.len());
        assert_eq!(found.remove(accepted.as_str()), Some(1), "the result of `{accepted}`: {text}\n{task:#}");
    }
    let strangers: Vec<&&str> = found.keys().filter(|attempt| !killed.any(attempt)).collect();
    assert!(strangers.is_empty(), "results of attempts that nobody disturbed and nobody accepted: {strangers:?}");
}

/// Engines that were killed and tried again wrote the same bytes each time.
fn engines_agree(lab: &Lab, all: &[Queued]) {
    let mut tokens = stories::input::tokens(&lab.work().join("text.jsonl"));
    tokens.extend(stories::input::tokens(&lab.work().join("more.jsonl")));
    let mut first: Option<Vec<Vec<u8>>> = None;
    for job in all.iter().filter(|job| job.name.starts_with("engines")) {
        let directory = lab.work().join(&job.name);
        let merged = fs::read(directory.join("text_text_document.bin")).unwrap();
        assert!(merged == tokens, "`{}`: the tokens in the input's order", job.name);
        let ranks = ["mp_rank_00_000", "mp_rank_00_001", "mp_rank_01_000", "mp_rank_01_001"];
        let shards = ranks.map(|rank| directory.join("mcore/iter_0000001").join(rank).join("model_optim_rng.pt"));
        let sizes: Vec<Vec<u8>> = shards.iter().map(|shard| fs::read(shard).unwrap()).collect();
        match &first {
            Some(first) => assert!(*first == sizes, "`{}`: the same shards as of the first job", job.name),
            None => first = Some(sizes),
        }
    }
}
