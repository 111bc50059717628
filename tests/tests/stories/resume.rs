//! What a restart of training goes on from, and with which words.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use stories::job::{iterations, stage};
use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;
use stories::process::Process;

const SOON: Duration = Duration::from_secs(60);

/// How a policy rewrites the first start's words, and what that comes to.
struct Policy {
    name: &'static str,
    optimizer: bool,
    goes_on_at: u64,
    optimizer_said: &'static str,
    rewritten: fn(&str) -> Vec<String>,
}

const POLICIES: [Policy; 3] = [
    Policy {
        name: "exact",
        optimizer: true,
        goes_on_at: 11,
        optimizer_said: "stand-in: the optimizer goes on",
        rewritten: |words| words_of(&words.replace("./base", "./exact").replace(TUTORIAL, ""), "--ckpt-step 10"),
    },
    Policy {
        name: "weights",
        optimizer: false,
        goes_on_at: 11,
        optimizer_said: "stand-in: the optimizer begins afresh",
        rewritten: |words| words_of(&words.replace("./base", "./weights").replace(" --finetune", ""), "--ckpt-step 10"),
    },
    Policy {
        name: "never",
        optimizer: false,
        goes_on_at: 1,
        optimizer_said: "stand-in: the optimizer begins afresh",
        rewritten: |words| words_of(words, ""),
    },
];

/// How the tutorial loads converted weights.
const TUTORIAL: &str = " --finetune --no-load-optim --no-load-rng";

