//! `qctl explain`.

use proto::v1;
use serde::Serialize;

use super::describe::JobArgs;
use super::diagnosis;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Format, print_json, print_line, print_yaml};
use crate::text::one_line;
use crate::view::{Document, Failed};

#[derive(Serialize)]
struct Explained {
    id: String,
    name: String,
    phase: String,
    reason: String,
    stages: Vec<Stage>,
    failure: Option<Failed>,
}

#[derive(Serialize)]
struct Stage {
    name: String,
    phase: String,
    reason: String,
    tasks: Vec<Task>,
}

#[derive(Serialize)]
struct Task {
    label: String,
    phase: String,
    reason: String,
}

#[cfg(test)]
pub(crate) fn example() -> serde_json::Value {
    let stage = v1::StageView { task_views: vec![v1::TaskView::default()], ..v1::StageView::default() };
    let failure = Some(v1::FailureView::default());
    let job = v1::JobView { stages: vec![stage], failure, ..v1::JobView::default() };
    serde_json::to_value(Document::new(explained(job))).unwrap_or_default()
}

/// Says why.
pub(crate) async fn run(args: &JobArgs, mut client: Client) -> Result<(), Failure> {
    let job = client.jobs.get(v1::GetJobRequest { job: args.job.clone() }).await?.into_inner();
    match args.output {
        Format::Json => print_json(&Document::new(explained(job))),
        Format::Yaml => print_yaml(&Document::new(explained(job))),
        Format::Table | Format::Wide => lines(&job).iter().try_for_each(|line| print_line(line)),
        Format::Name => print_line(&one_line(&job.id)),
    }
}

fn lines(job: &v1::JobView) -> Vec<String> {
    let why = |reason: &str| if reason.is_empty() { String::new() } else { format!(", {reason}") };
    let mut lines = vec![one_line(&format!("{} ({}): {}{}", job.name, job.id, job.phase, why(&job.reason)))];
    for stage in job.stages.iter().filter(|stage| !stage.reason.is_empty()) {
        lines.push(one_line(&format!("  {}: {}{}", stage.name, stage.phase, why(&stage.reason))));
        for task in stage.task_views.iter().filter(|task| !task.reason.is_empty() && task.reason != stage.reason) {
            lines.push(format!("    {}", one_line(&format!("{}: {}{}", task.label, task.phase, why(&task.reason)))));
        }
    }
    lines.extend(diagnosis::lines(job));
    lines
}

fn explained(job: v1::JobView) -> Explained {
    let task = |task: v1::TaskView| Task { label: task.label, phase: task.phase, reason: task.reason };
    let stage = |stage: v1::StageView| Stage {
        name: stage.name,
        phase: stage.phase,
        reason: stage.reason,
        tasks: stage.task_views.into_iter().map(task).collect(),
    };
    Explained {
        id: job.id,
        name: job.name,
        phase: job.phase,
        reason: job.reason,
        stages: job.stages.into_iter().map(stage).collect(),
        failure: job.failure.map(Into::into),
    }
}
