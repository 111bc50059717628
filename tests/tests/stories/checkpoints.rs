//! Checkpoints of a job: described, read to the last byte, and copied.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;

const SHARD: &str = "mp_rank_01_001/model_optim_rng.pt";
const TRACKER: &str = "latest_checkpointed_iteration.txt";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_job_s_checkpoint_is_described_verified_and_pulled() {
    let lab = Lab::start();
    let job = lab.accepted(&pipeline::training(&lab, "saved", 4, 20, &[]));
    lab.succeeds(&job, Duration::from_secs(60));

    let described = json(&lab.qctl(["ckpt", "describe", "saved", "-o", "json"]).ok());
    let (known, held) = (&described["checkpoint"], &described["contents"]);
    assert_eq!((&known["iteration"], &known["complete"], &held["iteration"]), (&4.into(), &true.into(), &4.into()));
    assert_eq!((&held["tp"], &held["pp"], &held["complete"]), (&2.into(), &2.into(), &true.into()));
    assert_eq!((&held["bytes"], described["nodes"].as_array().unwrap().len()), (&known["bytes"], 2));
    let directory = known["directory"].as_str().unwrap().to_owned();
    let save_dir = Path::new(&directory).parent().unwrap().to_str().unwrap().to_owned();
    let shown = lab.qctl(["ckpt", "describe", "saved", "--iteration", "2", "--tp", "1", "--pp", "2"]).ok();
    assert!(shown.contains("loads as    TP 1 x PP 2: no, it is cut for TP 2 x PP 2"), "{shown}");
    let missing = lab.qctl(["ckpt", "describe", "saved", "--iteration", "3"]).code(5);
    assert!(missing.stderr.contains("no checkpoint of iteration 3") && missing.stderr.contains("4, 2"), "{missing}");

    assert_eq!(lab.qctl(["ckpt", "verify", "saved", "-o", "name"]).ok().trim(), directory);
    let (kept, own) = (lab.work().join("kept"), lab.work());
    let kept = kept.to_str().unwrap();
    let pulled = json(&lab.qctl(["ckpt", "pull", "saved", kept, "-o", "json"]).ok());
    assert_eq!((&pulled["iteration"], &pulled["already"], &pulled["shards"]), (&4.into(), &false.into(), &4.into()));
    assert_eq!(files(Path::new(kept)), ["iter_0000004", TRACKER]);
    assert_eq!(fs::read_to_string(Path::new(kept).join(TRACKER)).unwrap(), "4");
    let (from, to) = (Path::new(&directory).join(SHARD), Path::new(kept).join("iter_0000004").join(SHARD));
    assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
    let again = json(&lab.qctl(["ckpt", "pull", "saved", kept, "-o", "json"]).ok());
    assert_eq!(again["already"], true);
    let _ = lab.qctl(["ckpt", "pull", "saved", kept, "--iteration", "2"]).ok();
    assert_eq!(fs::read_to_string(Path::new(kept).join(TRACKER)).unwrap(), "4", "a later one is there");
    let home = lab.qctl(["ckpt", "pull", "saved", &save_dir]).code(2);
    assert!(home.stderr.contains("where the job itself keeps its checkpoints"), "{home}");

    let mut broken = fs::read(&to).unwrap();
    let middle = broken.len() / 4;
    broken[middle] ^= 0x10;
    fs::write(&to, &broken).unwrap();
    let other = lab.qctl(["ckpt", "pull", "saved", kept]).code(1);
    assert!(other.stderr.contains("is another checkpoint than the job's"), "{other}");
    fs::write(&from, &broken[..middle]).unwrap();
    let elsewhere = own.join("elsewhere");
    let refused = lab.qctl(["ckpt", "pull", "saved", elsewhere.to_str().unwrap()]).code(1);
    assert!(refused.stderr.contains("`node-1`, `node-2`"), "{refused}");
    assert!(!elsewhere.exists(), "what cannot be fetched leaves nothing");
}

