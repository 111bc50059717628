//! Checkpoints that a training stage writes.

use std::collections::BTreeMap;

use crate::Timestamp;
use crate::ids::NodeId;

/// One iteration's checkpoint, assembled from what the nodes report.
///
/// Complete when all tp x pp shards are there and the tracker has reached the
/// iteration: Megatron's rank 0 writes the tracker after a barrier behind the
/// last shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// Shards by (tp, pp).
    pub shards: BTreeMap<(u32, u32), ShardRecord>,
    /// Whether a tracker naming this iteration was seen.
    pub tracked: bool,
    /// When the last piece was seen.
    pub complete: Option<Timestamp>,
    /// Whether a restart went back before it: it is not resumed from, and the
    /// trainer will write it anew.
    pub superseded: bool,
    /// Whether somebody wants it kept: it is never removed.
    pub pinned: bool,
    /// Whether the newest verification found it broken.
    pub broken: bool,
    /// Whether its files are being removed.
    pub removing: bool,
}

impl Checkpoint {
    /// Whether it can be gone on from.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.complete.is_some() && !self.superseded && !self.removing
    }
}

/// One shard file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRecord {
    /// Where it lies.
    pub node: NodeId,
    /// Its path there.
    pub path: String,
    /// Bytes.
    pub size: u64,
}
