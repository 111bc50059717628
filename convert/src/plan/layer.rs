//! What one decoder layer holds, as data: both directions are read from this table.
//!
//! Names of the left side: Megatron-LM core_v0.12.1's local transformer layer.
//! Of the right side: transformers' Qwen2, Qwen3, Llama and Mistral.

use model::ModelShape;

/// A tensor of a layer, on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Name below `decoder.layers.N.`.
    pub mcore: &'static str,
    /// How it is made of the Hugging Face tensors.
    pub rule: Rule,
    /// Which models have it.
    pub needs: Needs,
    /// The module whose `_extra_state` convention v1 writes behind it.
    pub extra: Option<&'static str>,
    /// Place in convention v2's order.
    pub v2: u8,
}

/// How a tensor is cut; names are below `model.layers.N.`.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// Every rank holds all of it.
    Whole(&'static str, Width),
    /// Each rank holds a range of columns.
    Columns(&'static str, Width),
    /// Each rank holds a range of rows of both, the first's before the second's.
    Stacked([&'static str; 2], Width),
    /// Per query group: query heads, key head, value head; each rank holds a range of groups.
    Interleaved([&'static str; 3], Width),
}

/// A dimension of the model.
#[derive(Clone, Copy, Debug)]
pub enum Width {
    /// A vector's elements, one a row.
    One,
    /// Width of the residual stream.
    Hidden,
    /// Width of a head.
    Head,
    /// All query heads together.
    Heads,
    /// Width of the MLP.
    Ffn,
}

/// What a model must have for a tensor to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: all models have it.
    Nothing,
    /// Biases on q, k and v.
    QkvBias,
    /// Norms on q and k.
    QkNorm,
}

/// All tensors of a layer, in the order of Megatron's modules.
pub const LAYER: [Row; 9] = [
    row("input_layernorm.weight", Rule::Whole("input_layernorm.weight", Width::Hidden), Needs::Nothing, None, 0),
    row(
        "self_attention.linear_proj.weight",
        Rule::Columns("self_attn.o_proj.weight", Width::Heads),
        Needs::Nothing,
        Some("self_attention.linear_proj"),
        3,
    ),
    row("self_attention.linear_qkv.weight", Rule::Interleaved(QKV, Width::Hidden), Needs::Nothing, Some(QKV_MODULE), 2),
    row("self_attention.linear_qkv.bias", Rule::Interleaved(QKV_BIAS, Width::One), Needs::QkvBias, Some(QKV_MODULE), 6),
    row(
        "self_attention.q_layernorm.weight",
        Rule::Whole("self_attn.q_norm.weight", Width::Head),
        Needs::QkNorm,
        None,
        4,
    ),
    row(
        "self_attention.k_layernorm.weight",
        Rule::Whole("self_attn.k_norm.weight", Width::Head),
        Needs::QkNorm,
        None,
        5,
    ),
    row(
        "pre_mlp_layernorm.weight",
        Rule::Whole("post_attention_layernorm.weight", Width::Hidden),
        Needs::Nothing,
        None,
        1,
    ),
    row(
        "mlp.linear_fc1.weight",
        Rule::Stacked(["mlp.gate_proj.weight", "mlp.up_proj.weight"], Width::Ffn),
        Needs::Nothing,
        Some("mlp.linear_fc1"),
        7,
    ),
    row(
        "mlp.linear_fc2.weight",
        Rule::Columns("mlp.down_proj.weight", Width::Ffn),
        Needs::Nothing,
        Some("mlp.linear_fc2"),
        8,
    ),
];

const QKV_MODULE: &str = "self_attention.linear_qkv";
const QKV: [&str; 3] = ["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"];
const QKV_BIAS: [&str; 3] = ["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"];

/// The order of transformers' modules, in which files of a model are filled.
const HF_ORDER: [&str; 13] = [
    "self_attn.q_proj.weight",
    "self_attn.q_proj.bias",
    "self_attn.k_proj.weight",
    "self_attn.k_proj.bias",
    "self_attn.v_proj.weight",
    "self_attn.v_proj.bias",
    "self_attn.o_proj.weight",
    "self_attn.q_norm.weight",
    "self_attn.k_norm.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
    "input_layernorm.weight",
];

const fn row(mcore: &'static str, rule: Rule, needs: Needs, extra: Option<&'static str>, v2: u8) -> Row {
    Row { mcore, rule, needs, extra, v2 }
}

/// The rows that a model has.
pub fn rows(s: &ModelShape) -> impl Iterator<Item = &'static Row> {
    let has = [(Needs::Nothing, true), (Needs::QkvBias, s.qkv_bias), (Needs::QkNorm, s.qk_norm)];
    LAYER.iter().filter(move |row| has.contains(&(row.needs, true)))
}

/// A Hugging Face tensor of a layer: its name, its shape, and the row and part of it that it is.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Name below `model.layers.N.`.
    pub name: &'static str,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// The row that holds it.
    pub row: &'static Row,
    /// Which of the row's sources it is.
    pub part: usize,
}

/// The tensors of a layer on the Hugging Face side, in the order of its modules.
#[must_use]
pub fn stored(s: &ModelShape) -> Vec<Stored> {
    let mut all: Vec<Stored> = Vec::new();
    for row in rows(s) {
        let mut add = |name, part, shape: Vec<u64>| all.push(Stored { name, shape, row, part });
        match row.rule {
            Rule::Whole(name, width) => add(name, 0, vec![width.of(s)]),
            Rule::Columns(name, width) => add(name, 0, vec![s.hidden_size, width.of(s)]),
            Rule::Stacked(names, height) => {
                for (part, name) in names.into_iter().enumerate() {
                    add(name, part, vec![height.of(s), s.hidden_size]);
                }
            }
            Rule::Interleaved(names, width) => {
                for (part, name) in names.into_iter().enumerate() {
                    let rows = if part == 0 { s.num_attention_heads } else { s.num_query_groups } * s.kv_channels;
                    add(name, part, if matches!(width, Width::One) { vec![rows] } else { vec![rows, width.of(s)] });
                }
            }
        }
    }
    all.sort_by_key(|stored| HF_ORDER.iter().position(|name| *name == stored.name).unwrap_or(HF_ORDER.len()));
    all
}

impl Width {
    /// The dimension's size in a model.
    #[must_use]
    pub fn of(self, s: &ModelShape) -> u64 {
        match self {
            Self::One => 1,
            Self::Hidden => s.hidden_size,
            Self::Head => s.kv_channels,
            Self::Heads => s.num_attention_heads * s.kv_channels,
            Self::Ffn => s.ffn_hidden_size,
        }
    }
}

/// The rows of one query group in the interleaved projection: where each of q, k, v begins, and how many.
#[must_use]
pub fn group_rows(s: &ModelShape) -> [(u64, u64); 3] {
    let (heads, d) = (s.num_attention_heads / s.num_query_groups, s.kv_channels);
    [(0, heads * d), (heads * d, d), ((heads + 1) * d, d)]
}
