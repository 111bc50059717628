//! `qctl logs`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;
use clap_complete::ArgValueCompleter;
use proto::v1;
use runtime::backoff::Backoff;
use tonic::Status;

use super::completion;
use super::follow::{left_while_waiting, may_return};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::moment::Moment;
use crate::output::{print, print_bytes, print_record, say};
use crate::ranks;
use crate::text::{logged, one_line, program, time};
use crate::view::LogLine;

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
    let mut printer = Printer { args: args.clone(), job: job.clone(), ..Printer::default() };
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

enum Stopped {
    Output(Failure),
    Wire(Status),
}

/// One log: attempt, node and source.
type Key = (String, String, String);

#[derive(Debug, Default)]
struct Printer {
    args: LogsArgs,
    job: String,
    /// Where each log goes on; what is below was printed.
    held: BTreeMap<Key, u64>,
    /// Whose line was printed last.
    last: Option<Key>,
    /// Whether that line has not ended.
    open: bool,
}

impl Printer {
    async fn read(
        &mut self,
        client: &mut Client,
        request: &v1::LogsRequest,
        lost: &mut bool,
        backoff: &mut Backoff,
    ) -> Result<(), Stopped> {
        let mut batches = client.jobs.logs(request.clone()).await.map_err(Stopped::Wire)?.into_inner();
        backoff.reset();
        *lost = false;
        while let Some(batch) = batches.message().await.map_err(Stopped::Wire)? {
            self.batch(&batch).map_err(Stopped::Output)?;
        }
        Ok(())
    }

    /// Prints what of a batch was not printed before.
    fn batch(&mut self, batch: &v1::LogBatch) -> Result<(), Failure> {
        let key = (batch.attempt.clone(), batch.node.clone(), batch.source.clone());
        let held = self.held.get(&key).copied().unwrap_or(0);
        let known = usize::try_from(held.saturating_sub(batch.offset)).unwrap_or(usize::MAX);
        let data = batch.data.get(known.min(batch.data.len())..).unwrap_or_default();
        if data.is_empty() {
            return Ok(());
        }
        let offset = batch.offset + (batch.data.len() - data.len()) as u64;
        self.held.insert(key.clone(), offset + data.len() as u64);
        match self.args.output {
            Face::Raw => print_bytes(data),
            Face::Json => records(batch, offset, data),
            Face::Text => {
                let text = self.text(batch, key, offset, data);
                print(&text)
            }
        }
    }

    fn text(&mut self, batch: &v1::LogBatch, key: Key, mut offset: u64, data: &[u8]) -> String {
        let mut text = String::new();
        let other = self.last.as_ref() != Some(&key);
        if other && self.open {
            text.push('\n');
            self.open = false;
        }
        let name = name(batch);
        if other && !self.args.prefix {
            let gap = if self.last.is_some() { "\n" } else { "" };
            text.push_str(&format!("{gap}==> {name} <==\n"));
        }
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            if self.args.timestamps && !self.open {
                text.push_str(&format!("{:<20} ", arrival(batch, offset).map(time).unwrap_or_default()));
            }
            if self.args.prefix && !self.open {
                text.push_str(&format!("{name} | "));
            }
            offset += line.len() as u64;
            let (body, ends) = line.strip_suffix(b"\n").map_or((line, false), |body| (body, true));
            text.push_str(&logged(&String::from_utf8_lossy(body)));
            if ends {
                text.push('\n');
            }
            self.open = !ends;
        }
        self.last = Some(key);
        text
    }

    /// What to say to one who leaves.
    fn left(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.open) {
            print("\n")?;
        }
        if self.args.follow {
            say(&format!("left: job {} goes on; follow again: {} logs {} -f", self.job, program(), self.job));
        }
        Err(Failure::Said(Exit::Interrupted))
    }

    fn end(&mut self) -> Result<(), Failure> {
        if self.held.is_empty() {
            say(if self.args.previous {
                "nothing was written by an earlier attempt; the newest: without -p"
            } else {
                "nothing was written yet, or nothing that matches"
            });
        }
        if std::mem::take(&mut self.open) { print("\n") } else { Ok(()) }
    }
}

/// When the line at `offset` arrived.
fn arrival(batch: &v1::LogBatch, offset: u64) -> Option<u64> {
    batch.marks.iter().take_while(|mark| mark.offset <= offset).last().map(|mark| mark.at_ms)
}

