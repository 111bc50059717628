//! Checkpoints of a job: described, read to the last byte, and copied.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use stories::lab::Lab;
use stories::pipeline;

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
    let cut = lab.qctl(["ckpt", "verify", "saved"]).code(1);
    assert!(cut.stderr.contains("not as the controller knows them"), "{cut}");
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
