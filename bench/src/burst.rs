//! Many small tasks, beside a bare loop that starts the same processes.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::lab::{LIMIT, Lab};
use crate::verdict::{Verdict, tell};
use crate::{processes, work};

/// What the tasks run.
const PROGRAM: &str = "true";
/// How little all processes may do in [`QUIET_SPAN`] to count as done.
const QUIET: Duration = Duration::from_millis(20);
const QUIET_SPAN: Duration = Duration::from_millis(500);

/// Wall and processor time of a number of processes.
struct Cost {
    wall: Duration,
    cpu: Duration,
}

pub(crate) async fn measure(lab: &mut Lab, tasks: u32) -> anyhow::Result<Vec<Verdict>> {
    let first = floor(tasks).await?;
    let controller = processes::spent_by("qctl-controller");
    let before = processes::spent();
    let spec = lab.spec(&json!({"run": {"argv": [PROGRAM], "count": tasks}}));
    let begun = work::now_ns() / 1_000_000;
    let job = lab.submit(&spec).await?;
    let ended = loop {
        // Asked for seldom: the answer names every task.
        tokio::time::sleep(Duration::from_millis(250)).await;
        let view = lab.job(&job).await?;
        if view.ended_ms > 0 {
            break view;
        }
        ensure!(
            u128::from(view.submitted_ms + 600_000) > u128::from(work::now_ns() / 1_000_000),
            "the tasks do not end"
        );
    };
    ensure!(ended.phase == "succeeded", "the tasks ended as `{}`: {}", ended.phase, ended.reason);
    // What is left to do after the last task is part of the price.
    settle().await?;
    let ours = Cost {
        wall: Duration::from_millis(ended.ended_ms.saturating_sub(begun)),
        cpu: processes::spent().saturating_sub(before),
    };
    let controller = processes::spent_by("qctl-controller").saturating_sub(controller);
    let second = floor(tasks).await?;
    let floor = Cost { wall: (first.wall + second.wall) / 2, cpu: (first.cpu + second.cpu) / 2 };
    let each = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(tasks);
    let rate = |cost: &Cost| f64::from(tasks) / cost.wall.as_secs_f64();
    tell(&format!(
        "{tasks} tasks of `{PROGRAM}`: {:.0}/s at {:.3} ms of processor each; bare loop {:.0}/s at {:.3} ms",
        rate(&ours),
        each(ours.cpu),
        rate(&floor),
        each(floor.cpu)
    ));
    Ok(vec![
        Verdict::at_least("tasks: rate beside the bare loop", rate(&ours) / rate(&floor), 0.4, "x"),
        Verdict::below("tasks: processor time beside the bare loop", each(ours.cpu) / each(floor.cpu), 2.5, "x"),
        Verdict::below("tasks: processor time of the controller, each", each(controller), 0.1, " ms"),
    ])
}

/// Waits until nothing is done any more.
async fn settle() -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let before = processes::spent();
        tokio::time::sleep(QUIET_SPAN).await;
        if processes::spent().saturating_sub(before) < QUIET {
            return Ok(());
        }
        ensure!(begun.elapsed() < LIMIT, "the programs do not come to rest");
    }
}

/// The bare loop, in a process of its own.
async fn floor(tasks: u32) -> anyhow::Result<Cost> {
    let before = processes::spent();
    let mut answer = tempfile::tempfile()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([work::LOOP, &tasks.to_string(), PROGRAM]).stdin(Stdio::null()).stdout(answer.try_clone()?);
    let child = i32::try_from(command.spawn()?.id())?;
    let begun = Instant::now();
    while processes::living().contains(&child) {
        ensure!(begun.elapsed() < LIMIT, "the bare loop does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(Cost { wall: read_nanos(&mut answer)?, cpu: processes::spent().saturating_sub(before) })
}

fn read_nanos(file: &mut File) -> anyhow::Result<Duration> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(Duration::from_nanos(text.trim().parse().context("the bare loop failed")?))
}
