//! `qctl logs`.

mod printer;

use std::time::Duration;

use clap::ValueEnum;
use clap_complete::ArgValueCompleter;
use proto::v1;
use runtime::backoff::Backoff;

use super::completion;
use super::follow::{left_while_waiting, may_return};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::moment::Moment;
use crate::output::say;
use crate::ranks;
use printer::{Printer, Stopped};

/// Whose logs, and how.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  qctl logs last -f
  qctl logs quickstart --stage train --rank 0,2-3 -n 100 --prefix
  qctl logs quickstart --stage train --grep 'lm loss' --since 10m --timestamps
  qctl logs quickstart --stage train --rank 3 -o raw > rank3.log

Times are those of arrival at the controller, to the second.")]
pub(crate) struct LogsArgs {
    /// The job
    #[arg(add = ArgValueCompleter::new(completion::jobs))]
    job: String,
    /// Goes on as logs grow, until the job has ended
    #[arg(short, long)]
    follow: bool,
    /// Begins with the last N lines of each log
    #[arg(short = 'n', long = "lines", value_name = "N")]
    lines: Option<u64>,
    /// Only what arrived since then, as in `10m`, `2h` (ago), `2031-02-03T04:05:06Z` or `2031-02-03 04:05`
    #[arg(long, value_name = "TIME", value_parser = Moment::read)]
    since: Option<Moment>,
    /// Only what arrived until then
    #[arg(long, value_name = "TIME", value_parser = Moment::read, conflicts_with = "follow")]
    until: Option<Moment>,
    /// Only these global ranks, as in `0,8-15`
    #[arg(long, value_name = "RANKS", value_parser = Ranks::read)]
    rank: Option<Ranks>,
    /// Only this stage
    #[arg(long, default_value = "", hide_default_value = true, add = ArgValueCompleter::new(completion::stages))]
    stage: String,
    /// Only what ran on this node
    #[arg(long, default_value = "", hide_default_value = true, add = ArgValueCompleter::new(completion::nodes))]
    node: String,
    /// This attempt, from 1, instead of the newest
    #[arg(long, value_name = "NUMBER")]
    attempt: Option<u32>,
    /// The attempt before the newest
    #[arg(short, long, conflicts_with = "attempt")]
    previous: bool,
    /// Only lines that match this regular expression
    #[arg(long, value_name = "PATTERN", default_value = "", hide_default_value = true)]
    grep: String,
    /// Begins each line with the time of its arrival
    #[arg(long)]
    timestamps: bool,
    /// Begins each line with its stage, process and node, instead of a title above
    #[arg(long)]
    prefix: bool,
    /// How lines are written
    #[arg(short, long, value_enum, default_value_t)]
    output: Face,
}

#[derive(Clone, Debug)]
struct Ranks(Vec<u32>);

impl Ranks {
    fn read(text: &str) -> Result<Self, String> {
        ranks::parse(text).map(Self)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Face {
    /// For people: titles, and control characters made visible
    #[default]
    Text,
    /// The bytes as the processes wrote them
    Raw,
    /// One JSON record a line
    Json,
}

/// Prints logs.
pub(crate) async fn run(args: LogsArgs, mut client: Client) -> Result<(), Failure> {
    let job = client.jobs.get(v1::GetJobRequest { job: args.job.clone() }).await?.into_inner();
    if let Some(number) = args.attempt {
        known_attempt(&job, &args.stage, number)?;
    }
    let job = job.id;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut printer = Printer::new(args.clone(), job.clone());
    let now_ms = match (args.since, args.until) {
        // The controller's clock counts, not this computer's.
        (Some(Moment::Ago(_)), _) | (_, Some(Moment::Ago(_))) => {
            client.cluster.status(v1::StatusRequest {}).await?.into_inner().now_ms
        }
        _ => 0,
    };
    let request = request(&args, &job, now_ms);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut lost = false;
    loop {
        let reading = printer.read(&mut client, &request, &mut lost, &mut backoff);
        let read = tokio::select! {
            biased; // Ctrl-C wins over lines
            _ = &mut interrupted => None,
            read = reading => Some(read),
        };
        let Some(read) = read else { return printer.left() };
        let status = match read {
            Ok(()) => return printer.end(),
            Err(Stopped::Output(failure)) => return Err(failure),
            Err(Stopped::Wire(status)) => status,
        };
        if !args.follow || !may_return(&status) {
            return Err(status.into());
        }
        if !std::mem::replace(&mut lost, true) {
            say("controller unreachable, retrying");
        }
        if left_while_waiting(backoff.pause(), &mut interrupted).await {
            return printer.left();
        }
    }
}

fn request(args: &LogsArgs, job: &str, now_ms: u64) -> v1::LogsRequest {
    v1::LogsRequest {
        job: job.to_owned(),
        follow: args.follow,
        ranks: args.rank.as_ref().map(|ranks| ranks.0.clone()).unwrap_or_default(),
        stage: args.stage.clone(),
        node: args.node.clone(),
        tail: args.lines,
        attempt: args.attempt,
        since_ms: args.since.map_or(0, |since| since.on(now_ms)),
        until_ms: args.until.map_or(0, |until| until.on(now_ms)),
        grep: args.grep.clone(),
        previous: args.previous,
        times: args.timestamps || args.output == Face::Json,
    }
}

/// Refuses a number that no task has come to.
fn known_attempt(job: &v1::JobView, stage: &str, number: u32) -> Result<(), Failure> {
    let stages = job.stages.iter().filter(|one| stage.is_empty() || one.name == stage);
    // Attempts of a stage that was taken over are another job's.
    if stages.clone().any(|stage| !stage.reused_from.is_empty()) {
        return Ok(());
    }
    let tasks = stages.flat_map(|stage| &stage.task_views);
    let newest = tasks.filter_map(|task| {
        let past = task.history.iter().map(|past| past.number).max();
        past.max(task.attempt.rsplit('.').next().and_then(|number| number.parse().ok()))
    });
    match newest.max() {
        Some(newest) if number > newest || number == 0 => {
            let failure = Failure::new(Exit::NotFound, format!("there is no attempt {number} of it"));
            Err(failure.hint(format!("attempts are numbered from 1; the newest is {newest}")))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_never_was_is_refused() {
        let task = |attempt: &str| v1::TaskView { attempt: attempt.into(), ..v1::TaskView::default() };
        let stage = v1::StageView {
            name: "train".into(),
            task_views: vec![task("j1.train.0.2"), task("")],
            ..v1::StageView::default()
        };
        let job = v1::JobView { stages: vec![stage], ..v1::JobView::default() };
        assert!(known_attempt(&job, "", 2).is_ok() && known_attempt(&job, "train", 1).is_ok());
        for number in [0, 3] {
            let Err(Failure::Told { exit, .. }) = known_attempt(&job, "", number) else { panic!("{number}") };
            assert_eq!(exit, Exit::NotFound);
        }
        assert!(known_attempt(&v1::JobView::default(), "", 5).is_ok(), "what waits may yet have any");
    }
}
