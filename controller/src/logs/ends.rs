//! How long logs are said to be by the agents whose seats have ended.
//!
//! A report of an end overtakes the last lines, which come on a stream of their
//! own: whoever reads the logs of what has ended is told to wait for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use model::{AttemptId, NodeId};
use proto::v1;

use super::{Logs, Source, SourceName};

/// Seats whose ends are remembered; of those before, it is not known.
const KEPT: usize = 16_384;
/// Logs of one seat that are remembered.
const MOST: usize = 1_024;

/// What is left to come of a seat's logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nothing: the controller holds all of it.
    Nothing,
    /// So many bytes of these sources.
    Bytes(Vec<(Source, u64)>),
    /// The seat has not said, or that is forgotten.
    Unknown,
}

/// Lengths by seat, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    said: BTreeMap<(AttemptId, NodeId), Vec<(SourceName, u64)>>,
    order: VecDeque<(AttemptId, NodeId)>,
}

impl Logs {
    /// Remembers how long the logs of an ended seat are.
    pub(crate) fn expect(&self, attempt: &AttemptId, node: &NodeId, ends: &v1::LogEnds) {
        let lengths = ends.ends.iter().take(MOST);
        let lengths = lengths.filter_map(|end| Some((SourceName::new(&end.source).ok()?, end.bytes))).collect();
        let key = (attempt.clone(), node.clone());
        let mut inner = self.ends.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.said.insert(key.clone(), lengths).is_none() {
            inner.order.push_back(key);
        }
        if inner.order.len() > KEPT
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.said.remove(&oldest);
        }
    }

    /// What is left to come of the logs of one seat, of the sources that `passes`.
    pub(crate) fn left(&self, attempt: &AttemptId, node: &NodeId, passes: impl Fn(&Source) -> bool) -> Left {
        let said = {
            let inner = self.ends.0.lock().unwrap_or_else(PoisonError::into_inner);
            inner.said.get(&(attempt.clone(), node.clone())).cloned()
        };
        let Some(said) = said else { return Left::Unknown };
        let sources = said
            .into_iter()
            .map(|(name, bytes)| (Source { attempt: attempt.clone(), node: node.clone(), name }, bytes));
        let left = sources.filter(|(source, _)| passes(source)).filter_map(|(source, bytes)| {
            let held = std::fs::metadata(self.path(&source)).map_or(0, |meta| meta.len());
            (held < bytes).then(|| (source, bytes - held))
        });
        let left: Vec<(Source, u64)> = left.collect();
        if left.is_empty() { Left::Nothing } else { Left::Bytes(left) }
    }
}

/// `the last 12 bytes of worker_3 on node `n2` have not arrived`, of the first few.
pub(super) fn sentence(left: &[(Source, u64)]) -> String {
    let told = left
        .iter()
        .take(3)
        .map(|(source, bytes)| format!("the last {bytes} bytes of {} on node `{}`", source.name.as_str(), source.node));
    let told: Vec<String> = told.collect();
    let more = left.len().saturating_sub(told.len());
    let more = if more > 0 { format!(", and of {more} more logs,") } else { String::new() };
    format!("{}{more} have not arrived: is its agent connected?", told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Chunk;

    fn end(source: &str, bytes: u64) -> v1::LogEnd {
        v1::LogEnd { source: source.into(), bytes }
    }

    #[test]
    fn what_is_left_is_known_by_seat_and_source() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().join("logs"));
        let attempt: AttemptId = "j1.train.0.1".parse().unwrap();
        let node = NodeId::new("n1").unwrap();
        let left = |logs: &Logs| logs.left(&attempt, &node, |_| true);
        assert_eq!(left(&logs), Left::Unknown);
        let ends = vec![end("worker_0", 3), end("worker_1", 5), end("Not A Name", 9)];
        logs.expect(&attempt, &node, &v1::LogEnds { ends });
        let source =
            |name: &str| Source { attempt: attempt.clone(), node: node.clone(), name: SourceName::new(name).unwrap() };
        let append = |name: &str, data: &str| {
            let chunk = Chunk { source: source(name), offset: 0, data: data.as_bytes().to_vec(), done: false };
            logs.append(vec![chunk]).unwrap();
        };
        append("worker_0", "abc");
        append("worker_1", "ab");
        let wanted = Left::Bytes(vec![(source("worker_1"), 3)]);
        assert_eq!(left(&logs), wanted);
        assert_eq!(logs.left(&attempt, &node, |one| one.name.as_str() == "worker_0"), Left::Nothing);
        let Left::Bytes(some) = wanted else { panic!() };
        let said = "the last 3 bytes of worker_1 on node `n1` have not arrived: is its agent connected?";
        assert_eq!(sentence(&some), said);
        append("worker_1", "abcde");
        assert_eq!(left(&logs), Left::Nothing);
        for number in 0..KEPT {
            let other: AttemptId = format!("j2.train.{number}.1").parse().unwrap();
            logs.expect(&other, &node, &v1::LogEnds::default());
        }
        assert_eq!(left(&logs), Left::Unknown, "the oldest is forgotten");
    }
}
