//! Epochs, failures, outputs.

use model::{Cause, Epoch, Failure, FileRecord, NodeId, Output, Timestamp};

use super::{WireError, limit};
use crate::v1;

impl From<Epoch> for v1::Epoch {
    fn from(epoch: Epoch) -> Self {
        Self { incarnation: epoch.incarnation, term: epoch.term }
    }
}

impl From<v1::Epoch> for Epoch {
    fn from(epoch: v1::Epoch) -> Self {
        Self { incarnation: epoch.incarnation, term: epoch.term }
    }
}

impl From<&FileRecord> for v1::FileRecord {
    fn from(file: &FileRecord) -> Self {
        Self { path: file.path.clone(), size: file.size, digest: file.digest.clone() }
    }
}

impl TryFrom<v1::FileRecord> for FileRecord {
    type Error = WireError;

    fn try_from(file: v1::FileRecord) -> Result<Self, WireError> {
        Ok(Self {
            path: limit::text("path", file.path, limit::PATH)?,
            size: file.size,
            digest: limit::text("digest", file.digest, 128)?,
        })
    }
}

impl From<&Output> for v1::Output {
    fn from(output: &Output) -> Self {
        Self {
            path: output.path.clone(),
            files: output.files.iter().map(Into::into).collect(),
            summary: output.summary.clone(),
        }
    }
}

impl TryFrom<v1::Output> for Output {
    type Error = WireError;

    fn try_from(output: v1::Output) -> Result<Self, WireError> {
        let files = limit::list("files", output.files, limit::FILES)?;
        Ok(Self {
            path: limit::text("path", output.path, limit::PATH)?,
            files: files.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            summary: limit::sentence(&output.summary),
        })
    }
}

impl From<&Failure> for v1::Failure {
    fn from(failure: &Failure) -> Self {
        let (cause, code) = match failure.cause {
            Cause::Exit(code) => ("exit", code),
            Cause::Signal(number) => ("signal", number),
            Cause::Refused => ("refused", 0),
            Cause::NodeLost => ("node-lost", 0),
            Cause::Hang => ("hang", 0),
            Cause::Overrun => ("time-limit", 0),
        };
        Self {
            node: failure.node.to_string(),
            rank: failure.rank,
            cause: cause.to_owned(),
            code,
            at_ms: failure.at.0,
            message: failure.message.clone(),
            hint: failure.hint.clone(),
            evidence: failure.evidence.clone(),
        }
    }
}

impl TryFrom<v1::Failure> for Failure {
    type Error = WireError;

    fn try_from(failure: v1::Failure) -> Result<Self, WireError> {
        let cause = match failure.cause.as_str() {
            "exit" => Cause::Exit(failure.code),
            "signal" => Cause::Signal(failure.code),
            "refused" => Cause::Refused,
            "node-lost" => Cause::NodeLost,
            "hang" => Cause::Hang,
            "time-limit" => Cause::Overrun,
            other => return Err(WireError::Unknown { field: "cause", given: other.chars().take(64).collect() }),
        };
        // The last lines are the ones that prove it.
        let skip = failure.evidence.len().saturating_sub(limit::EVIDENCE);
        Ok(Self {
            node: NodeId::new(failure.node)?,
            rank: failure.rank,
            cause,
            at: Timestamp(failure.at_ms),
            message: limit::sentence(&failure.message),
            hint: limit::sentence(&failure.hint),
            evidence: failure.evidence[skip..].iter().map(|line| limit::sentence(line)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(cause: Cause) -> Failure {
        Failure {
            node: NodeId::new("n1").unwrap(),
            rank: Some(3),
            cause,
            at: Timestamp(17),
            message: "rank 3 died".into(),
            hint: "look".into(),
            evidence: vec!["a".into(), "b".into()],
        }
    }

    #[test]
    fn failures_survive_the_round_trip_with_every_cause() {
        for cause in [Cause::Exit(1), Cause::Signal(9), Cause::Refused, Cause::NodeLost, Cause::Hang, Cause::Overrun] {
            let sent = failure(cause);
            assert_eq!(Failure::try_from(v1::Failure::from(&sent)), Ok(sent));
        }
    }

    #[test]
    fn long_evidence_keeps_its_end_and_unknown_causes_are_refused() {
        let mut wire = v1::Failure::from(&failure(Cause::Hang));
        wire.evidence = (0..50).map(|n| format!("{n}{}", "x".repeat(2000))).collect();
        let kept = Failure::try_from(wire.clone()).unwrap().evidence;
        assert_eq!((kept.len(), kept[19].starts_with("49x"), kept[19].len()), (20, true, 1000));
        wire.cause = "boredom".into();
        assert_eq!(Failure::try_from(wire).unwrap_err().to_string(), "field `cause` has the unknown value `boredom`");
    }

    #[test]
    fn an_output_with_too_many_files_is_refused() {
        let files = vec![v1::FileRecord::default(); limit::FILES + 1];
        assert!(Output::try_from(v1::Output { files, ..Default::default() }).is_err());
    }
}
