//! The Hugging Face side: names, shapes, and how shards make up each tensor.

use model::{ModelShape, Parallel};

use super::{Block, Part, Tensor};

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
    let (h, f) = (s.hidden_size, s.ffn_hidden_size);
    let (q, kv) = (s.num_attention_heads * s.kv_channels, s.num_query_groups * s.kv_channels);
    let mut all = vec![(EMBEDDING.to_owned(), vec![s.vocab_size, h])];
    for l in 0..s.num_layers {
        for (name, rows) in [("q", q), ("k", kv), ("v", kv)] {
            all.push((layer(l, &format!("self_attn.{name}_proj.weight")), vec![rows, h]));
            if s.qkv_bias {
                all.push((layer(l, &format!("self_attn.{name}_proj.bias")), vec![rows]));
            }
        }
        all.push((layer(l, "self_attn.o_proj.weight"), vec![h, q]));
        all.push((layer(l, "mlp.gate_proj.weight"), vec![f, h]));
        all.push((layer(l, "mlp.up_proj.weight"), vec![f, h]));
        all.push((layer(l, "mlp.down_proj.weight"), vec![h, f]));
        all.push((layer(l, "input_layernorm.weight"), vec![h]));
        all.push((layer(l, "post_attention_layernorm.weight"), vec![h]));
    }
    all.push((NORM.to_owned(), vec![h]));
    if !s.tied {
        all.push((HEAD.to_owned(), vec![s.vocab_size, h]));
    }
    all
}

/// A tensor of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShardTensor {
    /// Tensor-parallel rank.
    pub tp: u32,
    /// Pipeline stage.
    pub pp: u32,
    /// Name inside the shard.
    pub name: String,
}

/// How all tensors of a model are put together again from its shards.
///
/// `embedding_rows` and `head_rows` are the rows that each tensor-parallel rank
/// holds; rows at and beyond the vocabulary are padding and left out. In module order.
#[must_use]
pub fn from_shards(
    s: &ModelShape,
    parallel: Parallel,
    embedding_rows: &[u64],
    head_rows: &[u64],
) -> Vec<Tensor<ShardTensor>> {
    let last = parallel.pp() - 1;
    let per_stage = s.num_layers / u64::from(parallel.pp());
    tensors(s)
        .into_iter()
        .map(|(name, shape)| {
            let blocks = match name.as_str() {
                EMBEDDING => vocabulary(s, "embedding.word_embeddings.weight", 0, embedding_rows),
                HEAD => vocabulary(s, "output_layer.weight", last, head_rows),
                NORM => vec![Block::rows(at(0, last, "decoder.final_layernorm.weight"), 0, s.hidden_size, 1)],
                _ => layer_blocks(s, parallel, per_stage, &name),
            };
            Tensor { name, shape, blocks }
        })
        .collect()
}

fn at(tp: u32, pp: u32, name: impl Into<String>) -> ShardTensor {
    ShardTensor { tp, pp, name: name.into() }
}

fn vocabulary(s: &ModelShape, name: &str, pp: u32, rows: &[u64]) -> Vec<Block<ShardTensor>> {
    let mut left = s.vocab_size;
    let mut blocks = Vec::new();
    for (tp, held) in (0..).zip(rows) {
        let take = left.min(*held);
        if take > 0 {
            blocks.push(Block::rows(at(tp, pp, name), 0, take, s.hidden_size));
        }
        left -= take;
    }
    blocks
}

fn layer_blocks(s: &ModelShape, parallel: Parallel, per_stage: u64, name: &str) -> Vec<Block<ShardTensor>> {
    let rest = name.strip_prefix("model.layers.").unwrap_or(name);
    let (number, rest) = rest.split_once('.').unwrap_or(("0", rest));
    let l = number.parse::<u64>().unwrap_or(0);
    let pp = u32::try_from(l / per_stage).unwrap_or(0);
    let local = l % per_stage;
    let tp = u64::from(parallel.tp());
    let (h, f, d) = (s.hidden_size, s.ffn_hidden_size, s.kv_channels);
    let heads = s.num_attention_heads / s.num_query_groups;
    let source = |t: u32, rest: &str| at(t, pp, format!("decoder.layers.{local}.{rest}"));
    let ranks = 0..parallel.tp();
    let interleaved = |field: &str, skip: u64, rows: u64, width: u64| -> Vec<Block<ShardTensor>> {
        let name = format!("self_attention.linear_qkv.{field}");
        ranks
            .clone()
            .flat_map(|t| (0..s.num_query_groups / tp).map(move |j| (t, j)))
            .map(|(t, j)| Block::rows(source(t, &name), (j * (heads + 2) + skip) * d, rows * d, width))
            .collect()
    };
    let rows = |name: &str, first: u64, count: u64| -> Vec<Block<ShardTensor>> {
        ranks.clone().map(|t| Block::rows(source(t, name), first, count, h)).collect()
    };
    let columns = |name: &str, width: u64| -> Vec<Block<ShardTensor>> {
        let parts = ranks.clone().map(|t| Part { source: source(t, name), first: 0, width }).collect();
        vec![Block { row: 0, rows: h, times: 1, parts }]
    };
    match rest {
        "self_attn.q_proj.weight" => interleaved("weight", 0, heads, h),
        "self_attn.k_proj.weight" => interleaved("weight", heads, 1, h),
        "self_attn.v_proj.weight" => interleaved("weight", heads + 1, 1, h),
        "self_attn.q_proj.bias" => interleaved("bias", 0, heads, 1),
        "self_attn.k_proj.bias" => interleaved("bias", heads, 1, 1),
        "self_attn.v_proj.bias" => interleaved("bias", heads + 1, 1, 1),
        "self_attn.o_proj.weight" => columns("self_attention.linear_proj.weight", s.num_attention_heads * d / tp),
        "mlp.gate_proj.weight" => rows("mlp.linear_fc1.weight", 0, f / tp),
        "mlp.up_proj.weight" => rows("mlp.linear_fc1.weight", f / tp, f / tp),
        "mlp.down_proj.weight" => columns("mlp.linear_fc2.weight", f / tp),
        "input_layernorm.weight" => vec![Block::rows(source(0, "input_layernorm.weight"), 0, h, 1)],
        "post_attention_layernorm.weight" => vec![Block::rows(source(0, "pre_mlp_layernorm.weight"), 0, h, 1)],
        other => unreachable!("`{other}` is no name that `tensors` gives"),
    }
}
