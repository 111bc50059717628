//! `qctl report`.

mod lost;
mod shape;
mod steps;

use std::fmt::Write as _;

use proto::v1;
use runtime::clock::now_ms;

use super::describe::JobArgs;
use super::diagnosis;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Format, print, print_json, print_line, print_yaml};
use crate::text::{bytes, count, duration, one_line, plural};
use crate::view::Document;
use shape::{Report, Training};
use steps::Steps;

/// Sums a job up.
pub(crate) async fn run(args: &JobArgs, mut client: Client) -> Result<(), Failure> {
    let job = client.jobs.get(v1::GetJobRequest { job: args.job.clone() }).await?.into_inner();
    let request = v1::ListCheckpointsRequest { job: job.id.clone() };
    let checkpoints = client.checkpoints.list(request).await?.into_inner().checkpoints;
    let mut training = Vec::new();
    for stage in job.stages.iter().filter(|stage| stage.kind == "train") {
        let steps = read_steps(&mut client, &job.id, stage).await?;
        let own: Vec<_> = checkpoints.iter().filter(|one| one.stage == stage.name).cloned().collect();
        training.push(Training::of(stage, &steps, lost::lost_ms(stage, &own, now_ms())));
    }
    let diagnosed = diagnosis::lines(&job);
    let report = Report::of(job, training, &checkpoints, now_ms());
    match args.output {
        Format::Json => print_json(&Document::new(report)),
        Format::Yaml => print_yaml(&Document::new(report)),
        Format::Name => print_line(&one_line(&report.id)),
        Format::Table | Format::Wide => print(&text(&report, &diagnosed)),
    }
}

/// Iteration lines of every attempt, the oldest first.
async fn read_steps(client: &mut Client, job: &str, stage: &v1::StageView) -> Result<Steps, Failure> {
    let past = stage.task_views.iter().flat_map(|task| &task.history).map(|attempt| attempt.number);
    let present = stage.task_views.iter().filter_map(|task| task.attempt.rsplit('.').next()?.parse::<u32>().ok());
    let newest = past.chain(present).max();
    let mut steps = Steps::default();
    // Of a stage that was taken over, the attempts are another job's: the newest is all that is asked for.
    let numbers: Vec<Option<u32>> = newest.map_or_else(|| vec![None], |newest| (1..=newest).map(Some).collect());
    for attempt in numbers {
        let request = v1::LogsRequest {
            job: job.to_owned(),
            stage: stage.name.clone(),
            grep: steps::PATTERN.to_owned(),
            attempt,
            ..v1::LogsRequest::default()
        };
        let mut batches = client.jobs.logs(request).await?.into_inner();
        while let Some(batch) = batches.message().await? {
            steps.read(&String::from_utf8_lossy(&batch.data));
        }
    }
    Ok(steps)
}

fn text(report: &Report, diagnosed: &[String]) -> String {
    let mut text = String::new();
    let why = report.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let took = duration(report.took_ms);
    // Writing to a string cannot fail.
    let _ =
        writeln!(text, "{}", one_line(&format!("{} ({}) {} after {took}{why}", report.name, report.id, report.phase)));
    if let Some(waited) = report.waited_ms.filter(|waited| *waited >= 1000) {
        let _ = writeln!(text, "waited {} for its first stage to begin", duration(waited));
    }
    let widest = report.stages.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0);
    let _ = writeln!(text, "\nstages");
    for stage in &report.stages {
        let took = stage.took_ms.map(duration).unwrap_or_default();
        let from = stage.reused_from.as_ref().map(|from| format!("from {from}")).unwrap_or_default();
        let line = format!("  {:<widest$}  {:<9}  {took:<9}  {from}", stage.name, stage.phase);
        let _ = writeln!(text, "{}", one_line(line.trim_end()));
        for attempt in stage.attempts.iter().filter(|_| stage.attempts.len() > stage.tasks) {
            let why = attempt.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let (nodes, took) = (attempt.nodes.join(", "), duration(attempt.took_ms));
            let task = if stage.tasks > 1 { format!("{}, ", attempt.task) } else { String::new() };
            let line = format!("{task}attempt {} on {nodes}: {} after {took}{why}", attempt.number, attempt.outcome);
            let _ = writeln!(text, "    {}", one_line(&line));
        }
    }
    report.training.iter().for_each(|training| training_lines(&mut text, training));
    let saved = &report.checkpoints;
    if saved.complete + saved.incomplete > 0 {
        let last = saved.last_iteration.map(|last| format!(", the last of iteration {last}")).unwrap_or_default();
        let torn = if saved.incomplete > 0 { format!("; {} incomplete", saved.incomplete) } else { String::new() };
        let _ = writeln!(text, "\ncheckpoints\n  {} complete, {}{last}{torn}", saved.complete, bytes(saved.bytes));
    }
    if !diagnosed.is_empty() {
        let _ = writeln!(text, "\n{}", diagnosed.join("\n"));
    }
    text
}

fn training_lines(text: &mut String, training: &Training) {
    let _ = writeln!(text, "\ntraining ({})", one_line(&training.stage));
    let of = training.iterations.map(|all| format!(" of {all}")).unwrap_or_default();
    let reached = training.iteration.map(|now| format!("iteration {now}{of}, ")).unwrap_or_default();
    let _ = writeln!(text, "  {reached}{} in the logs", plural(training.steps, "step"));
    if let Some(loss) = &training.loss {
        let ends = [("first", &loss.first), ("last", &loss.last), ("best", &loss.best)];
        let ends = ends.map(|(name, at)| format!("{name} {:.4} (iteration {})", at.loss, at.iteration));
        let _ = writeln!(text, "  loss: {}", ends.join(", "));
    }
    if let Some(median) = training.step_ms_median {
        let rate = training.tokens_per_second.map(|rate| format!(", {} tokens/s", count(rate))).unwrap_or_default();
        let _ = writeln!(text, "  step: {median:.0} ms in the median{rate}");
    }
    if training.restarts > 0 || training.lost_ms > 0 {
        let restarts = plural(training.restarts, "restart");
        let _ = writeln!(text, "  lost to failures: {}, {restarts}", duration(training.lost_ms));
    }
}

#[cfg(test)]
pub(crate) use shape::tests::example;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_goes_from_the_stages_to_the_loss() {
        let shown = text(&shape::tests::full(), &["  first failure: none".to_owned()]);
        for part in [
            "q (j1) failed after 15 s: it broke\nwaited 2.0 s for its first stage to begin\n\nstages\n",
            "  train  failed     12 s\n    attempt 1 on n1, n2: failed after 4.0 s: exit 1: out of memory\n",
            "    attempt 2 on n1, n2: succeeded after 6.0 s\n",
            "\ntraining (train)\n  iteration 4 of 9, 2 steps in the logs\n",
            "  loss: first 2.5000 (iteration 1), last 1.5000 (iteration 4), best 1.5000 (iteration 4)\n",
            "  step: 250 ms in the median, 4.10 k tokens/s\n",
            "  lost to failures: 4.0 s, 1 restart\n",
            "\ncheckpoints\n  1 complete, 2.00 KiB, the last of iteration 4; 1 incomplete\n",
            "\n  first failure: none\n",
        ] {
            assert!(shown.contains(part), "{part:?} in {shown}");
        }
    }
}
