//! Checks of this node before a job's work is put on it.
//!
//! Each check is one line of `preflight.log`; what fails is told in one
//! failure, all of it at once, so that it can be mended in one go.

mod checks;
mod npu;
mod python;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use proto::v1::{Assignment, EngineProgress, Failure, PreflightBody, progress};

use self::checks::Check;
pub use self::checks::free_bytes;
use crate::host::Host;
use crate::refusal::Refusal;

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Ok(String),
    /// Worth knowing.
    Note(String),
    /// Not as it must be.
    Fail(Refusal),
}

impl Finding {
    fn line(&self) -> String {
        match self {
            Self::Ok(text) => format!("ok   {text}"),
            Self::Note(text) => format!("note {text}"),
            Self::Fail(refusal) if refusal.hint.is_empty() => format!("FAIL {}", refusal.message),
            Self::Fail(refusal) => format!("FAIL {}: {}", refusal.message, refusal.hint),
        }
    }
}

/// Runs all checks and logs them; a summary if all passed.
///
/// # Errors
///
/// A [`Failure`] that names everything that failed.
pub async fn run(
    host: &Host,
    attempt: &str,
    assignment: &Assignment,
    body: &PreflightBody,
    log: &Path,
) -> Result<String, Box<Failure>> {
    let plan = checks::plan(assignment, body);
    let total = u64::try_from(plan.len()).unwrap_or(u64::MAX);
    let mut findings = Vec::new();
    let mut environment = crate::launch::Environment::new();
    let needs_look = |check: &Check| matches!(check, Check::Devices | Check::Version(_));
    let (mut seen, unseen): (Option<npu::Seen>, _) = (None, npu::Seen::default());
    for (done, check) in (0_u64..).zip(&plan) {
        progress(host, attempt, done, total);
        let found = if *check == Check::Environment {
            match crate::launch::gather(&assignment.runtime.clone().unwrap_or_default()).await {
                Ok(gathered) => {
                    environment = gathered;
                    vec![Finding::Ok(format!("environment of {} variables", environment.len()))]
                }
                Err(refusal) => vec![Finding::Fail(refusal)],
            }
        } else {
            if needs_look(check) && seen.is_none() {
                seen = Some(npu::Seen::look(&host.probe, &environment).await);
            }
            let slots = host.probe.slots();
            checks::run(check, assignment, body, &environment, (seen.as_ref().unwrap_or(&unseen), slots)).await
        };
        write(log, &found);
        findings.extend(found);
    }
    progress(host, attempt, total, total);
    let failed: Vec<&Refusal> = findings
        .iter()
        .filter_map(|f| match f {
            Finding::Fail(refusal) => Some(refusal),
            Finding::Ok(_) | Finding::Note(_) => None,
        })
        .collect();
    if failed.is_empty() {
        return Ok(format!("{} checks passed", findings.iter().filter(|f| matches!(f, Finding::Ok(_))).count()));
    }
    let join = |parts: Vec<&str>| {
        let mut seen = Vec::new();
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            if !seen.contains(&part) {
                seen.push(part);
            }
        }
        seen.join("; ")
    };
    let bad = findings.iter().filter(|f| matches!(f, Finding::Fail(_)));
    Err(Box::new(Failure {
        node: host.node.clone(),
        cause: "refused".into(),
        at_ms: runtime::clock::now_ms(),
        message: join(failed.iter().map(|f| f.message.as_str()).collect()),
        hint: join(failed.iter().map(|f| f.hint.as_str()).collect()),
        evidence: bad.map(Finding::line).take(20).collect(),
        ..Failure::default()
    }))
}

fn progress(host: &Host, attempt: &str, done: u64, total: u64) {
    let what = EngineProgress { done, total, unit: "checks".into(), ..EngineProgress::default() };
    host.progress.post(attempt, progress::What::Engine(what));
}

fn write(log: &Path, findings: &[Finding]) {
    let text: String = findings.iter().map(|f| format!("{}\n", f.line())).collect();
    let written =
        OpenOptions::new().create(true).append(true).open(log).and_then(|mut file| file.write_all(text.as_bytes()));
    if let Err(error) = written {
        tracing::warn!(log = %log.display(), %error, "a finding could not be logged");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_to_try() {
        let fail = Finding::Fail(Refusal::new("script `x` is not there", "correct `train.script`"));
        assert_eq!(fail.line(), "FAIL script `x` is not there: correct `train.script`");
        assert_eq!(Finding::Ok("python 3.11.7".into()).line(), "ok   python 3.11.7");
    }
}
