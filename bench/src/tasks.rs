//! Small tasks without processes: what the control plane itself can do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::sim::agent::{self, Nature, Tally};
use crate::sim::site::{Make, Site, submit, succeeded};
use crate::verdict::{Verdict, tell};
use crate::{Args, processes};

const AGENTS: u32 = 8;
const JOBS: u32 = 4;
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) async fn measure(args: &Args) -> anyhow::Result<Vec<Verdict>> {
    let mut verdicts = on(args, Make::Embedded, "a file", 5000.0).await?;
    verdicts.extend(on(args, Make::Etcd(1), "an etcd of one member", 2000.0).await?);
    Ok(verdicts)
}

async fn on(args: &Args, make: Make, name: &str, bar: f64) -> anyhow::Result<Vec<Verdict>> {
    let site = Site::start(args, make).await?;
    let (tally, stop) = (Arc::new(Tally::default()), CancellationToken::new());
    let mut agents = JoinSet::new();
    for at in 0..AGENTS {
        let node = format!("n{at}");
        let channel = runtime::channel(&site.addresses(), &site.certificates.node(&node)?)?;
        let nature = Nature { node, slots: 2, npus: 0, offset: Duration::from_millis(u64::from(at) * 100) };
        let (tally, stop) = (Arc::clone(&tally), stop.clone());
        agents.spawn(async move { agent::play(channel, nature, &tally, stop).await });
    }
    let results = || tally.results.load(Ordering::Relaxed);
    let mut jobs = site.jobs()?;
    // The one that was accepted at the start.
    reached("the first result", 1, results).await?;
    let each = args.played_tasks / JOBS;
    let spec = |at| site.spec(&format!("burst {at}"), &json!({"work": {"run": {"argv": ["true"], "count": each}}}));
    let (cpu, before, begun) = (processes::spent_by("qctl-controller"), results(), Instant::now());
    let mut ids = Vec::new();
    for at in 0..JOBS {
        ids.push(submit(&mut jobs, &spec(at)).await?);
    }
    let total = each * JOBS;
    reached("all results", before + u64::from(total), results).await?;
    let (wall, cpu) = (begun.elapsed(), processes::spent_by("qctl-controller").saturating_sub(cpu));
    for id in ids {
        succeeded(&mut jobs, &id, LIMIT).await?;
    }
    stop.cancel();
    while let Some(ended) = agents.join_next().await {
        ended??;
    }
    site.stop()?;
    let (rate, each) = (f64::from(total) / wall.as_secs_f64(), cpu.as_secs_f64() * 1e3 / f64::from(total));
    tell(&format!("{total} tasks without processes on {AGENTS} agents, {name}: {:.2} s", wall.as_secs_f64()));
    Ok(vec![
        Verdict::at_least(&format!("tasks without processes, {name}: durable results"), rate, bar, "/s"),
        Verdict::below(
            &format!("tasks without processes, {name}: processor time of the controller, each"),
            each,
            0.1,
            " ms",
        ),
    ])
}

/// Waits until a count is reached.
pub(crate) async fn reached(what: &str, wanted: u64, count: impl Fn() -> u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    while count() < wanted {
        ensure!(begun.elapsed() < LIMIT, "{what}: {} of {wanted} after {} s", count(), LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