#[test]
fn a_directory_needs_no_controller() {
    let lab = Lab::start();
    let job = lab.accepted(&pipeline::training(&lab, "saved", 2, 20, &[]));
    lab.succeeds(&job, Duration::from_secs(60));
    let directory = lab.qctl(["ckpt", "describe", "saved", "-o", "name"]).ok();
    let directory = directory.trim();
    let save_dir = Path::new(directory).parent().unwrap().to_str().unwrap();
    lab.stop();

    assert!(lab.qctl(["ckpt", "verify", save_dir]).ok().contains("yes"));
    assert_eq!(lab.qctl(["ckpt", "describe", directory, "-o", "name"]).ok().trim(), directory);
    let file = Path::new(directory).join(SHARD);
    let whole = fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    let middle = whole.len() / 4;
    damaged[middle] ^= 1;
    fs::write(&file, damaged).unwrap();
    let broken = lab.qctl(["ckpt", "verify", save_dir]).code(1);
    assert!(broken.stderr.contains(SHARD) && broken.stderr.contains("checksum"), "{broken}");
    fs::remove_file(&file).unwrap();
    let missing = lab.qctl(["ckpt", "verify", save_dir]).code(1);
    assert!(missing.stderr.contains("lacks the shard `mp_rank_01_001`"), "{missing}");
    let shown = lab.qctl(["ckpt", "describe", save_dir]).ok();
    assert!(shown.contains("whole       no\nmissing     mp_rank_01_001"), "{shown}");
    let nothing = lab.qctl(["ckpt", "describe", "./nowhere"]).code(1);
    assert!(nothing.stderr.contains("./nowhere") && nothing.stderr.contains("hint: "), "{nothing}");
}

/// The iterations of a listing that `holds` is true of.
fn listed(lab: &Lab, job: &str, holds: &str) -> Vec<u64> {
    let all = json(&lab.qctl(["ckpt", "ls", job, "-o", "json"]).ok());
    let all = all["checkpoints"].as_array().unwrap();
    all.iter().filter(|one| one[holds] == true).map(|one| one["iteration"].as_u64().unwrap()).collect()
}

fn kinds(lab: &Lab, job: &str) -> Vec<String> {
    lab.events(job).into_iter().map(|event| event.kind).filter(|kind| kind.starts_with("checkpoint-")).collect()
}

#[test]
fn agents_read_a_job_s_checkpoint_and_a_broken_one_is_not_gone_on_from() {
    let lab = Lab::start();
    let mut spec = pipeline::training(&lab, "read", 12, 10, &["--save-interval", "4"]);
    spec["stages"]["train"]["checkpoint_optimizer"] = true.into();
    let job = lab.accepted(&spec);
    lab.succeeds(&job, Duration::from_secs(60));
    let whole = lab.qctl(["ckpt", "verify", &job, "-o", "json"]).ok();
    let told = json(&whole);
    assert_eq!(
        (&told["whole"], &told["faults"], &told["contents"]),
        (&true.into(), &Value::Array(vec![]), &Value::Null)
    );
    assert_eq!((&told["checkpoint"]["iteration"], told["nodes"].as_array().unwrap().len()), (&12.into(), 2));
    assert_eq!(told["bytes"], told["checkpoint"]["bytes"]);
    assert_eq!(kinds(&lab, &job).last().unwrap(), "checkpoint-verified");

    let directory = told["checkpoint"]["directory"].as_str().unwrap();
    let file = lab.work().join(directory).join(SHARD);
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 4;
    bad[middle] ^= 0x20;
    fs::write(&file, bad).unwrap();
    let broken = lab.qctl(["ckpt", "verify", &job, "12"]).code(1);
    assert!(broken.stderr.contains(SHARD) && broken.stderr.contains("checksum"), "{broken}");
    assert!(broken.stderr.contains("node node-") && broken.stderr.contains("iteration 12 is not whole"), "{broken}");
    assert_eq!((listed(&lab, &job, "broken"), listed(&lab, &job, "complete")), (vec![12], vec![4, 8]));
    let event = lab.events(&job).pop().unwrap();
    assert_eq!(event.kind, "checkpoint-broken");
    assert!(event.message.contains("nothing goes on from it") && event.evidence[0].contains(SHARD), "{event:?}");
    let refused = lab.qctl(["ckpt", "pin", &job, "12"]).code(1);
    assert!(refused.stderr.contains("is broken"), "{refused}");
    let refused = lab.qctl(["restart", &job, "--from-stage", "train", "--from-checkpoint", "12"]).code(5);
    assert!(refused.stderr.contains("newest first: 8, 4"), "{refused}");

    fs::write(&file, &good[..good.len() - 1]).unwrap();
    let cut = lab.qctl(["ckpt", "verify", &job, "--iteration", "12"]).code(1);
    assert!(cut.stderr.contains("it had") && cut.stderr.contains("when it was written"), "{cut}");
    fs::write(&file, good).unwrap();
    let _ = lab.qctl(["ckpt", "verify", &job, "12"]).ok();
    assert_eq!(listed(&lab, &job, "complete"), [4, 8, 12], "mended, it may be gone on from again");
    let missing = lab.qctl(["ckpt", "verify", &job, "5"]).code(5);
    assert!(missing.stderr.contains("no checkpoint of iteration 5"), "{missing}");
}