/// `train worker_3@node-2`; of several tasks, all but the first with their index, as in `say.2`.
fn name(batch: &v1::LogBatch) -> String {
    // An attempt is named job.stage.index.number.
    let index = batch.attempt.rsplit('.').nth(1).filter(|index| *index != "0");
    let index = index.map(|index| format!(".{index}")).unwrap_or_default();
    one_line(&format!("{}{index} {}@{}", batch.stage, batch.source, batch.node))
}

fn records(batch: &v1::LogBatch, mut offset: u64, data: &[u8]) -> Result<(), Failure> {
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        print_record(&LogLine {
            stage: &batch.stage,
            attempt: &batch.attempt,
            node: &batch.node,
            source: &batch.source,
            offset,
            at_ms: arrival(batch, offset),
            text: String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)),
        })?;
        offset += line.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(source: &str, offset: u64, data: &str) -> v1::LogBatch {
        v1::LogBatch {
            attempt: "a".into(),
            source: source.into(),
            stage: "train".into(),
            node: "n1".into(),
            offset,
            data: data.as_bytes().to_vec().into(),
            marks: Vec::new(),
        }
    }

    fn shown(printer: &mut Printer, batch: &v1::LogBatch) -> String {
        let key = (batch.attempt.clone(), batch.node.clone(), batch.source.clone());
        printer.text(batch, key, batch.offset, &batch.data)
    }

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

    #[test]
    fn titles_stand_where_the_log_changes() {
        let mut printer = Printer::default();
        assert_eq!(shown(&mut printer, &batch("worker_0", 0, "one\n")), "==> train worker_0@n1 <==\none\n");
        assert_eq!(shown(&mut printer, &batch("worker_0", 4, "tw")), "tw");
        assert_eq!(shown(&mut printer, &batch("worker_0", 6, "o\n")), "o\n");
        assert_eq!(
            shown(&mut printer, &batch("worker_1", 0, "x\x1b[2J\n")),
            "\n==> train worker_1@n1 <==\nx\\u{1b}[2J\n"
        );
    }

    #[test]
    fn tasks_of_one_stage_are_told_apart() {
        let named = |attempt: &str| name(&v1::LogBatch { attempt: attempt.into(), ..batch("worker_0", 0, "") });
        assert_eq!(named("j1.train.0.1"), "train worker_0@n1");
        assert_eq!(named("j1.train.12.3"), "train.12 worker_0@n1");
    }

    #[test]
    fn prefixes_stand_before_whole_lines_only() {
        let args = LogsArgs { prefix: true, ..LogsArgs::default() };
        let mut printer = Printer { args, ..Printer::default() };
        assert_eq!(shown(&mut printer, &batch("w", 0, "one\ntw")), "train w@n1 | one\ntrain w@n1 | tw");
        assert_eq!(shown(&mut printer, &batch("w", 6, "o\n")), "o\n");
        assert_eq!(shown(&mut printer, &batch("w", 8, "open")), "train w@n1 | open");
        assert_eq!(shown(&mut printer, &batch("v", 0, "a\n")), "\ntrain v@n1 | a\n");
    }

    #[test]
    fn lines_carry_the_time_of_their_arrival() {
        let args = LogsArgs { timestamps: true, ..LogsArgs::default() };
        let mut printer = Printer { args, ..Printer::default() };
        let mark = |offset, at_ms| v1::LogMark { offset, at_ms };
        let marks = vec![mark(0, 1_700_000_000_000), mark(7, 1_700_000_060_000)];
        let timed = v1::LogBatch { marks, ..batch("w", 4, "b\nc\nd\n") };
        let wanted = "==> train w@n1 <==\n2023-11-14T22:13:20Z b\n2023-11-14T22:13:20Z c\n2023-11-14T22:14:20Z d\n";
        assert_eq!(shown(&mut printer, &timed), wanted);
        assert_eq!(arrival(&batch("w", 0, "x"), 0), None);
    }

    #[test]
    fn what_was_printed_is_not_printed_again_after_a_reconnection() {
        let args = LogsArgs { output: Face::Raw, ..LogsArgs::default() };
        let mut printer = Printer { args, ..Printer::default() };
        let held = |printer: &Printer| printer.held.values().copied().collect::<Vec<_>>();
        printer.batch(&batch("w", 10, "one\n")).unwrap();
        assert_eq!(held(&printer), [14]);
        printer.batch(&batch("w", 0, "earlier\n")).unwrap();
        assert_eq!(held(&printer), [14]);
        printer.batch(&batch("w", 8, "ghijkl\nmn\n")).unwrap();
        assert_eq!(held(&printer), [18]);
    }
}
