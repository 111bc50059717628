//! The Megatron-core side: what one shard holds, and from which Hugging Face tensors.

use model::{ModelShape, Parallel, layout::padded_vocab};

use super::hf::{self, layer};
use super::{Block, Part, Tensor};
use crate::error::{Error, Result};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Tensor- and pipeline-parallel sizes.
    pub parallel: Parallel,
    /// The padded vocabulary is a multiple of this times tp.
    pub divisor: u64,
    /// Whose habits to follow.
    pub convention: Convention,
}

/// Largest `--make-vocab-size-divisible-by`.
const LARGEST_DIVISOR: u64 = 1 << 20;

/// One entry of a shard's `model` dictionary, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A tensor.
    Tensor(Tensor<String>),
    /// An entry whose value is None.
    ExtraState(String),
}

impl Cut {
    /// Checks that the cut fits the model.
    ///
    /// # Errors
    ///
    /// A layout that does not divide the model, or an impossible divisor.
    pub fn check(&self, shape: &ModelShape) -> Result<()> {
        self.parallel.check(shape)?;
        if !(1..=LARGEST_DIVISOR).contains(&self.divisor) {
            return Err(Error::usage(format!(
                "--make-vocab-size-divisible-by is {}, outside 1 to {LARGEST_DIVISOR}",
                self.divisor
            )));
        }
        let tp = u64::from(self.parallel.tp());
        if self.convention == Convention::V2 && !shape.vocab_size.is_multiple_of(tp) {
            return Err(Error::usage(format!(
                "tp {tp} does not divide vocab_size = {}, and convention v2 does not pad",
                shape.vocab_size
            ))
            .with_hint("use convention v1"));
        }
        Ok(())
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
/// The cut must have passed [`Cut::check`] and the ranks lie within it.
#[must_use]
pub fn shard(s: &ModelShape, cut: &Cut, tp: u32, pp: u32) -> Vec<Entry> {
    let per_stage = s.num_layers / u64::from(cut.parallel.pp());
    let (first, last) = (pp == 0, pp + 1 == cut.parallel.pp());
    let mut entries = Vec::new();
    if first {
        entries.push(vocabulary(s, cut, tp, "embedding.word_embeddings.weight", hf::EMBEDDING));
    }
    for local in 0..per_stage {
        push_layer(&mut entries, s, cut, tp, u64::from(pp) * per_stage + local, local);
    }
    if last {
        entries.push(whole("decoder.final_layernorm.weight", hf::NORM, s.hidden_size));
        if !s.tied {
            entries.push(vocabulary(s, cut, tp, "output_layer.weight", hf::HEAD));
        } else if !first {
            // A tied model's last stage keeps a copy of the embedding that lives on the first.
            entries.push(vocabulary(s, cut, tp, "output_layer.weight", hf::EMBEDDING));
        }
        if cut.convention == Convention::V1 {
            entries.push(Entry::ExtraState("output_layer._extra_state".to_owned()));
        }
    }
    entries
}

fn push_layer(entries: &mut Vec<Entry>, s: &ModelShape, cut: &Cut, tp: u32, l: u64, local: u64) {
    let size = u64::from(cut.parallel.tp());
    let (h, f, d) = (s.hidden_size, s.ffn_hidden_size, s.kv_channels);
    let name = |rest: &str| format!("decoder.layers.{local}.{rest}");
    let projected = s.num_attention_heads * d / size;
    let proj =
        columns(name("self_attention.linear_proj.weight"), layer(l, "self_attn.o_proj.weight"), tp, h, projected);
    let fc2 = columns(name("mlp.linear_fc2.weight"), layer(l, "mlp.down_proj.weight"), tp, h, f / size);
    let share = f / size;
    let start = u64::from(tp) * share;
    let fc1 = Entry::Tensor(Tensor {
        name: name("mlp.linear_fc1.weight"),
        shape: vec![2 * share, h],
        blocks: vec![
            Block::rows(layer(l, "mlp.gate_proj.weight"), start, share, h),
            Block::rows(layer(l, "mlp.up_proj.weight"), start, share, h),
        ],
    });
    let qkv = interleaved(s, size, tp, l, name("self_attention.linear_qkv.weight"), "weight", h);
    let bias = s.qkv_bias.then(|| interleaved(s, size, tp, l, name("self_attention.linear_qkv.bias"), "bias", 1));
    let input_norm = whole(&name("input_layernorm.weight"), &layer(l, "input_layernorm.weight"), h);
    let mlp_norm = whole(&name("pre_mlp_layernorm.weight"), &layer(l, "post_attention_layernorm.weight"), h);
    match cut.convention {
        Convention::V1 => {
            let extra = |rest: &str| Entry::ExtraState(name(rest));
            entries.extend([input_norm, proj, extra("self_attention.linear_proj._extra_state"), qkv]);
            entries.extend(bias);
            entries.extend([extra("self_attention.linear_qkv._extra_state"), mlp_norm]);
            entries.extend([fc1, extra("mlp.linear_fc1._extra_state"), fc2, extra("mlp.linear_fc2._extra_state")]);
        }
        Convention::V2 => {
            entries.extend([input_norm, mlp_norm, qkv, proj]);
            entries.extend(bias);
            entries.extend([fc1, fc2]);
        }
    }
}

fn whole(name: &str, source: &str, h: u64) -> Entry {
    Entry::Tensor(Tensor {
        name: name.to_owned(),
        shape: vec![h],
        blocks: vec![Block::rows(source.to_owned(), 0, h, 1)],
    })
}

fn columns(name: String, source: String, tp: u32, rows: u64, width: u64) -> Entry {
    let parts = vec![Part { source, first: u64::from(tp) * width, width }];
    Entry::Tensor(Tensor { name, shape: vec![rows, width], blocks: vec![Block { row: 0, rows, times: 1, parts }] })
}

/// Per query group: its query heads, then its key head, then its value head.
fn interleaved(s: &ModelShape, size: u64, tp: u32, l: u64, name: String, field: &str, width: u64) -> Entry {
    let d = s.kv_channels;
    let heads = s.num_attention_heads / s.num_query_groups;
    let groups = s.num_query_groups / size;
    let source = |which: &str| layer(l, &format!("self_attn.{which}_proj.{field}"));
    let mut blocks = Vec::new();
    for g in u64::from(tp) * groups..(u64::from(tp) + 1) * groups {
        blocks.push(Block::rows(source("q"), g * heads * d, heads * d, width));
        blocks.push(Block::rows(source("k"), g * d, d, width));
        blocks.push(Block::rows(source("v"), g * d, d, width));
    }
    let rows = (s.num_attention_heads + 2 * s.num_query_groups) * d / size;
    let shape = if field == "bias" { vec![rows] } else { vec![rows, width] };
    Entry::Tensor(Tensor { name, shape, blocks })
}

/// A rank's rows of the vocabulary; rows beyond the model's repeat its last row.
fn vocabulary(s: &ModelShape, cut: &Cut, tp: u32, name: &str, source: &str) -> Entry {
    let rows = cut.vocabulary(s) / u64::from(cut.parallel.tp());
    let start = u64::from(tp) * rows;
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
