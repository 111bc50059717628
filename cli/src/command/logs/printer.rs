//! Log lines as people and programs read them.

use std::collections::BTreeMap;

use proto::v1;
use runtime::backoff::Backoff;
use tonic::Status;

use super::{Face, LogsArgs};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{is_read_by_person, print, print_bytes, print_record, say};
use crate::text::{logged, one_line, printable, program, time};
use crate::view::LogLine;

/// Why reading stopped before its end.
pub(super) enum Stopped {
    Output(Failure),
    Wire(Status),
}

/// One log: attempt, node and source.
type Key = (String, String, String);

#[derive(Debug, Default)]
pub(super) struct Printer {
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
    /// Prints logs of the job with the id `job`.
    pub(super) fn new(args: LogsArgs, job: String) -> Self {
        Self { args, job, ..Self::default() }
    }

    pub(super) async fn read(
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
        if !batch.missing.is_empty() {
            say(&one_line(&format!("note: {}", batch.missing)));
            return Ok(());
        }
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
            // Bytes for a file or a pipe; somebody else's program does not steer this terminal.
            Face::Raw if is_read_by_person() => print(&printable(&String::from_utf8_lossy(data))),
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
    pub(super) fn left(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.open) {
            print("\n")?;
        }
        if self.args.follow {
            say(&format!("left: job {} goes on; follow again: {} logs {} -f", self.job, program(), self.job));
        }
        Err(Failure::Said(Exit::Interrupted))
    }

    pub(super) fn end(&mut self) -> Result<(), Failure> {
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
            missing: String::new(),
        }
    }

    fn shown(printer: &mut Printer, batch: &v1::LogBatch) -> String {
        let key = (batch.attempt.clone(), batch.node.clone(), batch.source.clone());
        printer.text(batch, key, batch.offset, &batch.data)
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
