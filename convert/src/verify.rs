//! Whether a shard holds exactly what its place in a model calls for.

use std::collections::BTreeSet;

use model::{Dtype, ModelShape, Parallel};

use crate::config;
use crate::error::{Error, Result};
use crate::plan::mcore::{Convention, Cut, Entry, shard as plan};
use crate::shard::args::Plain;
use crate::shard::{ModelEntry, Shard};

/// Rows of the vocabulary that a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Of the embedding; on the first stage.
    pub embedding: Option<u64>,
    /// Of the output layer; on the last stage.
    pub head: Option<u64>,
}

/// The model that a shard's own `args` describe.
///
/// # Errors
///
/// If `args` lack a count or state an impossible one.
pub fn shape_of(shard: &Shard) -> Result<ModelShape> {
    let args = &shard.args;
    let count = |name: &str| {
        args.count(name)
            .filter(|n| (1..=config::LARGEST_DIMENSION).contains(n))
            .ok_or_else(|| Error::bad(shard.path(), format!("states no usable `{name}` in its `args`")))
    };
    let number = |name: &str, default: f64| match args.get(name) {
        Some(Plain::Float(f)) => *f,
        #[expect(clippy::cast_precision_loss, reason = "a rotary base is far below 2^53")]
        Some(Plain::Int(n)) => *n as f64,
        _ => default,
    };
    let heads = count("num_attention_heads")?;
    let hidden = count("hidden_size")?;
    let grouped = args.flag("group_query_attention") != Some(false);
    let shape = ModelShape {
        model_type: "megatron".to_owned(),
        hidden_size: hidden,
        ffn_hidden_size: count("ffn_hidden_size")?,
        num_layers: count("num_layers")?,
        num_attention_heads: heads,
        num_query_groups: if grouped { count("num_query_groups").unwrap_or(heads) } else { heads },
        kv_channels: count("kv_channels").unwrap_or(hidden / heads).max(1),
        vocab_size: count("padded_vocab_size").or_else(|_| count("vocab_size"))?,
        max_position_embeddings: count("max_position_embeddings").unwrap_or(1),
        rope_theta: number("rotary_base", 1e4),
        rms_norm_eps: number("norm_epsilon", 1e-6),
        tied: args.flag("untie_embeddings_and_output_weights") == Some(false),
        qkv_bias: args.flag("add_qkv_bias").unwrap_or(false),
        qk_norm: args.flag("qk_layernorm").unwrap_or(false),
        dtype: shard.tensors().values().find_map(|t| t.dtype()).unwrap_or(Dtype::Fp32),
    };
    if !config::is_countable(&shape) || !shape.num_attention_heads.is_multiple_of(shape.num_query_groups) {
        return Err(Error::bad(shard.path(), "describes an impossible model in its `args`"));
    }
    Ok(shape)
}

/// Checks a shard's options, names and shapes against its place.
///
/// Rows of the vocabulary are free, since padding is the writer's choice; they are returned.
///
/// # Errors
///
/// The first contradiction, or an option that is not supported.
pub fn check(shard: &Shard, shape: &ModelShape, parallel: Parallel, tp: u32, pp: u32) -> Result<Rows> {
    refuse_options(shard)?;
    check_args(shard, shape, parallel)?;
    let cut = Cut { parallel, divisor: 1, convention: Convention::V1 };
    let held = shard.tensors();
    let mut expected = BTreeSet::new();
    let mut rows = Rows::default();
    for entry in plan(shape, &cut, tp, pp) {
        let Entry::Tensor(tensor) = entry else { continue };
        let bad = |reason: String| Error::bad(shard.path(), reason).with_hint(WRONG_MODEL);
        let found = held.get(tensor.name.as_str()).ok_or_else(|| bad(format!("holds no `{}`", tensor.name)))?;
        let slot = match tensor.name.as_str() {
            "embedding.word_embeddings.weight" => Some(&mut rows.embedding),
            "output_layer.weight" => Some(&mut rows.head),
            _ => None,
        };
        match (slot, found.shape.as_slice(), tensor.shape.as_slice()) {
            (Some(slot), [count, width], [_, wanted]) if width == wanted => *slot = Some(*count),
            (None, found, wanted) if found == wanted => {}
            (_, found, wanted) => {
                return Err(bad(format!("holds `{}` of shape {found:?}; its model calls for {wanted:?}", tensor.name)));
            }
        }
        shard.matrix(&tensor.name, found)?;
        expected.insert(tensor.name);
    }
    let unknown = held.keys().filter(|name| !expected.contains(**name) && !name.ends_with("._extra_state")).min();
    match unknown {
        Some(name) if name.contains("layer_norm_weight") => {
            Err(Error::unsupported(format!("`{name}` in `{}` (transformer_engine layers)", shard.path().display())))
        }
        Some(name) => {
            Err(Error::bad(shard.path(), format!("holds `{name}`, which its model does not have"))
                .with_hint(WRONG_MODEL))
        }
        None => Ok(rows),
    }
}

const WRONG_MODEL: &str = "the shard belongs to another model, layout or rank";

fn refuse_options(shard: &Shard) -> Result<()> {
    let refuse = |what: &str| Err(Error::unsupported(format!("{what} in `{}`", shard.path().display())));
    if shard.models.iter().any(|(key, _)| key != "model") || shard.args.is_set("virtual_pipeline_model_parallel_size") {
        return refuse("virtual pipeline stages");
    }
    if shard.args.is_set("noop_layers") {
        return refuse("`noop_layers`");
    }
    if shard.args.is_set("num_layer_list") {
        return refuse("`num_layer_list`");
    }
    if shard.args.is_set("num_experts") {
        return refuse("a mixture of experts");
    }
    if shard.args.flag("qk_layernorm") == Some(true) {
        return refuse("a norm on q and k (`qk_layernorm`)");
    }
    for (name, entry) in shard.models.iter().flat_map(|(_, entries)| entries) {
        if *entry == ModelEntry::Other && !name.ends_with("._extra_state") {
            return Err(Error::bad(shard.path(), format!("holds `{name}` in a form that is no tensor")));
        }
    }
    Ok(())
}

/// `args` may be silent, but must not contradict.
fn check_args(shard: &Shard, shape: &ModelShape, parallel: Parallel) -> Result<()> {
    let table = [
        ("tensor_model_parallel_size", u64::from(parallel.tp())),
        ("pipeline_model_parallel_size", u64::from(parallel.pp())),
        ("num_layers", shape.num_layers),
        ("hidden_size", shape.hidden_size),
        ("num_attention_heads", shape.num_attention_heads),
    ];
    for (name, wanted) in table {
        if let Some(found) = shard.args.count(name)
            && found != wanted
        {
            return Err(Error::bad(
                shard.path(),
                format!("states {name} = {found} in its `args`; {wanted} is called for"),
            )
            .with_hint(WRONG_MODEL));
        }
    }
    Ok(())
}
