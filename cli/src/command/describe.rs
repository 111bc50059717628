//! `qctl describe`.

use std::fmt::Write as _;

use clap_complete::ArgValueCompleter;
use proto::v1;
use runtime::clock::now_ms;

use super::follow::{left, training, working};
use super::watching::{Frame, watch};
use super::{completion, diagnosis};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Format, print, print_json, print_line, print_yaml, record};
use crate::text::{bytes, duration, one_line, time};
use crate::view::{Document, Job};

/// Files of a task that are listed.
const FILES: usize = 8;

/// Which job, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct JobArgs {
    /// The job: an id, a name, the beginning of either, or `last`
    #[arg(add = ArgValueCompleter::new(completion::jobs))]
    pub(super) job: String,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// Which job, how, and whether to stay.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  qctl describe last\n  qctl describe last -w")]
pub(crate) struct DescribeArgs {
    #[command(flatten)]
    of: JobArgs,
    /// Goes on until the job has ended, and shows what changes
    #[arg(short, long)]
    watch: bool,
}

/// Shows all of a job.
pub(crate) async fn run(args: &DescribeArgs, mut client: Client) -> Result<(), Failure> {
    let job = client.jobs.get(v1::GetJobRequest { job: args.of.job.clone() }).await?.into_inner();
    if args.watch {
        let drawn = matches!(args.of.output, Format::Table | Format::Wide);
        let request = v1::GetJobRequest { job: job.id };
        return watch(drawn, async || frame(args.of.output, client.jobs.get(request.clone()).await?.into_inner()))
            .await;
    }
    match args.of.output {
        Format::Json => print_json(&Document::new(Job::from(job))),
        Format::Yaml => print_yaml(&Document::new(Job::from(job))),
        Format::Name => print_line(&one_line(&job.id)),
        Format::Table => print(&text(&job, false)),
        Format::Wide => print(&text(&job, true)),
    }
}

fn frame(format: Format, job: v1::JobView) -> Result<Frame, Failure> {
    let over = job.ended_ms > 0;
    let screen = match format {
        Format::Table | Format::Wide => text(&job, format == Format::Wide).lines().map(str::to_owned).collect(),
        Format::Json | Format::Yaml | Format::Name => Vec::new(),
    };
    let records = match format {
        Format::Json | Format::Yaml => vec![record(&Document::new(Job::from(job)), format)?],
        Format::Name => vec![one_line(&job.id)],
        // Without times: a line is said again when something happened.
        Format::Table | Format::Wide => steady(&job),
    };
    Ok(Frame { screen, records, over })
}

/// The job's and its stages' phases and progress, a line each.
fn steady(job: &v1::JobView) -> Vec<String> {
    let why = |reason: &str| if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let mut lines = vec![one_line(&format!("{} ({})  {}{}", job.name, job.id, job.phase, why(&job.reason)))];
    for stage in &job.stages {
        let mut still = stage.clone();
        still.started_ms = 0;
        lines.push(one_line(&format!("  {}", stage_line(&still))));
    }
    lines
}

/// `wide` also lists every file.
fn text(job: &v1::JobView, wide: bool) -> String {
    let mut text = String::new();
    let end = if job.ended_ms > 0 { job.ended_ms } else { now_ms() };
    let took = duration(end.saturating_sub(job.submitted_ms));
    let fields = [
        ("name", job.name.clone()),
        ("id", job.id.clone()),
        ("phase", job.phase.clone()),
        ("reason", job.reason.clone()),
        ("owner", job.owner.clone()),
        ("priority", job.priority.to_string()),
        ("workdir", job.workdir.clone()),
        ("submitted", time(job.submitted_ms)),
        ("ended", time(job.ended_ms)),
        ("took", took),
    ];
    // Writing to a string cannot fail.
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{name:<10} {}", one_line(value));
    }
    for stage in &job.stages {
        let _ = writeln!(text, "\n{}", one_line(&stage_line(stage)));
        for task in &stage.task_views {
            task_lines(&mut text, task, wide);
        }
    }
    let failure = diagnosis::lines(job);
    if !failure.is_empty() {
        let _ = writeln!(text, "\n{}", failure.join("\n"));
    }
    text
}

