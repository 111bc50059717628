//! Whether a shard holds exactly what its place in a model calls for.

use std::collections::BTreeSet;

use model::{Dtype, ModelShape, Parallel};

use crate::config;
use crate::error::{Error, Result};
use crate::plan::mcore::{EMBEDDING, HEAD, outline};
use crate::shard::args::Plain;
use crate::shard::{ModelEntry, Shard};

/// What a shard was found to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Rows of the embedding; on the first stage.
    pub embedding: Option<u64>,
    /// Rows of the output layer; on the last stage.
    pub head: Option<u64>,
    /// By virtual stage, the places that hold a layer, ascending.
    pub taken: Vec<Vec<u64>>,
}

/// What is said of a shard that holds other layers than the first of its stage, and the next step.
pub const OTHER_LAYERS: (&str, &str) =
    ("does not hold the layers that the stage's first shard holds", "all shards of a stage must come from one run");

/// The model that a shard's own `args` describe.
///
/// # Errors
///
/// If `args` lack a count or state an impossible one.
pub fn shape_of(shard: &Shard) -> Result<ModelShape> {
    let args = &shard.args;
    // The second name of each is config.json's, which `convert_ckpt_v2.py` keeps.
    let count = |names: [&str; 2]| {
        names
            .iter()
            .find_map(|name| args.count(name))
            .filter(|n| (1..=config::LARGEST_DIMENSION).contains(n))
            .ok_or_else(|| Error::bad(shard.path(), format!("states no usable `{}` in its `args`", names[0])))
    };
    let number = |names: [&str; 2], default: f64| {
        let stated = names.iter().find_map(|name| match args.get(name)? {
            Plain::Float(f) => Some(*f),
            #[expect(clippy::cast_precision_loss, reason = "a rotary base is far below 2^53")]
            Plain::Int(n) => Some(*n as f64),
            Plain::None | Plain::Bool(_) | Plain::Str(_) | Plain::Counts(_) | Plain::Other => None,
        });
        stated.unwrap_or(default)
    };
    let heads = count(["num_attention_heads"; 2])?;
    let hidden = count(["hidden_size"; 2])?;
    let grouped = args.flag("group_query_attention") != Some(false) || args.is_set("num_key_value_heads");
    let noop = noop_layers(shard).unwrap_or(0);
    let slots = count(["num_layers", "num_hidden_layers"])?;
    let shape = ModelShape {
        model_type: "megatron".to_owned(),
        hidden_size: hidden,
        ffn_hidden_size: count(["ffn_hidden_size", "intermediate_size"])?,
        num_layers: slots.saturating_sub(noop),
        num_attention_heads: heads,
        num_query_groups: if grouped {
            count(["num_query_groups", "num_key_value_heads"]).unwrap_or(heads)
        } else {
            heads
        },
        kv_channels: count(["kv_channels", "head_dim"]).unwrap_or(hidden / heads).max(1),
        vocab_size: count(["padded_vocab_size", "vocab_size"])?,
        max_position_embeddings: count(["max_position_embeddings"; 2]).unwrap_or(1),
        rope_theta: number(["rotary_base", "rope_theta"], 1e4),
        rms_norm_eps: number(["norm_epsilon", "rms_norm_eps"], 1e-6),
        tied: args.flag("untie_embeddings_and_output_weights") == Some(false),
        qkv_bias: args.flag("add_qkv_bias").unwrap_or(false),
        qk_norm: args.flag("qk_layernorm").unwrap_or(false),
        dtype: shard.tensors().find_map(|all| all.values().find_map(|t| t.dtype())).unwrap_or(Dtype::Fp32),
    };
    let impossible = shape.num_layers == 0
        || !config::is_countable(&shape)
        || !shape.num_attention_heads.is_multiple_of(shape.num_query_groups);
    if impossible {
        return Err(Error::bad(shard.path(), "describes an impossible model in its `args`"));
    }
    Ok(shape)
}

/// How many slots have no layer, as `args` has it; `None` where it is not readable.
#[must_use]
pub fn noop_layers(shard: &Shard) -> Option<u64> {
    if !shard.args.is_set("noop_layers") {
        return Some(0);
    }
    Some(shard.args.counts("noop_layers")?.iter().collect::<BTreeSet<_>>().len() as u64)
}

