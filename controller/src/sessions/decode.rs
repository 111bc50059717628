//! What an agent's report means.

use std::collections::{BTreeMap, BTreeSet};

use model::{AttemptId, Failure, NodeId};
use planner::Report;
use proto::convert::WireError;
use proto::v1;
use v1::report::What;

use super::progress::NPUS;

/// Longest sentence or path of a report, in bytes.
const LONGEST: usize = 4096;

/// The attempt that a report is about, and what it says.
///
/// A failure is the session's node's, whatever it says: an agent speaks only
/// for itself.
pub(super) fn report(node: &NodeId, report: v1::Report) -> Result<(AttemptId, Report), WireError> {
    let attempt: AttemptId = report.attempt.parse()?;
    let what = match report.what.ok_or(WireError::Missing("what"))? {
        What::Prepared(prepared) => Report::Prepared { port: port(prepared.port)? },
        What::Started(v1::Started {}) => Report::Started,
        What::Failed(failure) => Report::Failed(of_node(node, failure)?),
        What::Ended(ended) => Report::Ended {
            ok: ended.ok,
            output: ended.output.unwrap_or_default().try_into()?,
            failure: ended.failure.map(|failure| of_node(node, failure)).transpose()?,
            ran_ms: ended.ran_ms,
        },
        What::Returned(v1::Returned {}) => Report::Returned,
        What::Shard(shard) => Report::Shard {
            iteration: shard.iteration,
            tp: shard.tp,
            pp: shard.pp,
            path: bounded("path", shard.path)?,
            size: shard.size,
        },
        What::Tracker(tracker) => Report::Tracker { iteration: tracker.iteration },
        What::Warning(warning) => Report::Warning { message: warning.message.chars().take(1000).collect() },
    };
    Ok((attempt, what))
}

fn of_node(node: &NodeId, mut failure: v1::Failure) -> Result<Failure, WireError> {
    failure.node = node.to_string();
    failure.try_into()
}

fn port(port: u32) -> Result<u16, WireError> {
    u16::try_from(port).map_err(|_| WireError::OutOfRange {
        field: "port",
        given: u64::from(port),
        least: 0,
        most: u64::from(u16::MAX),
    })
}

fn bounded(field: &'static str, text: String) -> Result<String, WireError> {
    if text.len() > LONGEST {
        return Err(WireError::TooLong { field, given: text.len(), limit: LONGEST });
    }
    Ok(text)
}

/// Slots whose chip is in alarm. A warning is no obstacle, and what is unknown is left to the preflight, which asks again.
pub(super) fn unfit(npus: &v1::NpuHealth) -> BTreeSet<u32> {
    let alarmed = npus.npus.iter().take(NPUS).filter(|npu| ["Alarm", "Critical"].contains(&npu.health.as_str()));
    alarmed.filter_map(|npu| npu.slot).collect()
}

/// Per slot the group of chips that are near to each other; `None` unless it is known of every slot.
pub(super) fn groups(npus: &v1::NpuHealth) -> Option<Vec<u32>> {
    let of: BTreeMap<u32, u32> = npus.npus.iter().take(NPUS).filter_map(|npu| Some((npu.slot?, npu.group?))).collect();
    let slots = npus.npus.iter().take(NPUS).filter(|npu| npu.slot.is_some()).count();
    let whole = slots > 0 && u32::try_from(slots).is_ok_and(|slots| of.keys().copied().eq(0..slots));
    whole.then(|| of.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_cannot_blame_another_node() {
        let node = NodeId::new("n1").unwrap();
        let failure = v1::Failure { node: "n2".into(), cause: "exit".into(), code: 1, ..Default::default() };
        let wire = v1::Report { seq: 1, attempt: "j1.train.0.1".into(), what: Some(What::Failed(failure)) };
        let (_, Report::Failed(failure)) = report(&node, wire).unwrap() else { panic!("another report") };
        assert_eq!(failure.node, node);
    }

    #[test]
    fn only_chips_in_alarm_are_unfit() {
        let npu = |slot, health: &str| v1::Npu { slot, health: health.into(), ..Default::default() };
        let all = [(0, "OK"), (1, "Warning"), (2, "Alarm"), (3, "Critical"), (4, "UNKNOWN")];
        let mut npus: Vec<v1::Npu> = all.into_iter().map(|(slot, health)| npu(Some(slot), health)).collect();
        npus.push(npu(None, "Alarm"));
        assert_eq!(unfit(&v1::NpuHealth { npus, ..Default::default() }), BTreeSet::from([2, 3]));
    }

    #[test]
    fn groups_count_where_every_slot_has_one() {
        let of = |all: &[(Option<u32>, Option<u32>)]| {
            let npu = |(slot, group): &(Option<u32>, Option<u32>)| v1::Npu {
                slot: *slot,
                group: *group,
                ..Default::default()
            };
            groups(&v1::NpuHealth { npus: all.iter().map(npu).collect(), ..Default::default() })
        };
        assert_eq!(of(&[(Some(1), Some(2)), (Some(0), Some(0)), (None, Some(9))]), Some(vec![0, 2]));
        for unknown in [
            &[][..],
            &[(None, None)],
            &[(Some(0), None)],
            &[(Some(1), Some(0))],
            &[(Some(0), Some(0)), (Some(1), None)],
        ] {
            assert_eq!(of(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn malformed_reports_say_what_is_wrong() {
        let node = NodeId::new("n1").unwrap();
        let of = |attempt: &str, what| v1::Report { seq: 1, attempt: attempt.into(), what };
        let wrong = [
            (of("j1.train.0", None), "`j1.train.0` is no attempt id: job.stage.index.number"),
            (of("j1.train.0.1", None), "field `what` is missing"),
            (
                of("j1.train.0.1", Some(What::Prepared(v1::Prepared { port: 70_000 }))),
                "field `port` is 70000, outside 0 to 65535",
            ),
        ];
        for (wire, message) in wrong {
            assert_eq!(report(&node, wire).unwrap_err().to_string(), message);
        }
    }
}
