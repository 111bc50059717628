//! `qctl ps`.

use proto::v1;
use runtime::clock::now_ms;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Format, print_json, print_line, print_yaml, say};
use crate::table::print_table;
use crate::text::{duration, one_line};
use crate::view::{Document, Jobs};

/// Which jobs, and how.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  qctl ps -a\n  qctl ps -n 1 -o json")]
pub(crate) struct PsArgs {
    /// Also lists jobs that have ended
    #[arg(short, long)]
    all: bool,
    /// Lists the last N jobs, ended or not
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    last: Option<u32>,
    /// How the list is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Lists jobs.
pub(crate) async fn run(args: &PsArgs, mut client: Client) -> Result<(), Failure> {
    let request = v1::ListJobsRequest { all: args.all || args.last.is_some(), limit: args.last.unwrap_or(0) };
    let jobs = client.jobs.list(request).await?.into_inner().jobs;
    match args.output {
        Format::Json => print_json(&Document::new(Jobs { jobs: jobs.into_iter().map(Into::into).collect() })),
        Format::Yaml => print_yaml(&Document::new(Jobs { jobs: jobs.into_iter().map(Into::into).collect() })),
        Format::Name => jobs.iter().try_for_each(|job| print_line(&one_line(&job.id))),
        Format::Table | Format::Wide if jobs.is_empty() => {
            say(if request.all {
                "no job was submitted yet"
            } else {
                "no job is running or waiting; all jobs: qctl ps -a"
            });
            Ok(())
        }
        Format::Table => print_table(["ID", "NAME", "PHASE", "STAGES", "AGE", "TOOK"], jobs.iter().map(line).collect()),
        Format::Wide => {
            let header = ["ID", "NAME", "PHASE", "STAGES", "AGE", "TOOK", "OWNER", "PRIORITY", "WORKDIR", "REASON"];
            print_table(header, jobs.iter().map(wide).collect())
        }
    }
}

fn line(job: &v1::JobView) -> [String; 6] {
    let now = now_ms();
    let end = if job.ended_ms > 0 { job.ended_ms } else { now };
    [
        job.id.clone(),
        job.name.clone(),
        job.phase.clone(),
        stages(job),
        duration(now.saturating_sub(job.submitted_ms)),
        duration(end.saturating_sub(job.submitted_ms)),
    ]
}

fn wide(job: &v1::JobView) -> [String; 10] {
    let [id, name, phase, stages, age, took] = line(job);
    let (owner, priority) = (job.owner.clone(), job.priority.to_string());
    [id, name, phase, stages, age, took, owner, priority, job.workdir.clone(), job.reason.clone()]
}

/// `2/5 train 14/20`: stages that ended well, the running one and how far it is.
fn stages(job: &v1::JobView) -> String {
    let done = job.stages.iter().filter(|stage| matches!(stage.phase.as_str(), "succeeded" | "reused")).count();
    let mut text = format!("{done}/{}", job.stages.len());
    let now = job.stages.iter().find(|stage| matches!(stage.phase.as_str(), "running" | "failed"));
    if let Some(stage) = now {
        text.push_str(&format!(" {}", stage.name));
        match (&stage.train, &stage.progress) {
            (Some(train), _) => text.push_str(&format!(" {}/{}", train.iteration, train.iterations)),
            (None, Some(engine)) if engine.total > 0 => {
                text.push_str(&format!(" {} %", engine.done.saturating_mul(100) / engine.total));
            }
            (None, _) => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_that_runs_is_named_with_its_progress() {
        let stage = |name: &str, phase: &str| v1::StageView {
            name: name.to_owned(),
            phase: phase.to_owned(),
            ..v1::StageView::default()
        };
        let mut job =
            v1::JobView { stages: vec![stage("a", "reused"), stage("b", "running")], ..v1::JobView::default() };
        assert_eq!(stages(&job), "1/2 b");
        job.stages[1].progress = Some(v1::EngineProgress { done: 1, total: 3, ..v1::EngineProgress::default() });
        assert_eq!(stages(&job), "1/2 b 33 %");
        job.stages[1].train = Some(v1::TrainProgress { iteration: 14, iterations: 20, ..v1::TrainProgress::default() });
        assert_eq!(stages(&job), "1/2 b 14/20");
    }
}
