//! From the call to the first instruction of the task.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use crate::lab::{LIMIT, Lab};
use crate::verdict::{Verdict, quantile, tell};
use crate::work;

/// Jobs of one task each, one after the other.
const JOBS: usize = 200;
/// Jobs before that, to warm up what is only slow once.
const WARM: usize = 5;

pub(crate) async fn measure(lab: &mut Lab) -> anyhow::Result<Vec<Verdict>> {
    let own = std::env::current_exe()?;
    let dir = lab.work().join("starts");
    fs::create_dir(&dir)?;
    let mut taken = Vec::with_capacity(JOBS);
    for turn in 0..WARM + JOBS {
        let spec = lab.spec(&json!({"run": {"argv": [own, work::STAMP, dir]}}));
        let begun = work::now_ns();
        let job = lab.submit(&spec).await?;
        let path = dir.join(format!("{job}.work.0.1"));
        let waiting = Instant::now();
        while !path.exists() {
            ensure!(waiting.elapsed() < LIMIT, "task of job {job} did not start");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let started: u64 = fs::read_to_string(&path)?.parse()?;
        if turn >= WARM {
            taken.push(Duration::from_nanos(started.saturating_sub(begun)).as_secs_f64() * 1e3);
        }
    }
    taken.sort_by(f64::total_cmp);
    tell(&format!("submit to first instruction: median {:.1} ms over {JOBS} jobs", quantile(&taken, 0.5)));
    Ok(vec![Verdict::below("submit to first instruction, p99", quantile(&taken, 0.99), 100.0, " ms")])
}