fn stage_line(stage: &v1::StageView) -> String {
    let mut line = format!("{}  {}", stage.name, stage.phase);
    if stage.started_ms > 0 {
        let end = if stage.ended_ms > 0 { stage.ended_ms } else { now_ms() };
        line.push_str(&format!(" {}", duration(end.saturating_sub(stage.started_ms))));
    }
    if stage.tasks > 1 {
        line.push_str(&format!(", {}/{} tasks done", stage.tasks_done, stage.tasks));
    }
    match (&stage.train, &stage.progress) {
        (Some(train), _) => line.push_str(&format!(", {}", training(train))),
        (None, Some(engine)) => line.push_str(&format!(", {}{}", working(engine), left(engine))),
        (None, None) => {}
    }
    if !stage.reused_from.is_empty() && !stage.reason.contains(&stage.reused_from) {
        line.push_str(&format!(", from {}", stage.reused_from));
    }
    if !stage.reason.is_empty() {
        line.push_str(&format!(": {}", stage.reason));
    }
    line
}

fn task_lines(text: &mut String, task: &v1::TaskView, wide: bool) {
    let reason = if task.reason.is_empty() { String::new() } else { format!(": {}", task.reason) };
    let attempt = if task.attempt.is_empty() { String::new() } else { format!("  ({})", task.attempt) };
    let _ = writeln!(text, "  {}", one_line(&format!("{}  {}{attempt}{reason}", task.label, task.phase)));
    for seat in &task.seats {
        let last = seat.first_rank + seat.ranks.saturating_sub(1);
        let ranks = if seat.ranks > 1 { format!("ranks {}-{last}", seat.first_rank) } else { format!("rank {last}") };
        let _ = writeln!(text, "    {}", one_line(&format!("{}: {ranks}, {}", seat.node, seat.phase)));
    }
    for past in &task.history {
        let took = duration(past.ended_ms.saturating_sub(past.placed_ms));
        let why = past.failure.as_ref().and_then(|view| view.failure.as_ref());
        let why = why.map(|failure| format!(": {}", diagnosis::cause(failure))).unwrap_or_default();
        let nodes = past.nodes.join(", ");
        let line = format!("attempt {} on {nodes}: {} after {took}{why}", past.number, past.outcome);
        let _ = writeln!(text, "    {}", one_line(&line));
    }
    if !task.summary.is_empty() {
        let _ = writeln!(text, "    {}", one_line(&task.summary));
    }
    let shown = if wide { usize::MAX } else { FILES };
    for file in task.files.iter().take(shown) {
        let _ = writeln!(text, "    {}  {}", one_line(&file.path), bytes(file.size));
    }
    if task.files.len() > shown {
        let _ = writeln!(text, "    and {} more; all: -o wide", task.files.len() - shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_shown_from_its_stages_down_to_its_files() {
        let task = v1::TaskView {
            label: "all".into(),
            phase: "succeeded".into(),
            attempt: "j1/train/0#1".into(),
            seats: vec![v1::SeatView { node: "n1".into(), first_rank: 2, ranks: 2, phase: "running".into() }],
            files: (0..9).map(|n| v1::FileRecord { path: format!("f{n}"), size: 1536, ..Default::default() }).collect(),
            ..v1::TaskView::default()
        };
        let stage = v1::StageView {
            name: "train".into(),
            phase: "succeeded".into(),
            started_ms: 1000,
            ended_ms: 13_000,
            task_views: vec![task],
            ..v1::StageView::default()
        };
        let job = v1::JobView { name: "q\x07".into(), ended_ms: 1, stages: vec![stage], ..v1::JobView::default() };
        let shown = text(&job, false);
        for part in [
            "name       q\\u{7}\n",
            "\ntrain  succeeded 12 s\n",
            "    n1: ranks 2-3, running\n",
            "    f7  1.50 KiB\n    and 1 more",
        ] {
            assert!(shown.contains(part), "{part:?} in {shown}");
        }
        assert!(text(&job, true).contains("    f8  1.50 KiB\n"));
    }
}
