//! From the end of the controller that leads to the next job that is accepted.

use std::time::Instant;

use rustix::process::Signal;

use crate::Args;
use crate::sim::site::{Make, Site};
use crate::verdict::{Verdict, quantile, tell};

const CONTROLLERS: usize = 3;
const RUNS: usize = 5;

pub(crate) async fn measure(args: &Args) -> anyhow::Result<Vec<Verdict>> {
    let mut site = Site::start(args, Make::Etcd(CONTROLLERS)).await?;
    let (mut killed, mut handed) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        killed.push(one(&mut site, &format!("killed {run}"), Signal::KILL).await?);
        handed.push(one(&mut site, &format!("ended {run}"), Signal::TERM).await?);
    }
    site.stop()?;
    killed.sort_by(f64::total_cmp);
    handed.sort_by(f64::total_cmp);
    let median = |taken: &[f64]| quantile(taken, 0.5);
    tell(&format!("leader killed: median {:.2} s; told to end: median {:.2} s", median(&killed), median(&handed)));
    Ok(vec![
        Verdict::below("failover: leader killed to next job accepted, worst", quantile(&killed, 1.0), 5.0, " s"),
        Verdict::below("hand-over: leader told to end to next job accepted, worst", quantile(&handed, 1.0), 0.5, " s"),
    ])
}

/// Seconds until another controller accepts a job.
async fn one(site: &mut Site, name: &str, signal: Signal) -> anyhow::Result<f64> {
    site.accept(&format!("before {name}"), &mut site.jobs()?).await?;
    let leader = site.leader().await?;
    // One that is told to end may accept some more.
    let mut others = site.jobs_of_others(leader)?;
    let begun = Instant::now();
    site.tell_controller(leader, signal);
    site.accept(&format!("after {name}"), &mut others).await?;
    let taken = begun.elapsed().as_secs_f64();
    site.end_controller(leader, signal)?;
    site.start_controller(leader)?;
    Ok(taken)
}
