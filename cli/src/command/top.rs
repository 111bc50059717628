//! `qctl top`.

use proto::v1;
use runtime::clock::now_ms;

use super::follow::{remaining, training};
use super::ps::stages;
use super::watching::{Frame, watch};
use super::{nodes, npus};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::is_read_by_person;
use crate::table::table_lines;
use crate::text::{bytes, count, duration, one_line, plural};

/// Whether to stay.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Where stdout is no terminal, it is written once.\n\nExample:\n  qctl top")]
pub(crate) struct TopArgs {
    /// Writes it once
    #[arg(long)]
    once: bool,
}

/// All that can be seen at one moment.
#[derive(Debug, Default)]
struct Sight {
    status: v1::StatusReply,
    jobs: Vec<v1::JobView>,
    nodes: Vec<v1::NodeView>,
}

/// Shows jobs, training and nodes on one screen.
pub(crate) async fn run(args: &TopArgs, mut client: Client) -> Result<(), Failure> {
    let once = args.once || !is_read_by_person();
    watch(!once, async || {
        let lines = lines(&look(&mut client).await?, now_ms());
        let records = if once { lines.clone() } else { Vec::new() };
        Ok(Frame { screen: lines, records, over: once })
    })
    .await
}

async fn look(client: &mut Client) -> Result<Sight, Failure> {
    Ok(Sight {
        status: client.cluster.status(v1::StatusRequest {}).await?.into_inner(),
        jobs: client.jobs.list(v1::ListJobsRequest { all: false, limit: 0 }).await?.into_inner().jobs,
        nodes: client.nodes.list(v1::ListNodesRequest {}).await?.into_inner().nodes,
    })
}

fn lines(sight: &Sight, now_ms: u64) -> Vec<String> {
    let mut lines = vec![head(sight, now_ms)];
    if !sight.jobs.is_empty() {
        lines.push(String::new());
        lines.extend(table_lines(["JOB", "NAME", "PHASE", "STAGES", "AGE", "WHY"], jobs(sight, now_ms)));
    }
    let trains: Vec<[String; 4]> = sight.jobs.iter().flat_map(trains).collect();
    if !trains.is_empty() {
        lines.push(String::new());
        lines.extend(table_lines(["TRAINING", "PROGRESS", "SPEED", "LEFT"], trains));
    }
    if !sight.nodes.is_empty() {
        lines.push(String::new());
        let header = ["NODE", "PHASE", "DEVICE", "SLOTS", "LOAD", "MEMORY FREE", "DISK FREE", "NPUS", "RUNS"];
        lines.extend(table_lines(header, sight.nodes.iter().map(node).collect()));
    }
    lines
}

fn head(sight: &Sight, now_ms: u64) -> String {
    let now = if sight.status.now_ms > 0 { sight.status.now_ms } else { now_ms };
    let up = duration(now.saturating_sub(sight.status.started_ms));
    let ready = sight.nodes.iter().filter(|node| node.phase == "ready").count();
    let slots: u32 = sight.nodes.iter().map(|node| node.slots).sum();
    let used: u32 = sight.nodes.iter().map(|node| node.slots_used).sum();
    let waiting = sight.jobs.iter().filter(|job| job.phase == "pending").count();
    one_line(&format!(
        "controller {} up {up}   {ready} of {} ready   {used}/{slots} slots used   {} running, {waiting} waiting",
        sight.status.version,
        plural(sight.nodes.len(), "node"),
        plural(sight.jobs.len() - waiting, "job"),
    ))
}

fn jobs(sight: &Sight, now_ms: u64) -> Vec<[String; 6]> {
    let row = |job: &v1::JobView| {
        let age = duration(now_ms.saturating_sub(job.submitted_ms));
        [job.id.clone(), job.name.clone(), job.phase.clone(), stages(job), age, job.reason.clone()]
    };
    sight.jobs.iter().map(row).collect()
}

fn trains(job: &v1::JobView) -> Vec<[String; 4]> {
    let running = job.stages.iter().filter(|stage| stage.phase == "running");
    let row = |stage: &v1::StageView| {
        let train = stage.train.as_ref()?;
        let rate = rate(stage.tokens_per_step, train.step_ms).map(|rate| format!("{} tokens/s", count(rate)));
        let left = remaining(train).map(duration);
        let name = format!("{} {}", job.name, stage.name);
        Some([name, training(train), rate.unwrap_or_default(), left.unwrap_or_default()])
    };
    running.filter_map(row).collect()
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is shown with three digits"
)]
pub(in crate::command) fn rate(tokens: u64, step_ms: f64) -> Option<u64> {
    (tokens > 0 && step_ms > 0.0).then(|| (tokens as f64 * 1000.0 / step_ms) as u64)
}

fn node(node: &v1::NodeView) -> [String; 9] {
    let health = node.health.as_ref();
    let load = health.map(|health| format!("{}.{:02}", health.load_percent / 100, health.load_percent % 100));
    [
        node.id.clone(),
        nodes::phase(node),
        crate::view::device(node).to_owned(),
        format!("{}/{} used", node.slots_used, node.slots),
        load.unwrap_or_default(),
        health.map(|health| bytes(health.memory_free)).unwrap_or_default(),
        health.map(|health| bytes(health.disk_free)).unwrap_or_default(),
        npus::summary(node),
        node.attempts.join(" "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_screen_holds_jobs_training_and_nodes() {
        let train = v1::TrainProgress {
            iteration: 5,
            iterations: 20,
            loss: 2.5,
            step_ms: 200.0,
            ..v1::TrainProgress::default()
        };
        let stage = v1::StageView {
            name: "train".into(),
            phase: "running".into(),
            train: Some(train),
            tokens_per_step: 1024,
            ..v1::StageView::default()
        };
        let job = |id: &str, phase: &str, stages| v1::JobView {
            id: id.into(),
            name: "q".into(),
            phase: phase.into(),
            submitted_ms: 1000,
            stages,
            ..v1::JobView::default()
        };
        let node =
            v1::NodeView { id: "n1".into(), phase: "ready".into(), slots: 2, slots_used: 2, ..v1::NodeView::default() };
        let status = v1::StatusReply { version: "0.1.0".into(), now_ms: 61_000, ..v1::StatusReply::default() };
        let jobs = vec![job("j1", "running", vec![stage]), job("j2", "pending", vec![])];
        let shown = lines(&Sight { status, jobs, nodes: vec![node] }, 61_000);
        assert_eq!(
            shown[0],
            "controller 0.1.0 up 1 m 1 s   1 of 1 node ready   2/2 slots used   1 job running, 1 waiting"
        );
        let shown = shown.join("\n");
        for part in [
            "j1   q     running  0/1 train 5/20  1 m 0 s",
            "q train   iteration 5/20, loss 2.5000",
            "5.12 k tokens/s  3.0 s",
            "\nn1    ready",
        ] {
            assert!(shown.contains(part), "{part:?} in\n{shown}");
        }
        assert_eq!(lines(&Sight::default(), 1).len(), 1);
    }
}
