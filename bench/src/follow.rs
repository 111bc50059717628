//! From a rank's line to the reader's stream.

use std::time::Duration;

use anyhow::Context as _;
use proto::v1::LogsRequest;
use serde_json::json;

use crate::lab::{LIMIT, Lab};
use crate::verdict::{Verdict, quantile, tell};
use crate::work;

const LINES: usize = 200;
/// Lines before those, while reader and writer come together.
const WARM: usize = 20;

pub(crate) async fn measure(lab: &mut Lab) -> anyhow::Result<Vec<Verdict>> {
    let own = std::env::current_exe()?;
    let spec = lab.spec(&json!({"run": {"argv": [own, work::TALK, (WARM + LINES).to_string()]}}));
    let job = lab.submit(&spec).await?;
    let request = LogsRequest { job, follow: true, ..LogsRequest::default() };
    let mut batches = lab.jobs.logs(request).await?.into_inner();
    let mut taken = Vec::new();
    let mut rest = Vec::new();
    while let Some(batch) = tokio::time::timeout(LIMIT, batches.message()).await.context("no more lines come")?? {
        let now = work::now_ns();
        rest.extend_from_slice(&batch.data);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let written: u64 = std::str::from_utf8(&line)?.trim().parse()?;
            taken.push(Duration::from_nanos(now.saturating_sub(written)).as_secs_f64() * 1e3);
        }
    }
    anyhow::ensure!(taken.len() == WARM + LINES, "{} lines came", taken.len());
    let mut taken = taken.split_off(WARM);
    taken.sort_by(f64::total_cmp);
    tell(&format!("line to reader: median {:.1} ms over {LINES} lines", quantile(&taken, 0.5)));
    Ok(vec![Verdict::below("line to reader, p99", quantile(&taken, 0.99), 200.0, " ms")])
}
