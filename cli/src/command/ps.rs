//! `qctl ps`.

use clap::ValueEnum;
use proto::v1;
use runtime::clock::now_ms;

use super::watching::{Frame, watch};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Format, print_json, print_line, print_yaml, record, say};
use crate::table::{print_table, table_lines};
use crate::text::{duration, one_line};
use crate::view::{Document, Jobs};

/// Which jobs, and how.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  qctl ps -a
  qctl ps -w
  qctl ps --phase failed,cancelled -n 5
  qctl ps -n 1 -o json")]
pub(crate) struct PsArgs {
    /// Also lists jobs that have ended
    #[arg(short, long)]
    all: bool,
    /// Lists the last N jobs, ended or not
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    last: Option<u32>,
    /// Only jobs in these phases, ended or not
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        hide_possible_values = true,
        long_help = "Only jobs in these phases, ended or not: pending, running, cancelling, succeeded, failed, cancelled"
    )]
    phase: Vec<Phase>,
    /// Only jobs whose name contains this
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Only this user's jobs
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Goes on, and shows what changes
    #[arg(short, long)]
    watch: bool,
    /// How the list is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Phase {
    Pending,
    Running,
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
}

impl PsArgs {
    fn request(&self) -> v1::ListJobsRequest {
        let filtered = !self.phase.is_empty() || self.name.is_some() || self.owner.is_some();
        let all = self.all || self.last.is_some() || !self.phase.is_empty();
        // What is filtered here must come first.
        v1::ListJobsRequest { all, limit: if filtered { 0 } else { self.last.unwrap_or(0) } }
    }

    fn passes(&self, job: &v1::JobView) -> bool {
        let named = |phase: &Phase| phase.to_possible_value().is_some_and(|value| value.get_name() == job.phase);
        (self.phase.is_empty() || self.phase.iter().any(named))
            && self.name.as_ref().is_none_or(|text| job.name.contains(text.as_str()))
            && self.owner.as_ref().is_none_or(|user| job.owner == *user)
    }

    async fn list(&self, client: &mut Client) -> Result<Vec<v1::JobView>, Failure> {
        let mut jobs = client.jobs.list(self.request()).await?.into_inner().jobs;
        jobs.retain(|job| self.passes(job));
        jobs.truncate(self.last.map_or(usize::MAX, |last| usize::try_from(last).unwrap_or(usize::MAX)));
        Ok(jobs)
    }

    fn nothing(&self) -> &'static str {
        match self.request().all {
            _ if !self.phase.is_empty() || self.name.is_some() || self.owner.is_some() => "no job matches",
            true => "no job was submitted yet",
            false => "no job is running or waiting; all jobs: qctl ps -a",
        }
    }
}

/// Lists jobs.
pub(crate) async fn run(args: &PsArgs, mut client: Client) -> Result<(), Failure> {
    if args.watch {
        let drawn = matches!(args.output, Format::Table | Format::Wide);
        return watch(drawn, async || frame(args, &args.list(&mut client).await?)).await;
    }
    let jobs = args.list(&mut client).await?;
    match args.output {
        Format::Json => print_json(&document(jobs)),
        Format::Yaml => print_yaml(&document(jobs)),
        Format::Name => jobs.iter().try_for_each(|job| print_line(&one_line(&job.id))),
        Format::Table | Format::Wide if jobs.is_empty() => {
            say(args.nothing());
            Ok(())
        }
        Format::Table => print_table(HEADER, jobs.iter().map(line).collect()),
        Format::Wide => print_table(WIDE, jobs.iter().map(wide).collect()),
    }
}

fn document(jobs: Vec<v1::JobView>) -> Document<Jobs> {
    Document::new(Jobs { jobs: jobs.into_iter().map(Into::into).collect() })
}

fn frame(args: &PsArgs, jobs: &[v1::JobView]) -> Result<Frame, Failure> {
    let screen = match args.output {
        Format::Table if !jobs.is_empty() => table_lines(HEADER, jobs.iter().map(line).collect()),
        Format::Wide if !jobs.is_empty() => table_lines(WIDE, jobs.iter().map(wide).collect()),
        Format::Table | Format::Wide => vec![args.nothing().to_owned()],
        Format::Json | Format::Yaml | Format::Name => Vec::new(),
    };
    let records = match args.output {
        Format::Json | Format::Yaml => vec![record(&document(jobs.to_vec()), args.output)?],
        Format::Name => jobs.iter().map(|job| one_line(&job.id)).collect(),
        // Without ages: a line is said again when something happened.
        Format::Table | Format::Wide => jobs
            .iter()
            .map(|job| one_line(&format!("{}  {}  {}  {}  {}", job.id, job.name, job.phase, stages(job), job.reason)))
            .map(|line| line.trim_end().to_owned())
            .collect(),
    };
    Ok(Frame { screen, records, over: false })
}

const HEADER: [&str; 6] = ["ID", "NAME", "PHASE", "STAGES", "AGE", "TOOK"];
const WIDE: [&str; 10] = ["ID", "NAME", "PHASE", "STAGES", "AGE", "TOOK", "OWNER", "PRIORITY", "WORKDIR", "REASON"];

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
pub(super) fn stages(job: &v1::JobView) -> String {
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
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Ps {
        #[command(flatten)]
        args: PsArgs,
    }

    fn args(words: &[&str]) -> PsArgs {
        Ps::parse_from(["ps"].iter().chain(words)).args
    }

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

    #[test]
    fn filters_look_at_all_jobs_before_the_last_ones_are_taken() {
        let job = |name: &str, phase: &str, owner: &str| v1::JobView {
            name: name.into(),
            phase: phase.into(),
            owner: owner.into(),
            ..v1::JobView::default()
        };
        let jobs = [job("qwen-a", "failed", "ann"), job("qwen-b", "running", "bob"), job("x", "failed", "bob")];
        let table: [(&[&str], &[&str]); 4] = [
            (&["--phase", "failed,cancelled"], &["qwen-a", "x"]),
            (&["--name", "qwen"], &["qwen-a", "qwen-b"]),
            (&["--owner", "bob", "--phase", "failed"], &["x"]),
            (&["-a"], &["qwen-a", "qwen-b", "x"]),
        ];
        for (words, names) in table {
            let args = args(words);
            let passed: Vec<&str> = jobs.iter().filter(|job| args.passes(job)).map(|job| job.name.as_str()).collect();
            assert_eq!(passed, names, "{words:?}");
        }
        let asked = |words: &[&str]| args(words).request();
        assert_eq!(asked(&["-n", "5"]), v1::ListJobsRequest { all: true, limit: 5 });
        assert_eq!(asked(&["-n", "5", "--phase", "failed"]), v1::ListJobsRequest { all: true, limit: 0 });
        assert_eq!(asked(&["--name", "x"]), v1::ListJobsRequest { all: false, limit: 0 });
    }

    #[test]
    fn a_watched_list_says_again_only_what_changed() {
        let job = v1::JobView { id: "j1".into(), name: "a".into(), phase: "running".into(), ..v1::JobView::default() };
        let frame = frame(&args(&["-w"]), &[job]).unwrap();
        assert_eq!(frame.records, ["j1  a  running  0/0"]);
        assert_eq!(frame.screen.len(), 2);
    }
}
