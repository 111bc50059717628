//! What is done with a checkpoint that lies on this node: read to its last byte, or removed.

mod removal;
mod turns;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use proto::v1::{CheckpointAnswer, CheckpointFault, CheckpointOrder, CheckpointShard, checkpoint_order::What};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

pub(crate) use self::turns::Turns;

use self::removal::{Refused, remove};
use crate::launch::absolute;
use crate::watch::evidence::clean;

/// Largest inspection that is read.
const LARGEST: u64 = 16 << 20;
/// Most faults that are told of one iteration.
const MOST_FAULTS: usize = 64;

/// Does what the order says; every fault is a sentence of the answer.
async fn answer(bin_dir: &Path, node: &str, order: CheckpointOrder) -> CheckpointAnswer {
    let (id, workdir) = (order.id, PathBuf::from(&order.workdir));
    let save_dir = absolute(&workdir, &order.save_dir);
    let fault = |path: &Path, message: String, hint: &str| CheckpointFault {
        node: node.to_owned(),
        path: path.to_string_lossy().into_owned(),
        message,
        hint: hint.to_owned(),
        unread: false,
    };
    if !workdir.is_absolute() || order.save_dir.is_empty() {
        let message = "the job names no directory of checkpoints".to_owned();
        let faults = vec![CheckpointFault { unread: true, ..fault(&save_dir, message, "") }];
        return CheckpointAnswer { id, faults, bytes: 0 };
    }
    let (mut faults, bytes) = match &order.what {
        Some(What::Verify(_)) => verify(bin_dir, &save_dir, &order, &fault).await,
        Some(What::Remove(wish)) => {
            let (iteration, next, dir) = (order.iteration, wish.tracker, save_dir.clone());
            let done = tokio::task::spawn_blocking(move || remove(&dir, iteration, next)).await;
            match done.unwrap_or_else(|failed| Err(io::Error::other(failed).into())) {
                Ok(bytes) => (Vec::new(), bytes),
                Err(Refused { reason, hint }) => {
                    let path = iteration_dir(&save_dir, order.iteration);
                    let message = format!("`{}` could not be removed: {reason}", path.display());
                    (vec![fault(&path, message, &hint)], 0)
                }
            }
        }
        None => {
            let message = "this agent does not know what is asked of it".to_owned();
            (vec![CheckpointFault { unread: true, ..fault(&save_dir, message, "update it") }], 0)
        }
    };
    faults.truncate(MOST_FAULTS);
    CheckpointAnswer { id, faults, bytes }
}

/// What `qctl-convert inspect` prints, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Inspection {
    missing: Vec<String>,
    problems: Vec<Problem>,
    shards: Vec<Found>,
}

