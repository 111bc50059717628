//! The Megatron-core side: what one shard holds, and from which Hugging Face tensors.

use model::stages::Slot;
use model::{Deal, ModelShape, Parallel, Stages, layout::padded_vocab};

use super::hf::{self, layer};
use super::layer::{Row, Rule, Width, group_rows, rows};
use super::{Block, Part, Tensor};
use crate::error::{Error, Result};

/// The embedding's name.
pub const EMBEDDING: &str = "embedding.word_embeddings.weight";
/// The last norm's name.
pub const NORM: &str = "decoder.final_layernorm.weight";
/// The output layer's name.
pub const HEAD: &str = "output_layer.weight";

/// Whose habits a written shard follows; loaders accept both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Convention {
    /// `convert_ckpt.py`: padded vocabulary, `_extra_state: None` entries.
    #[default]
    V1,
    /// `convert_ckpt_v2.py`: neither.
    V2,
}

/// How a model is cut and padded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Tensor- and pipeline-parallel sizes.
    pub parallel: Parallel,
    /// How layers are dealt to the stages.
    pub deal: Deal,
    /// The padded vocabulary is a multiple of this times tp.
    pub divisor: u64,
    /// Whose habits to follow.
    pub convention: Convention,
}

/// Largest `--make-vocab-size-divisible-by`.
const LARGEST_DIVISOR: u64 = 1 << 20;

/// One entry of a shard's `model` dictionary, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry<S = String> {
    /// A tensor.
    Tensor(Tensor<S>),
    /// An entry whose value is None.
    ExtraState(String),
}

/// One `model` dictionary of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk<S = String> {
    /// `model`, or `model0`, `model1`, … with virtual pipeline stages.
    pub key: String,
    /// Its entries in order.
    pub entries: Vec<Entry<S>>,
}

/// The key of a chunk.
#[must_use]
pub fn chunk_key(chunk: u32, of: usize) -> String {
    if of == 1 { "model".to_owned() } else { format!("model{chunk}") }
}

impl Cut {
    /// Equal blocks of layers, vocabulary padded to a multiple of tp.
    #[must_use]
    pub fn even(parallel: Parallel, convention: Convention) -> Self {
        Self { parallel, deal: Deal::default(), divisor: 1, convention }
    }

    /// Checks that the cut fits the model, and deals its layers.
    ///
    /// # Errors
    ///
    /// A layout that does not divide the model, or an impossible divisor.
    pub fn stages(&self, shape: &ModelShape) -> Result<Stages> {
        self.parallel.check_tensors(shape)?;
        let stages = Stages::new(self.parallel.pp(), shape.num_layers, &self.deal)?;
        if !(1..=LARGEST_DIVISOR).contains(&self.divisor) {
            return Err(Error::usage(format!(
                "--make-vocab-size-divisible-by is {}, outside 1 to {LARGEST_DIVISOR}",
                self.divisor
            )));
        }
        let tp = u64::from(self.parallel.tp());
        if self.convention == Convention::V2 {
            let why = if self.divisor != 1 {
                format!("--make-vocab-size-divisible-by {} asks for padding", self.divisor)
            } else if !shape.vocab_size.is_multiple_of(tp) {
                format!("tp {tp} does not divide vocab_size = {}", shape.vocab_size)
            } else {
                return Ok(stages);
            };
            return Err(Error::usage(format!("{why}, and convention v2 does not pad")).with_hint("use convention v1"));
        }
        Ok(stages)
    }

    /// Rows of the embedding over all ranks.
    #[must_use]
    pub fn vocabulary(&self, shape: &ModelShape) -> u64 {
        match self.convention {
            Convention::V1 => padded_vocab(shape.vocab_size, self.divisor, self.parallel.tp()),
            Convention::V2 => shape.vocab_size,
        }
    }
}

