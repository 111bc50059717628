//! From a rank's death to the last rank of its gang that is told.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use crate::lab::{LIMIT, Lab};
use crate::verdict::{Verdict, quantile, tell};
use crate::work;

const RUNS: usize = 20;
const RANKS: usize = 64;

pub(crate) async fn measure(lab: &mut Lab) -> anyhow::Result<Vec<Verdict>> {
    let mut taken = Vec::with_capacity(RUNS);
    for run in 0..RUNS {
        let dir = lab.work().join(format!("gang-{run}"));
        taken.push(one(lab, &dir).await?);
    }
    taken.sort_by(f64::total_cmp);
    tell(&format!("death to last rank told: median {:.0} ms over {RUNS} gangs of {RANKS}", quantile(&taken, 0.5)));
    Ok(vec![Verdict::below("death to last rank told, p99", quantile(&taken, 0.99), 1000.0, " ms")])
}

/// Milliseconds from the death of one rank to the last other that was told.
async fn one(lab: &mut Lab, dir: &Path) -> anyhow::Result<f64> {
    fs::create_dir(dir)?;
    let script = dir.join(work::RANK);
    fs::write(&script, "")?;
    let own = std::env::current_exe()?;
    let mut spec = lab.spec(&json!({
        "script": script,
        "derive": false,
        "nodes": 2,
        "ranks_per_node": RANKS / 2,
        "scheduler": [own, work::SCHEDULER],
        "save_dir": dir.join("checkpoints"),
        "args": ["--micro-batch-size", "1", "--global-batch-size", RANKS.to_string(), "--train-iters", "1000"],
        "retries": 0,
    }));
    spec["parallel"] = json!({"tp": 1, "pp": 1});
    spec["runtime"]["python"] = json!(own);
    let stage = spec["stages"]["work"].take();
    spec["stages"] = json!({"train": stage});
    let job = lab.submit(&spec).await?;
    files(dir, "up-", RANKS).await?;
    fs::write(dir.join("die"), "")?;
    files(dir, "told-", RANKS - 1).await?;
    lab.ended(&job).await?;
    let died: u64 = fs::read_to_string(dir.join("died"))?.parse()?;
    let mut last = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("told-") {
            last = last.max(fs::read_to_string(entry.path())?.parse::<u64>()?);
        }
    }
    Ok(Duration::from_nanos(last.saturating_sub(died)).as_secs_f64() * 1e3)
}

/// Waits for `count` files whose names begin like this.
async fn files(dir: &Path, prefix: &str, count: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let names = fs::read_dir(dir)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let found = names.filter(|name| name.starts_with(prefix) && !name.ends_with(".part")).count();
        if found == count {
            return Ok(());
        }
        ensure!(begun.elapsed() < LIMIT, "{found} of {count} ranks wrote `{prefix}…`");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