#[derive(Debug, Deserialize)]
struct Problem {
    path: PathBuf,
    message: String,
    hint: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Found {
    tp: u32,
    pp: u32,
    path: PathBuf,
    size: u64,
}

async fn verify(
    bin_dir: &Path,
    save_dir: &Path,
    order: &CheckpointOrder,
    fault: &impl Fn(&Path, String, &str) -> CheckpointFault,
) -> (Vec<CheckpointFault>, u64) {
    let dir = iteration_dir(save_dir, order.iteration);
    let found = match inspect(bin_dir, save_dir, order).await {
        Ok(found) => found,
        Err(Failed { message, hint, unread }) => {
            return (vec![CheckpointFault { unread, ..fault(&dir, message, &hint) }], 0);
        }
    };
    let mut faults: Vec<CheckpointFault> = found
        .problems
        .iter()
        .map(|problem| fault(&problem.path, clean(&problem.message), &clean(problem.hint.as_deref().unwrap_or(""))))
        .collect();
    let hint = "bring it back from where it was copied to, or remove the checkpoint";
    for missing in &found.missing {
        faults.push(fault(&dir, format!("`{}` lacks the shard `{missing}`", dir.display()), hint));
    }
    let sizes: BTreeMap<(u32, u32), &Found> = found.shards.iter().map(|shard| ((shard.tp, shard.pp), shard)).collect();
    for CheckpointShard { tp, pp, size, .. } in &order.shards {
        match sizes.get(&(*tp, *pp)) {
            Some(shard) if shard.size != *size => {
                let path = shard.path.display();
                let message = format!("`{path}` has {} bytes; it had {size} when it was written", shard.size);
                faults.push(fault(&shard.path, message, hint));
            }
            Some(_) => {}
            None if found.missing.is_empty() => {
                let message = format!("`{}` lacks the shard of TP {tp}, PP {pp}", dir.display());
                faults.push(fault(&dir, message, hint));
            }
            None => {}
        }
    }
    (faults, found.shards.iter().map(|shard| shard.size).sum())
}

/// Why there is no inspection.
struct Failed {
    message: String,
    hint: String,
    /// Whether that says nothing about the files.
    unread: bool,
}

/// Lets the engine read this node's shards; behind whatever else runs here.
async fn inspect(bin_dir: &Path, save_dir: &Path, order: &CheckpointOrder) -> Result<Inspection, Failed> {
    let program = bin_dir.join("qctl-convert");
    let mut command = Command::new("nice");
    command.arg("-n").arg("10").arg(&program).arg("inspect").arg("--verify").arg("--mcore-dir").arg(save_dir);
    command.arg("--iteration").arg(order.iteration.to_string());
    for shard in &order.shards {
        command.arg("--shard").arg(format!("{},{}", shard.tp, shard.pp));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let failed = |error: io::Error| {
        let message = format!("`{}` could not be run: {error}", program.display());
        Failed { message, hint: String::new(), unread: true }
    };
    let mut child = command.spawn().map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut said, mut complaint) = (Vec::new(), Vec::new());
    let out = async {
        match stdout {
            Some(pipe) => pipe.take(LARGEST).read_to_end(&mut said).await.map(drop),
            None => Ok(()),
        }
    };
    let err = async {
        match stderr {
            Some(pipe) => pipe.take(64 << 10).read_to_end(&mut complaint).await.map(drop),
            None => Ok(()),
        }
    };
    let (out, err) = tokio::join!(out, err);
    out.and(err).map_err(failed)?;
    let status = child.wait().await.map_err(failed)?;
    if status.success()
        && let Ok(inspection) = serde_json::from_slice(&said)
    {
        return Ok(inspection);
    }
    let complaint = String::from_utf8_lossy(&complaint);
    let find = |start: &str| complaint.lines().find_map(|line| line.strip_prefix(start)).map(clean);
    let last = || complaint.lines().rev().find(|line| !line.trim().is_empty()).map(clean);
    let message = find("error: ").or_else(last).unwrap_or_else(|| format!("`{}` failed: {status}", program.display()));
    Err(Failed { message, hint: find("hint: ").unwrap_or_default(), unread: status.code() != Some(1) })
}

fn iteration_dir(save_dir: &Path, iteration: u64) -> PathBuf {
    save_dir.join(format!("iter_{iteration:07}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use proto::v1::{RemoveIteration, VerifyShards};

    fn engine(dir: &Path, script: &str) {
        let path = dir.join("qctl-convert");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn order(dir: &Path, what: What) -> CheckpointOrder {
        let shard = |tp, size| CheckpointShard { iteration: 5, tp, pp: 0, path: String::new(), size };
        CheckpointOrder {
            id: 3,
            workdir: dir.to_string_lossy().into_owned(),
            save_dir: "ckpt".into(),
            iteration: 5,
            shards: vec![shard(0, 100), shard(1, 100)],
            what: Some(what),
            ..CheckpointOrder::default()
        }
    }

    #[tokio::test]
    async fn each_fault_has_a_sentence_and_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let verify = || order(dir, What::Verify(VerifyShards {}));
        let shards = r#"[{"tp":0,"pp":0,"path":"/a","size":100},{"tp":1,"pp":0,"path":"/b","size":SIZE}]"#;
        let said = |size: &str, problems: &str| {
            let shards = shards.replace("SIZE", size);
            engine(dir, &format!("echo '{{\"missing\":[],\"problems\":[{problems}],\"shards\":{shards}}}'"));
        };
        said("100", "");
        let whole = answer(dir, "n1", verify()).await;
        assert_eq!((whole.id, whole.bytes, whole.faults), (3, 200, vec![]));
        said("90", r#"{"path":"/a","message":"`/a` is damaged","hint":"copy it"}"#);
        let faults = answer(dir, "n1", verify()).await.faults;
        let told: Vec<(&str, &str)> = faults.iter().map(|one| (one.path.as_str(), one.message.as_str())).collect();
        assert_eq!(told[0], ("/a", "`/a` is damaged"));
        assert_eq!(told[1], ("/b", "`/b` has 90 bytes; it had 100 when it was written"));
        assert!(faults.iter().all(|one| one.node == "n1" && !one.hint.is_empty()));
        engine(dir, "echo 'error: holds no iteration 5' >&2; echo 'hint: choose' >&2; exit 1");
        let faults = answer(dir, "n1", verify()).await.faults;
        assert_eq!((faults[0].message.as_str(), faults[0].hint.as_str()), ("holds no iteration 5", "choose"));
        assert!(!faults[0].unread);
        fs::remove_file(dir.join("qctl-convert")).unwrap();
        let faults = answer(dir, "n1", verify()).await.faults;
        assert!(faults.len() == 1 && faults[0].unread, "without its engine a node knows nothing: {faults:?}");
    }

    #[tokio::test]
    async fn an_order_without_a_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let wish = What::Remove(RemoveIteration { tracker: None });
        let nowhere = CheckpointOrder { save_dir: String::new(), ..order(dir.path(), wish) };
        assert_eq!(answer(dir.path(), "n1", nowhere).await.faults.len(), 1);
        let relative = CheckpointOrder { workdir: "here".into(), ..order(dir.path(), wish) };
        assert_eq!(answer(dir.path(), "n1", relative).await.faults.len(), 1);
    }
}
