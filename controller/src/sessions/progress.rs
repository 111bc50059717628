//! How far seats say they are: never stored, never acknowledged.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dashmap::DashMap;
use model::{AttemptId, NodeId};
use prost::Message as _;
use proto::v1;

/// Attempts kept of one node; beyond, those that it no longer runs go first.
const PER_NODE: usize = 4096;

/// NPUs kept of one node, and as many processes.
pub(super) const NPUS: usize = 64;
/// Error codes kept of one NPU.
const CODES: usize = 16;

/// Newest progress by node and attempt, and the newest health by node.
#[derive(Debug, Default)]
pub struct Progress {
    nodes: DashMap<NodeId, HashMap<AttemptId, Latest>>,
    health: DashMap<NodeId, v1::NodeHealth>,
    /// As bytes: thousands of nodes say it again and again, and few ask.
    npus: DashMap<NodeId, Vec<u8>>,
    /// Milliseconds that a node's clock is ahead of this one.
    clocks: DashMap<NodeId, i64>,
}

/// The newest word of one seat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latest {
    /// Of an engine.
    pub engine: Option<v1::EngineProgress>,
    /// Of a trainer.
    pub train: Option<v1::TrainProgress>,
}

impl Progress {
    /// Takes a seat's word.
    pub(crate) fn put(&self, node: &NodeId, attempt: AttemptId, what: v1::progress::What) {
        let mut node = self.nodes.entry(node.clone()).or_default();
        if node.len() >= PER_NODE && !node.contains_key(&attempt) {
            return;
        }
        let latest = node.entry(attempt).or_default();
        match what {
            v1::progress::What::Engine(engine) => latest.engine = Some(engine),
            v1::progress::What::Train(train) => latest.train = Some(train),
        }
    }

    /// Makes room where a node's table is nearly full.
    pub(crate) fn retain(&self, node: &NodeId, live: &BTreeSet<AttemptId>) {
        if let Some(mut known) = self.nodes.get_mut(node)
            && known.len() >= PER_NODE / 2
        {
            known.retain(|attempt, _| live.contains(attempt));
        }
    }

    /// The newest word about `attempt`, by each of the nodes that have a seat of it.
    #[must_use]
    pub fn of<'a>(&self, attempt: &AttemptId, nodes: impl IntoIterator<Item = &'a NodeId>) -> BTreeMap<NodeId, Latest> {
        let word = |node: &NodeId| Some((node.clone(), self.nodes.get(node)?.get(attempt)?.clone()));
        nodes.into_iter().filter_map(word).collect()
    }

    /// Takes a node's time, as it arrives; 0 = it does not tell.
    pub(crate) fn put_clock(&self, node: &NodeId, theirs_ms: u64, ours_ms: u64) {
        if theirs_ms > 0 {
            let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
            self.clocks.insert(node.clone(), signed(theirs_ms).saturating_sub(signed(ours_ms)));
        }
    }

    /// How far a node's clock was ahead at its newest beat, in milliseconds.
    #[must_use]
    pub fn clock(&self, node: &NodeId) -> Option<i64> {
        self.clocks.get(node).map(|ahead| *ahead)
    }

    /// Takes a node's health.
    pub(crate) fn put_health(&self, node: &NodeId, health: v1::NodeHealth) {
        self.health.insert(node.clone(), health);
    }

    /// Takes what a node says of its NPUs, within bounds.
    pub(crate) fn put_npus(&self, node: &NodeId, mut npus: v1::NpuHealth) {
        let cut = |text: &mut String, most: usize| {
            if text.len() > most {
                *text = text.chars().take(most).collect();
            }
        };
        npus.npus.truncate(NPUS);
        npus.processes.truncate(NPUS);
        for npu in &mut npus.npus {
            npu.error_codes.truncate(CODES);
            npu.error_codes.iter_mut().for_each(|code| cut(code, 16));
            let texts = [&mut npu.name, &mut npu.health, &mut npu.bus_id, &mut npu.link, &mut npu.network];
            texts.into_iter().for_each(|text| cut(text, 64));
        }
        npus.processes.iter_mut().for_each(|process| cut(&mut process.name, 64));
        [&mut npus.driver, &mut npus.firmware, &mut npus.cann].into_iter().for_each(|text| cut(text, 64));
        cut(&mut npus.error, 500);
        let bytes = npus.encode_to_vec();
        match self.npus.get_mut(node) {
            Some(mut known) => *known = bytes,
            None => _ = self.npus.insert(node.clone(), bytes),
        }
    }

    /// A node's newest word about its NPUs.
    #[must_use]
    pub fn npus(&self, node: &NodeId) -> Option<v1::NpuHealth> {
        v1::NpuHealth::decode(self.npus.get(node)?.as_slice()).ok()
    }

    /// A node's newest health.
    #[must_use]
    pub fn health(&self, node: &NodeId) -> Option<v1::NodeHealth> {
        self.health.get(node).map(|health| *health)
    }
}