/// What the shard of tensor rank `tp` and stage `pp` holds, in order.
///
/// `stages` must be the cut's, and the ranks lie within it.
#[must_use]
pub fn shard(s: &ModelShape, cut: &Cut, stages: &Stages, tp: u32, pp: u32) -> Vec<Chunk> {
    let rank = Rank { s, cut, tp: u64::from(tp) };
    let held = stages.chunks(pp);
    (0..)
        .zip(held)
        .map(|(chunk, slots)| {
            let ends = Ends::of(cut.parallel, pp, chunk, held.len());
            Chunk { key: chunk_key(chunk, held.len()), entries: rank.chunk(slots, ends) }
        })
        .collect()
}

/// A tensor's name and shape.
pub type Named = (String, Vec<u64>);

/// What each chunk of a shard of stage `pp` calls for, whose layers stand at the places of `taken`.
///
/// The vocabulary has all its rows: how many of them a rank has is the writer's
/// choice. Nothing grows with the sizes, unlike a plan: a stranger states them.
#[must_use]
pub fn outline(s: &ModelShape, parallel: Parallel, pp: u32, taken: &[Vec<u64>]) -> Vec<Vec<Named>> {
    let size = u64::from(parallel.tp());
    let vocabulary = |name: &str| (name.to_owned(), vec![s.vocab_size, s.hidden_size]);
    let chunk = |(chunk, places): (u32, &Vec<u64>)| {
        let ends = Ends::of(parallel, pp, chunk, taken.len());
        let mut held = Vec::new();
        held.extend(ends.first.then(|| vocabulary(EMBEDDING)));
        for place in places {
            held.extend(rows(s).map(|row| (layer_name(*place, row), row_shape(s, row, size))));
        }
        held.extend(ends.last.then(|| (NORM.to_owned(), vec![s.hidden_size])));
        held.extend(ends.head(s).map(|_| vocabulary(HEAD)));
        held
    };
    (0..).zip(taken).map(chunk).collect()
}

/// The name of a layer's tensor in a shard.
#[must_use]
pub fn layer_name(place: u64, row: &Row) -> String {
    format!("decoder.layers.{place}.{}", row.mcore)
}

/// The shape of a layer's tensor on each of `size` ranks.
fn row_shape(s: &ModelShape, row: &Row, size: u64) -> Vec<u64> {
    match row.rule {
        Rule::Whole(_, width) => vec![width.of(s)],
        Rule::Columns(_, width) => vec![s.hidden_size, width.of(s) / size],
        Rule::Stacked(_, height) => vec![2 * (height.of(s) / size), s.hidden_size],
        Rule::Interleaved(_, width) => {
            let rows = s.num_query_groups / size * group_rows(s).iter().map(|(_, rows)| rows).sum::<u64>();
            if matches!(width, Width::One) { vec![rows] } else { vec![rows, width.of(s)] }
        }
    }
}

/// Which ends of the model a chunk has.
#[derive(Clone, Copy)]
struct Ends {
    first: bool,
    last: bool,
    /// Whether the last stage is the first one too.
    alone: bool,
}

impl Ends {
    fn of(parallel: Parallel, pp: u32, chunk: u32, chunks: usize) -> Self {
        let (first, last) = (pp == 0, pp + 1 == parallel.pp());
        Self { first: first && chunk == 0, last: last && chunk as usize + 1 == chunks, alone: first }
    }

    /// What the output layer is made of, where there is one.
    fn head(self, s: &ModelShape) -> Option<&'static str> {
        // A tied model's last stage keeps a copy of the embedding that lives on the first.
        let source = if s.tied { hf::EMBEDDING } else { hf::HEAD };
        (self.last && !(s.tied && self.alone)).then_some(source)
    }
}

struct Rank<'a> {
    s: &'a ModelShape,
    cut: &'a Cut,
    tp: u64,
}