/// Checks a shard's options, names and shapes against its place.
///
/// Rows of the vocabulary and places of layers are free, since both are the
/// writer's choice; they are returned.
///
/// # Errors
///
/// The first contradiction, or an option that is not supported.
pub fn check(shard: &Shard, shape: &ModelShape, parallel: Parallel, pp: u32) -> Result<Found> {
    refuse_options(shard)?;
    check_args(shard, shape, parallel)?;
    let mut found = Found { taken: taken(shard, parallel)?, ..Found::default() };
    let wanted = outline(shape, parallel, pp, &found.taken);
    for (held, wanted) in shard.tensors().zip(wanted) {
        let mut expected = BTreeSet::new();
        for (name, wanted) in wanted {
            let bad = |reason: String| Error::bad(shard.path(), reason).with_hint(WRONG_MODEL);
            let tensor = held.get(name.as_str()).ok_or_else(|| bad(format!("holds no `{name}`")))?;
            let slot = match name.as_str() {
                EMBEDDING => Some(&mut found.embedding),
                HEAD => Some(&mut found.head),
                _ => None,
            };
            match (slot, tensor.shape.as_slice(), wanted.as_slice()) {
                (Some(slot), [count, width], [_, wanted]) if width == wanted => *slot = Some(*count),
                (None, found, wanted) if found == wanted => {}
                (_, found, wanted) => {
                    return Err(bad(format!("holds `{name}` of shape {found:?}; its model calls for {wanted:?}")));
                }
            }
            shard.matrix(&name, tensor)?;
            expected.insert(name);
        }
        let unknown = held.keys().filter(|name| !expected.contains(**name) && !name.ends_with("._extra_state")).min();
        if let Some(name) = unknown {
            return Err(unknown_tensor(shard, name));
        }
    }
    Ok(found)
}

const WRONG_MODEL: &str = "the shard belongs to another model, layout or rank";

fn unknown_tensor(shard: &Shard, name: &str) -> Error {
    let named = |what: &str| Error::unsupported(format!("`{name}` in `{}` ({what})", shard.path().display()));
    if name.contains("layer_norm_weight") {
        named("transformer_engine layers")
    } else if name.contains(".mlp.router.") || name.contains(".mlp.experts.") {
        named("mixture of experts")
    } else if name.contains("lora_") {
        named("LoRA")
    } else {
        Error::bad(shard.path(), format!("holds `{name}`, which its model does not have")).with_hint(WRONG_MODEL)
    }
}

/// The places of each chunk that hold a layer, in no more slots and virtual stages than a model may have layers.
fn taken(shard: &Shard, parallel: Parallel) -> Result<Vec<Vec<u64>>> {
    let place = |name: &str| name.strip_prefix("decoder.layers.")?.split('.').next()?.parse::<u64>().ok();
    let beyond = |what: &str| Error::bad(shard.path(), format!("{what} more than {}", config::MOST_LAYERS));
    if (shard.models.len() as u64).saturating_mul(u64::from(parallel.pp())) > config::MOST_LAYERS {
        return Err(beyond("belongs to a model whose virtual stages are"));
    }
    let (mut all, mut slots) = (Vec::new(), 0_u64);
    for tensors in shard.tensors() {
        let taken: BTreeSet<u64> = tensors.keys().filter_map(|name| place(name)).collect();
        slots = slots.saturating_add(taken.last().map_or(0, |last| last.saturating_add(1)));
        if slots > config::MOST_LAYERS {
            return Err(beyond("names layers in slots that are"));
        }
        all.push(taken.into_iter().collect());
    }
    Ok(all)
}

fn refuse_options(shard: &Shard) -> Result<()> {
    let refuse = |what: &str| Err(Error::unsupported(format!("{what} in `{}`", shard.path().display())));
    if matches!(shard.args.get("schedules_method"), Some(Plain::Str(name)) if name == "dualpipev") {
        return refuse("the order of layers that `schedules_method` dualpipev has");
    }
    if shard.args.count("num_experts").is_some_and(|n| n > 0) {
        return refuse("a mixture of experts");
    }
    if shard.args.count("mtp_num_layers").is_some_and(|n| n > 0) {
        return refuse("multi-token prediction (`mtp_num_layers`)");
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
    let slots = noop_layers(shard).map(|noop| shape.num_layers.saturating_add(noop));
    let table = [
        ("tensor_model_parallel_size", Some(u64::from(parallel.tp()))),
        ("pipeline_model_parallel_size", Some(u64::from(parallel.pp()))),
        ("num_layers", slots),
        ("hidden_size", Some(shape.hidden_size)),
        ("num_attention_heads", Some(shape.num_attention_heads)),
    ];
    for (name, wanted) in table {
        if let (Some(found), Some(wanted)) = (shard.args.count(name), wanted)
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
