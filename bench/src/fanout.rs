//! From the call to the last rank of a large gang that is told to start.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proto::v1::CancelRequest;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Args;
use crate::sim::agent::{self, Nature, Tally};
use crate::sim::site::{Make, Site, submit};
use crate::tasks::reached;
use crate::verdict::{Verdict, quantile, tell};

const NODES: u32 = 125;
const RANKS_PER_NODE: u32 = 8;
const RUNS: usize = 11;

pub(crate) async fn measure(args: &Args) -> anyhow::Result<Vec<Verdict>> {
    let site = Site::start(args, Make::Embedded).await?;
    let (tally, stop) = (Arc::new(Tally::default()), CancellationToken::new());
    let mut agents = JoinSet::new();
    for at in 0..NODES {
        let node = format!("n{at:03}");
        let channel = runtime::channel(&site.addresses(), &site.certificates.node(&node)?)?;
        let offset = Duration::from_millis(u64::from(at) * 1000 / u64::from(NODES));
        let nature = Nature { node, slots: RANKS_PER_NODE, npus: 0, offset };
        let (tally, stop) = (Arc::clone(&tally), stop.clone());
        agents.spawn(async move { agent::play(channel, nature, &tally, stop).await });
    }
    reached("all agents are here", u64::from(NODES), || tally.here.load(Ordering::Relaxed)).await?;
    let mut jobs = site.jobs()?;
    let (ranks, mut taken) = (NODES * RANKS_PER_NODE, Vec::with_capacity(RUNS));
    let started = || tally.ranks.load(Ordering::Relaxed);
    for run in 0..RUNS {
        let mut spec = site.spec(
            &format!("gang {run}"),
            &json!({"train": {
                "script": "train.py",
                "derive": false,
                "nodes": NODES,
                "ranks_per_node": RANKS_PER_NODE,
                "save_dir": format!("checkpoints-{run}"),
                "args": ["--micro-batch-size", "1", "--global-batch-size", ranks.to_string(), "--train-iters", "1000"],
                "retries": 0,
            }}),
        );
        spec["parallel"] = json!({"tp": 1, "pp": 1});
        let (before, begun) = (started(), Instant::now());
        let results = tally.results.load(Ordering::Relaxed);
        let id = submit(&mut jobs, &spec).await?;
        reached("all ranks are told to start", before + u64::from(ranks), started).await?;
        taken.push(begun.elapsed().as_secs_f64() * 1e3);
        jobs.cancel(CancelRequest { job: id, ..CancelRequest::default() }).await?;
        reached("all seats are over", results + u64::from(NODES), || tally.results.load(Ordering::Relaxed)).await?;
    }
    stop.cancel();
    while let Some(ended) = agents.join_next().await {
        ended??;
    }
    site.stop()?;
    taken.sort_by(f64::total_cmp);
    let median = quantile(&taken, 0.5);
    tell(&format!("gang of {ranks} ranks on {NODES} agents: submit to all started: median {median:.0} ms of {RUNS}"));
    Ok(vec![Verdict::below("gang of 1,000 ranks: submit to all started, worst", quantile(&taken, 1.0), 2000.0, " ms")])
}