#[test]
fn a_checkpoint_is_kept_or_removed_and_the_tracker_stays_true() {
    let lab = Lab::start();
    let more = ["--save-interval", "4", "--exit-signal-handler"];
    let job = lab.accepted(&pipeline::training(&lab, "kept", 1_000_000, 30, &more));
    let complete = |least: usize| {
        until("checkpoints are complete", Duration::from_secs(60), || {
            Some(listed(&lab, &job, "complete")).filter(|all| all.len() >= least)
        })
    };
    complete(3);
    // What is the newest one may not be that any more when the request arrives: then one refusal is owed to a later one.
    until("the newest one of a running job is refused", Duration::from_secs(60), || {
        let newest = listed(&lab, &job, "complete").pop()?.to_string();
        let refused = lab.qctl(["ckpt", "rm", &job, &newest]);
        (refused.code == 1 && refused.stderr.contains("is the newest of a job that has not ended")).then_some(())
    });
    let _ = lab.qctl(["cancel", &job]).ok();
    assert_eq!(lab.wait(&job, Duration::from_secs(60)), 4);
    let all = listed(&lab, &job, "complete");
    let [first, second, newest] = [all[0], all[1], all[all.len() - 1]].map(|at| at.to_string());
    let save_dir = lab.work().join("checkpoints");
    let tracker = || fs::read_to_string(save_dir.join(TRACKER)).unwrap().trim().to_owned();
    assert_eq!(tracker(), newest);

    assert_eq!(lab.qctl(["ckpt", "pin", &job, &first]).ok().trim(), format!("{job} {first} pinned"));
    assert_eq!(lab.qctl(["ckpt", "pin", &job, &first]).ok().trim(), format!("{job} {first} unchanged"));
    assert_eq!(listed(&lab, &job, "pinned"), [all[0]]);
    for force in [&[][..], &["--force"]] {
        let refused = lab.qctl(["ckpt", "rm", &job, &first].into_iter().chain(force.iter().copied())).code(1);
        assert!(refused.stderr.contains("is pinned") && refused.stderr.contains("ckpt unpin"), "{refused}");
    }
    let removed = json(&lab.qctl(["ckpt", "rm", &job, &second, "-o", "json"]).ok());
    assert_eq!((&removed["outcome"], &removed["faults"]), (&"removed".into(), &Value::Array(vec![])));
    assert_eq!(removed["bytes"], removed["checkpoint"]["bytes"]);
    assert_eq!(tracker(), newest, "another one is named");
    let _ = lab.qctl(["ckpt", "rm", &job, &newest]).ok();
    let left = listed(&lab, &job, "complete");
    assert!(!left.contains(&all[1]) && !left.contains(all.last().unwrap()) && left.contains(&all[0]), "{left:?}");
    assert_eq!(tracker(), left.last().unwrap().to_string(), "it names the newest one that is left");
    let names = files(&save_dir);
    assert!(!names.contains(&format!("iter_{:07}", all[1])), "{names:?}");
    assert!(names.iter().all(|name| !name.starts_with('.')), "nothing half removed is left: {names:?}");
    let missing = lab.qctl(["ckpt", "rm", &job, &second]).code(5);
    assert!(missing.stderr.contains("no checkpoint of iteration"), "{missing}");
    assert_eq!(lab.qctl(["ckpt", "unpin", &job, &first]).ok().trim(), format!("{job} {first} unpinned"));
    let told = kinds(&lab, &job);
    let told: Vec<&str> = told.iter().map(String::as_str).filter(|kind| *kind != "checkpoint-completed").collect();
    let wanted = ["checkpoint-pinned", "checkpoint-removed", "checkpoint-removed", "checkpoint-unpinned"];
    assert_eq!(told, wanted);
}
