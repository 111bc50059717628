//! The Hugging Face side: names, shapes, and how shards make up each tensor.

use model::{ModelShape, Parallel, Stages};

use super::layer::{Rule, Stored, Width, group_rows, stored};
use super::{Block, Part, Tensor, mcore};

/// Name of the token embedding.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the last norm.
pub const NORM: &str = "model.norm.weight";
/// Name of the output projection; absent where tied.
pub const HEAD: &str = "lm_head.weight";

/// Name of a tensor of layer `l`.
#[must_use]
pub fn layer(l: u64, rest: &str) -> String {
    format!("model.layers.{l}.{rest}")
}

/// All tensors of a model with their shapes, in the order of its modules.
#[must_use]
pub fn tensors(s: &ModelShape) -> Vec<(String, Vec<u64>)> {
    let vocabulary = vec![s.vocab_size, s.hidden_size];
    let of_layer = stored(s);
    let mut all = vec![(EMBEDDING.to_owned(), vocabulary.clone())];
    for l in 0..s.num_layers {
        all.extend(of_layer.iter().map(|one| (layer(l, one.name), one.shape.clone())));
    }
    all.push((NORM.to_owned(), vec![s.hidden_size]));
    if !s.tied {
        all.push((HEAD.to_owned(), vocabulary));
    }
    all
}

/// A tensor of one shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardTensor {
    /// Tensor-parallel rank.
    pub tp: u32,
    /// Pipeline stage.
    pub pp: u32,
    /// Which of the stage's virtual stages.
    pub chunk: u32,
    /// Name inside the shard.
    pub name: String,
}

/// How a checkpoint is cut, as its shards show it.
#[derive(Clone, Debug)]
pub struct Held {
    /// Tensor- and pipeline-parallel sizes.
    pub parallel: Parallel,
    /// Which layers are where.
    pub stages: Stages,
    /// Rows of the embedding on each tensor-parallel rank.
    pub embedding_rows: Vec<u64>,
    /// Rows of the output layer on each; empty where there is none.
    pub head_rows: Vec<u64>,
}

/// How all tensors of a model are put together again from its shards, in module order.
///
/// Rows at and beyond the vocabulary are padding and left out. `None` where a layer is in no stage.
#[must_use]
pub fn from_shards(s: &ModelShape, held: &Held) -> Option<Vec<Tensor<ShardTensor>>> {
    let last = held.parallel.pp() - 1;
    let last_chunk = u32::try_from(held.stages.chunks_per_stage()).ok()?.checked_sub(1)?;
    let vocabulary = vec![s.vocab_size, s.hidden_size];
    let of_layer = stored(s);
    let mut all = Vec::new();
    let embedding = rows_of(s, &held.embedding_rows, 0, 0, mcore::EMBEDDING);
    all.push(Tensor { name: EMBEDDING.to_owned(), shape: vocabulary.clone(), blocks: embedding });
    for l in 0..s.num_layers {
        let (pp, chunk, place) = held.stages.place(l)?;
        let at = At { s, tp: held.parallel.tp(), pp, chunk, place };
        for one in &of_layer {
            all.push(Tensor { name: layer(l, one.name), shape: one.shape.clone(), blocks: at.blocks(one) });
        }
    }
    let norm = ShardTensor { tp: 0, pp: last, chunk: last_chunk, name: mcore::NORM.to_owned() };
    let blocks = vec![Block::rows(norm, 0, s.hidden_size, 1)];
    all.push(Tensor { name: NORM.to_owned(), shape: vec![s.hidden_size], blocks });
    if !s.tied {
        let head = rows_of(s, &held.head_rows, last, last_chunk, mcore::HEAD);
        all.push(Tensor { name: HEAD.to_owned(), shape: vocabulary, blocks: head });
    }
    Some(all)
}

fn rows_of(s: &ModelShape, rows: &[u64], pp: u32, chunk: u32, name: &str) -> Vec<Block<ShardTensor>> {
    let mut left = s.vocab_size;
    let mut blocks = Vec::new();
    for (tp, held) in (0..).zip(rows) {
        let take = left.min(*held);
        if take > 0 {
            let at = ShardTensor { tp, pp, chunk, name: name.to_owned() };
            blocks.push(Block::rows(at, 0, take, s.hidden_size));
        }
        left -= take;
    }
    blocks
}

/// Where a layer is.
struct At<'a> {
    s: &'a ModelShape,
    tp: u32,
    pp: u32,
    chunk: u32,
    place: u64,
}

impl At<'_> {
    fn blocks(&self, one: &Stored) -> Vec<Block<ShardTensor>> {
        let (s, ranks, size) = (self.s, 0..self.tp, u64::from(self.tp));
        let name = mcore::layer_name(self.place, one.row);
        let source = |tp| ShardTensor { tp, pp: self.pp, chunk: self.chunk, name: name.clone() };
        match one.row.rule {
            Rule::Whole(_, width) => vec![Block::rows(source(0), 0, width.of(s), 1)],
            Rule::Columns(_, width) => {
                let part = |tp| Part { source: source(tp), first: 0, width: width.of(s) / size };
                vec![Block { row: 0, rows: s.hidden_size, times: 1, parts: ranks.map(part).collect() }]
            }
            Rule::Stacked(_, height) => {
                let share = height.of(s) / size;
                let first = one.part as u64 * share;
                ranks.map(|tp| Block::rows(source(tp), first, share, s.hidden_size)).collect()
            }
            Rule::Interleaved(_, width) => {
                let of_group = group_rows(s);
                let group: u64 = of_group.iter().map(|(_, rows)| rows).sum();
                let (skip, rows) = of_group[one.part.min(2)];
                let width = if matches!(width, Width::One) { 1 } else { width.of(s) };
                let of_rank = |tp| {
                    let source = source(tp);
                    (0..s.num_query_groups / size)
                        .map(move |j| Block::rows(source.clone(), j * group + skip, rows, width))
                };
                ranks.flat_map(of_rank).collect()
            }
        }
    }
}
