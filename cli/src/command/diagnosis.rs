//! How a job ended, told so that the next step is clear.

use proto::v1;

use crate::failure::{Exit, Failure};
use crate::output::say;
use crate::text::{duration, one_line, program};

/// Lines of evidence that are shown.
const EVIDENCE: usize = 12;

/// Tells on stderr how a job ended; the result carries the exit code.
pub(crate) fn conclude(job: &v1::JobView) -> Result<(), Failure> {
    let took = duration(job.ended_ms.saturating_sub(job.submitted_ms));
    let name = one_line(&job.name);
    match job.phase.as_str() {
        "succeeded" => {
            say(&format!("{name} ({}) succeeded in {took}", job.id));
            Ok(())
        }
        "cancelled" => {
            say(&format!("{name} ({}) was cancelled after {took}", job.id));
            Err(Failure::Said(Exit::Cancelled))
        }
        _ => {
            say(&format!("{name} ({}) failed after {took}: {}", job.id, one_line(&job.reason)));
            lines(job).iter().for_each(|line| say(line));
            Err(Failure::Said(Exit::JobFailed))
        }
    }
}

/// The job's first failure: where, why, what proves it, and what to do next.
pub(crate) fn lines(job: &v1::JobView) -> Vec<String> {
    let Some(view) = &job.failure else { return Vec::new() };
    let failure = view.failure.clone().unwrap_or_default();
    let rank = failure.rank.map(|rank| format!("rank {rank} ")).unwrap_or_default();
    let node = if failure.node.is_empty() { String::new() } else { format!("on node {}", failure.node) };
    let place = format!("stage {}, {rank}{node}", view.stage);
    let mut lines = vec![
        format!("  first failure: {}", one_line(place.trim_end_matches([' ', ',']))),
        format!("  cause: {}", one_line(&cause(&failure))),
    ];
    let hidden = failure.evidence.len().saturating_sub(EVIDENCE);
    if !failure.evidence.is_empty() {
        lines.push("  evidence:".to_owned());
        lines.extend(failure.evidence.iter().skip(hidden).map(|line| format!("    {}", one_line(line))));
    }
    if !failure.hint.is_empty() {
        lines.push(format!("hint: {}", one_line(&failure.hint)));
    }
    let rank = failure.rank.map(|rank| format!(" --rank {rank}")).unwrap_or_default();
    lines.push(one_line(&format!("next: {} logs {} --stage {}{rank}", program(), job.id, view.stage)));
    lines
}

/// `exit 1: message`, `signal 9: message`, `node-lost: message`.
pub(crate) fn cause(failure: &v1::Failure) -> String {
    let code = match failure.cause.as_str() {
        "exit" | "signal" => format!(" {}", failure.code),
        _ => String::new(),
    };
    format!("{}{code}: {}", failure.cause, failure.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> v1::JobView {
        let failure = v1::Failure {
            node: "n2".into(),
            rank: Some(3),
            cause: "exit".into(),
            code: 1,
            message: "out of memory".into(),
            hint: "lower micro_batch_size".into(),
            evidence: vec!["MemoryError\x1b[1m".into()],
            ..v1::Failure::default()
        };
        v1::JobView {
            id: "j1".into(),
            phase: "failed".into(),
            failure: Some(v1::FailureView { stage: "train".into(), attempt: "a".into(), failure: Some(failure) }),
            ..v1::JobView::default()
        }
    }

    #[test]
    fn a_failure_is_told_from_place_to_next_step() {
        let wanted = [
            "  first failure: stage train, rank 3 on node n2",
            "  cause: exit 1: out of memory",
            "  evidence:",
            "    MemoryError\\u{1b}[1m",
            "hint: lower micro_batch_size",
            "next: qctl logs j1 --stage train --rank 3",
        ];
        assert_eq!(lines(&failed()), wanted);
    }

    #[test]
    fn phases_have_their_exit_codes() {
        let exit = |phase: &str| conclude(&v1::JobView { phase: phase.into(), ..failed() }).err();
        assert!(exit("succeeded").is_none());
        assert!(matches!(exit("failed"), Some(Failure::Said(Exit::JobFailed))));
        assert!(matches!(exit("cancelled"), Some(Failure::Said(Exit::Cancelled))));
    }
}
