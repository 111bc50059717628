//! `qctl doctor`.

mod cluster;
mod here;
mod spec;

use std::path::Path;

use serde::Serialize;

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::file::Source;
use crate::output::{Format, print_json, print_line, print_yaml, say};
use crate::text::{one_line, plural};
use crate::view::Document;

/// What to look at.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Nothing is changed. The exit code is 1 if a check fails; warnings and what could not be seen do not count.

Examples:
  qctl doctor
  qctl doctor -f pipeline.yaml")]
pub(crate) struct DoctorArgs {
    /// Also checks what this job's file asks for
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<std::path::PathBuf>,
    /// How the answer is written; `name` gives the checks that fail
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Could not be seen.
    Unknown,
    Warn,
    Fail,
}

impl Verdict {
    fn shown(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Unknown => "UNKNOWN",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One check and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    /// Stable: programs may look for it.
    check: &'static str,
    /// Node, file or program that it is about.
    subject: Option<String>,
    verdict: Verdict,
    message: String,
    /// The next step, unless all is well.
    next: Option<String>,
}

impl Check {
    fn new(verdict: Verdict, check: &'static str, message: impl Into<String>) -> Self {
        Self { check, subject: None, verdict, message: message.into(), next: None }
    }

    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, check, message)
    }

    fn of(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }

    fn next(self, step: impl Into<String>) -> Self {
        Self { next: Some(step.into()), ..self }
    }
}

#[derive(Debug, Serialize)]
struct Diagnosis {
    /// The worst of the checks.
    verdict: Verdict,
    checks: Vec<Check>,
}

/// Checks everything that can be reached from here.
pub(crate) async fn run(args: &DoctorArgs, state_dir: Option<&Path>) -> Result<(), Failure> {
    let mut checks = here::programs();
    let (known, mut found) = here::context(state_dir);
    checks.append(&mut found);
    let client = known.as_ref().and_then(|known| Client::of(known).ok());
    match client {
        Some(client) => {
            let (nodes, mut found) = cluster::all(client.clone()).await;
            checks.append(&mut found);
            if let (Some(file), Some(nodes)) = (&args.file, nodes) {
                let source = Source { file: file.clone(), ..Source::default() };
                checks.append(&mut spec::all(&source, client, &nodes).await);
            }
        }
        None if args.file.is_some() => {
            checks.push(Check::new(Verdict::Unknown, "file", "no controller can be asked about the file"));
        }
        None => {}
    }
    let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
    let fails = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
    told(Diagnosis { verdict, checks }, args.output)?;
    if fails > 0 { Err(Failure::Said(Exit::Failed)) } else { Ok(()) }
}

fn told(diagnosis: Diagnosis, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => print_json(&Document::new(diagnosis)),
        Format::Yaml => print_yaml(&Document::new(diagnosis)),
        Format::Name => {
            let fails = diagnosis.checks.iter().filter(|check| check.verdict == Verdict::Fail);
            fails.into_iter().try_for_each(|check| print_line(check.check))
        }
        Format::Table | Format::Wide => {
            diagnosis.checks.iter().flat_map(lines).try_for_each(|line| print_line(&line))?;
            say(&summary(&diagnosis.checks));
            Ok(())
        }
    }
}

fn lines(check: &Check) -> Vec<String> {
    let subject = check.subject.as_ref().map(|subject| format!(" {subject}")).unwrap_or_default();
    let mut lines =
        vec![one_line(&format!("{:<7}  {}{subject}: {}", check.verdict.shown(), check.check, check.message))];
    lines.extend(check.next.iter().map(|next| one_line(&format!("         next: {next}"))));
    lines
}

fn summary(checks: &[Check]) -> String {
    let count = |wanted| checks.iter().filter(|check| check.verdict == wanted).count();
    let kinds =
        [(Verdict::Ok, "ok"), (Verdict::Unknown, "unknown"), (Verdict::Warn, "to look at"), (Verdict::Fail, "failed")];
    let told = kinds.map(|(verdict, word)| (count(verdict), word));
    let told: Vec<String> = told.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    format!("{}: {}", plural(checks.len(), "check"), told.join(", "))
}

/// Whether enough of a disk is free.
fn disk(subject: String, free: u64) -> Check {
    let told = format!("{} free", crate::text::bytes(free));
    let verdict = match free >> 20 {
        ..512 => Verdict::Fail,
        512..5120 => Verdict::Warn,
        _ => return Check::ok("disk", told).of(subject),
    };
    Check::new(verdict, "disk", told).of(subject).next("make room: logs, checkpoints and converted weights need it")
}

#[cfg(test)]
pub(crate) fn example() -> serde_json::Value {
    let check = Check::new(Verdict::Warn, "disk", "4 GiB free").of("node-1").next("make room");
    let document = Document::new(Diagnosis { verdict: Verdict::Warn, checks: vec![check] });
    serde_json::to_value(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_is_not_well_has_a_next_step() {
        let check = disk("node-1".to_owned(), 100 << 20);
        assert_eq!(check.verdict, Verdict::Fail);
        let wanted = [
            "FAIL     disk node-1: 100 MiB free",
            "         next: make room: logs, checkpoints and converted weights need it",
        ];
        assert_eq!(lines(&check), wanted);
        assert_eq!(disk("a".to_owned(), 4 << 30).verdict, Verdict::Warn);
        assert_eq!(disk("a".to_owned(), 6 << 30).verdict, Verdict::Ok);
    }

    #[test]
    fn the_summary_counts() {
        let check = |verdict| Check::new(verdict, "x", "");
        let all = [check(Verdict::Ok), check(Verdict::Ok), check(Verdict::Fail)];
        assert_eq!(summary(&all), "3 checks: 2 ok, 1 failed");
    }

    #[test]
    fn the_worst_verdict_is_the_largest() {
        assert!(Verdict::Ok < Verdict::Unknown && Verdict::Unknown < Verdict::Warn && Verdict::Warn < Verdict::Fail);
    }
}