impl Rank<'_> {
    fn chunk(&self, slots: &[Slot], ends: Ends) -> Vec<Entry> {
        let mut entries = Vec::new();
        if ends.first {
            entries.push(self.vocabulary(EMBEDDING, hf::EMBEDDING));
        }
        for (place, slot) in (0..).zip(slots) {
            if let Some(l) = slot {
                self.layer(&mut entries, *l, place);
            }
        }
        if ends.last {
            entries.push(whole(NORM.to_owned(), hf::NORM.to_owned(), self.s.hidden_size));
            entries.extend(ends.head(self.s).map(|source| self.vocabulary(HEAD, source)));
            if self.cut.convention == Convention::V1 {
                entries.push(Entry::ExtraState("output_layer._extra_state".to_owned()));
            }
        }
        entries
    }

    fn layer(&self, entries: &mut Vec<Entry>, l: u64, place: u64) {
        let mut all: Vec<&Row> = rows(self.s).collect();
        if self.cut.convention == Convention::V2 {
            all.sort_by_key(|row| row.v2);
        }
        for (i, row) in all.iter().enumerate() {
            entries.push(Entry::Tensor(self.tensor(row, l, place)));
            // A module's state follows the last of its tensors.
            let next = all.get(i + 1).and_then(|row| row.extra);
            if self.cut.convention == Convention::V1
                && let Some(module) = row.extra.filter(|module| next != Some(*module))
            {
                entries.push(Entry::ExtraState(format!("decoder.layers.{place}.{module}._extra_state")));
            }
        }
    }

    fn tensor(&self, row: &Row, l: u64, place: u64) -> Tensor<String> {
        let (s, size) = (self.s, u64::from(self.cut.parallel.tp()));
        let h = s.hidden_size;
        let blocks = match row.rule {
            Rule::Whole(source, width) => vec![Block::rows(layer(l, source), 0, width.of(s), 1)],
            Rule::Columns(source, width) => {
                let width = width.of(s) / size;
                let parts = vec![Part { source: layer(l, source), first: self.tp * width, width }];
                vec![Block { row: 0, rows: h, times: 1, parts }]
            }
            Rule::Stacked(sources, height) => {
                let share = height.of(s) / size;
                let block = |source| Block::rows(layer(l, source), self.tp * share, share, h);
                sources.into_iter().map(block).collect()
            }
            Rule::Interleaved(sources, width) => {
                let groups = s.num_query_groups / size;
                let of_group = group_rows(s);
                let blocks = (self.tp * groups..(self.tp + 1) * groups).flat_map(|group| {
                    let of = move |(source, (_, rows)): (&'static str, (u64, u64))| {
                        Block::rows(layer(l, source), group * rows, rows, width.of(s))
                    };
                    sources.into_iter().zip(of_group).map(of)
                });
                blocks.collect()
            }
        };
        Tensor { name: layer_name(place, row), shape: row_shape(s, row, size), blocks }
    }

    /// A rank's rows of the vocabulary; rows beyond the model's replicate its last.
    fn vocabulary(&self, name: &str, source: &str) -> Entry {
        let s = self.s;
        let rows = self.cut.vocabulary(s) / u64::from(self.cut.parallel.tp());
        let start = self.tp * rows;
        let real = s.vocab_size.saturating_sub(start).min(rows);
        let mut blocks = Vec::new();
        if real > 0 {
            blocks.push(Block::rows(source.to_owned(), start, real, s.hidden_size));
        }
        if real < rows {
            let last = Block::rows(source.to_owned(), s.vocab_size - 1, 1, s.hidden_size);
            blocks.push(Block { times: rows - real, ..last });
        }
        Entry::Tensor(Tensor { name: name.to_owned(), shape: vec![rows, s.hidden_size], blocks })
    }
}

fn whole(name: String, source: String, h: u64) -> Entry {
    Entry::Tensor(Tensor { name, shape: vec![h], blocks: vec![Block::rows(source, 0, h, 1)] })
}