fn words_of(words: &str, more: &str) -> Vec<String> {
    words.split(' ').chain(more.split(' ')).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The ranks of an attempt, once all four are there.
fn ranks(lab: &Lab, number: &str) -> Vec<Process> {
    until(&format!("the ranks of attempt {number} are up"), SOON, || {
        let mut ranks = lab.ranks();
        ranks.retain(|rank| {
            rank.env.get("QCTL_ATTEMPT_NUMBER").is_some_and(|of| of == number)
                && rank.argv.iter().any(|word| word == "--save-interval")
        });
        (ranks.len() == 4).then_some(ranks)
    })
}

fn behind_the_script(argv: &[String]) -> Vec<String> {
    let script = argv.iter().position(|word| word.ends_with("pretrain_gpt.py")).unwrap();
    argv[script + 1..].to_vec()
}

/// The words behind the script's name; the same for every rank.
fn words(ranks: &[Process]) -> Vec<String> {
    let first = behind_the_script(&ranks[0].argv);
    assert!(ranks.iter().all(|rank| behind_the_script(&rank.argv) == first), "{ranks:#?}");
    first
}

fn checkpoints(lab: &Lab, job: &str) -> Value {
    serde_json::from_str(&lab.qctl(["ckpt", "ls", job, "-o", "json"]).ok()).unwrap()
}

#[test]
fn a_torn_checkpoint_is_passed_over_and_each_policy_goes_on_in_its_own_words() {
    let lab = Lab::start();
    let mut base = pipeline::training(&lab, "base", 4, 10, &[]);
    base["stages"]["train"]["save_dir"] = json!("./base");
    lab.succeeds(&lab.accepted(&base), SOON);

    for policy in &POLICIES {
        // The ranks of the second attempt go on until they have been looked at.
        let more = ["--save-interval", "10", "--fail", "2:20:torn"];
        let mut spec = pipeline::training(&lab, policy.name, 1_000_000, 20, &more);
        let save_dir = format!("./{}", policy.name);
        let train = &mut spec["stages"]["train"];
        (train["load_dir"], train["save_dir"]) = (json!("./base"), json!(save_dir));
        (train["resume"], train["checkpoint_optimizer"]) = (json!(policy.name), json!(policy.optimizer));
        let args = train["args"].as_array_mut().unwrap();
        args.extend(TUTORIAL.split_whitespace().map(|word| json!(word)));
        let given = args.iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>().join(" ");
        let first = format!("--load ./base --save {save_dir} {given}");
        let file = lab.write(&spec);
        let plan: Value = serde_json::from_str(&lab.qctl(["plan", "-f", &file, "-o", "json"]).ok()).unwrap();
        let commands = stage(&plan, "train")["tasks"][0]["commands"].as_array().unwrap();
        let planned = commands.iter().find(|one| one["process"] == "worker").unwrap()["argv"].clone();
        let planned: Vec<String> = serde_json::from_value(planned).unwrap();
        assert_eq!(behind_the_script(&planned), words_of(&first, ""), "{}", policy.name);
        let job = lab.accepted(&spec);
        assert_eq!(words(&ranks(&lab, "2")), (policy.rewritten)(&first), "{}", policy.name);
        let again =
            until("the second attempt trains", SOON, || iterations(&lab.log(&job, "train", 3)).first().copied());
        assert_eq!(again, policy.goes_on_at, "{}", policy.name);
        // Each rank's lines come by themselves: the last rank's may be there before those of the first.
        until("the first rank says what it loads", SOON, || {
            lab.log(&job, "train", 0).lines().any(|line| line == policy.optimizer_said).then_some(())
        });

        let events = lab.events(&job);
        let told = |kind: &str, said: &[&str]| {
            events.iter().any(|event| event.kind == kind && said.iter().all(|word| event.message.contains(word)))
        };
        assert!(told("checkpoint-completed", &["iteration 10 "]), "{events:#?}");
        assert!(!told("checkpoint-completed", &["iteration 20 "]), "{events:#?}");
        assert!(told("warning", &["of iteration 20 ", "incomplete or superseded", &save_dir[2..]]), "{events:#?}");
        let torn = lab.work().join(&save_dir).join("superseded");
        assert_eq!(fs::read_dir(&torn).unwrap().count(), 1, "the torn one is kept, out of the way");
        let placed: Vec<_> = events.iter().filter(|event| event.kind == "attempt-placed").collect();
        assert_eq!(placed.len(), 2, "{placed:#?}");
        assert_eq!(placed[1].message.ends_with(", from iteration 10"), policy.goes_on_at == 11, "{placed:#?}");
        let _ = lab.qctl(["cancel", &job, "--force"]).ok();
        assert_eq!(lab.wait(&job, SOON), 4);
    }
}

#[test]
fn a_finished_training_is_restarted_from_the_checkpoint_that_is_named() {
    let lab = Lab::start();
    let mut spec = pipeline::training(&lab, "back", 12, 10, &["--save-interval", "4"]);
    spec["stages"]["train"]["checkpoint_optimizer"] = json!(true);
    let job = lab.accepted(&spec);
    lab.succeeds(&job, SOON);
    let nothing = lab.qctl(["restart", &job]).ok();
    assert!(nothing.contains("has succeeded") && nothing.contains("--from-stage"), "{nothing}");
    let wrong = lab.qctl(["restart", &job, "--from-stage", "train", "--from-checkpoint", "5"]).code(5);
    assert!(wrong.stderr.contains("no complete checkpoint of iteration 5"), "{wrong}");
    assert!(wrong.stderr.contains("newest first: 12, 8, 4"), "{wrong}");

    let again =
        ["restart", &job, "--from-stage", "train", "--from-checkpoint", "8", "--id", "key", "--reason", "spike"];
    let said = lab.qctl(again).ok();
    assert!(said.contains("train again"), "{said}");
    lab.succeeds(&job, SOON);
    assert_eq!(iterations(&lab.log(&job, "train", 3)), (9..=12).collect::<Vec<_>>());
    let repeated = lab.qctl(again).ok();
    assert!(repeated.contains("was restarted with this key before"), "{repeated}");
    assert_eq!(lab.phase(&job), "succeeded", "a repeated restart changes nothing");
    let told = lab.describe(&job);
    assert_eq!(stage(&told, "train")["tasks"][0]["history"].as_array().unwrap().len(), 2, "{told}");
    let events = lab.events(&job);
    let restarted: Vec<_> = events.iter().filter(|event| event.kind == "restarted").collect();
    assert_eq!(restarted.len(), 1, "{events:#?}");
    assert!(restarted[0].message.contains("from iteration 8") && restarted[0].message.ends_with(": spike"));
    let listed = checkpoints(&lab, &job);
    let complete = |one: &Value| one["complete"].as_bool().unwrap().then(|| one["iteration"].as_u64().unwrap());
    let complete: Vec<u64> = listed["checkpoints"].as_array().unwrap().iter().filter_map(complete).collect();
    assert_eq!(complete, [4, 8, 12], "{listed}");
}

#[test]
fn a_running_job_is_restarted_only_where_that_is_said() {
    let lab = Lab::start();
    let spec = pipeline::training(&lab, "running", 1_000_000, 20, &["--save-interval", "5"]);
    let job = lab.accepted(&spec);
    let first = ranks(&lab, "1");
    lab.reaches(&job, 6);
    let refused = lab.qctl(["restart", &job]).code(1);
    assert!(refused.stderr.contains("is running") && refused.stderr.contains("may be stopped"), "{refused}");
    until("a checkpoint is complete", SOON, || {
        lab.events(&job).iter().any(|event| event.kind == "checkpoint-completed").then_some(())
    });
    let words = ["restart", &job, "--stop-running", "--grace", "0s", "--reason", "new driver"];
    let _ = lab.qctl(words).ok();
    let second = ranks(&lab, "2");
    assert!(!first.iter().any(Process::lives), "two attempts never write one directory");
    let events = lab.events(&job);
    let requeued = events.iter().find(|event| event.kind == "attempt-requeued").unwrap();
    assert!(requeued.message.contains("to run again"), "{}", requeued.message);
    let explained = lab.qctl(["explain", &job]).ok();
    assert!(explained.contains("running, ") && explained.contains("runs on"), "{explained}");
    let step = second[0].argv.iter().skip_while(|word| *word != "--ckpt-step").nth(1).unwrap();
    let from: u64 = step.parse().unwrap();
    assert!(from >= 5 && from.is_multiple_of(5), "{from}");
    assert!(events.iter().all(|event| event.kind != "task-retried"), "it counts as no failure: {events:#?}");
    let _ = lab.qctl(["cancel", &job, "--force"]).ok();
    assert_eq!(lab.wait(&job, SOON), 4);
}
