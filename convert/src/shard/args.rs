//! The plain values that a shard's `args` holds.

use std::collections::BTreeMap;

use model::{Deal, ModelShape, Parallel};

use crate::pickle::{Id, Pickle, Value};

/// A value of `args` that has a plain form.
#[derive(Clone, Debug, PartialEq)]
pub enum Plain {
    /// None.
    None,
    /// True or False.
    Bool(bool),
    /// An int.
    Int(i64),
    /// A float.
    Float(f64),
    /// A str.
    Str(String),
    /// A list, tuple or set of non-negative ints.
    Counts(Vec<u64>),
    /// An enum, dtype, list or other object.
    Other,
}

/// Most attributes of `args`; the reference writes about 700.
const MOST_ATTRIBUTES: usize = 4096;

/// Most bytes of a name or str that is kept, and most items of a list: each may stand under every name at no cost to
/// whoever wrote the file.
const LONGEST: usize = 4096;

/// The one attribute whose list is of interest.
const LISTED: &str = "noop_layers";

/// The attributes of a shard's `args`, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Args(BTreeMap<String, Plain>);

impl Args {
    /// Reads an `argparse.Namespace` or a plain dict; `None` where it has too many attributes.
    #[must_use]
    pub fn read(pickle: &Pickle<'_>, id: Id) -> Option<Self> {
        let pairs = pickle.pairs(id).unwrap_or_default();
        let mut all = BTreeMap::new();
        for (key, value) in pairs {
            let Some(name) = pickle.str(key).filter(|name| name.len() <= LONGEST) else { continue };
            all.insert(name.to_owned(), plain(pickle, name, value));
            if all.len() > MOST_ATTRIBUTES {
                return None;
            }
        }
        Some(Self(all))
    }

    /// The attribute, or None where absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Plain> {
        self.0.get(name)
    }

    /// A non-negative int.
    #[must_use]
    pub fn count(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Plain::Int(n)) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// A bool.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name) {
            Some(Plain::Bool(b)) => Some(*b),
            _ => None,
        }
    }

    /// Ints, also as a str with commas between them.
    #[must_use]
    pub fn counts(&self, name: &str) -> Option<Vec<u64>> {
        match self.get(name) {
            Some(Plain::Counts(counts)) => Some(counts.clone()),
            Some(Plain::Str(text)) => text.split(',').map(|number| number.trim().parse().ok()).collect(),
            _ => None,
        }
    }

    /// Whether the attribute is there and is not None.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        !matches!(self.get(name), None | Some(Plain::None))
    }

    /// Number of attributes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn plain(pickle: &Pickle<'_>, name: &str, id: Id) -> Plain {
    let counts = |items: &[Id]| -> Option<Vec<u64>> {
        let wanted = name == LISTED && items.len() <= LONGEST;
        wanted.then(|| items.iter().map(|item| pickle.count(*item)).collect())?
    };
    match pickle.get(id) {
        Value::None => Plain::None,
        Value::Bool(b) => Plain::Bool(*b),
        Value::Int(n) => Plain::Int(*n),
        Value::Float(f) => Plain::Float(*f),
        Value::Str(s) if s.len() <= LONGEST => Plain::Str((*s).to_owned()),
        Value::Tuple(items) | Value::List(items) => counts(items).map_or(Plain::Other, Plain::Counts),
        // A set, which protocol 2 writes as a call with a list.
        Value::Object { callable, args, .. } => {
            let set = matches!(pickle.get(*callable), Value::Global { name: "set" | "frozenset", .. });
            let items = pickle.items(*args).and_then(|args| pickle.items(*args.first()?));
            items.filter(|_| set).and_then(counts).map_or(Plain::Other, Plain::Counts)
        }
        Value::Str(_) | Value::Opaque | Value::Dict(_) | Value::Global { .. } | Value::Persistent(_) => Plain::Other,
    }
}

/// What a written shard's `args` says besides the shape.
#[derive(Clone, Debug)]
pub struct Written<'a> {
    /// The model.
    pub shape: &'a ModelShape,
    /// Tensor- and pipeline-parallel sizes.
    pub parallel: Parallel,
    /// How layers are dealt to the stages.
    pub deal: &'a Deal,
    /// Rows of the embedding over all ranks.
    pub padded_vocab: u64,
    /// The divisor that gave the padding.
    pub divisor: u64,
    /// Type of the shard's tensors.
    pub dtype: model::Dtype,
    /// As given on the command line.
    pub tokenizer_model: Option<&'a str>,
    /// How far training has come.
    pub progress: Progress,
}

/// How far training has come; a converted model is at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The iteration; never 0, which the reference's loader does not take.
    pub iteration: u64,
    /// Samples trained on.
    pub consumed: u64,
    /// Samples passed over.
    pub skipped: u64,
    /// Samples evaluated on.
    pub validated: u64,
}

impl Progress {
    /// That of a converted model.
    pub const BEGINNING: Self = Self { iteration: 1, consumed: 0, skipped: 0, validated: 0 };

    /// That of a shard's `args`.
    #[must_use]
    pub fn of(args: &Args, iteration: u64) -> Self {
        let count = |name| args.count(name).unwrap_or(0);
        Self {
            iteration,
            consumed: count("consumed_train_samples"),
            skipped: count("skipped_train_samples"),
            validated: count("consumed_valid_samples"),
        }
    }
}

impl Written<'_> {
    /// All attributes in order: plain values only, so that no class is needed to load them.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&'static str, Plain)> {
        let s = self.shape;
        let int = |n: u64| Plain::Int(i64::try_from(n).unwrap_or(i64::MAX));
        let text = |t: &str| Plain::Str(t.to_owned());
        let slots = self.deal.slots(s.num_layers);
        let optional = |n: Option<u64>| n.map_or(Plain::None, int);
        let per_stage = slots / u64::from(self.parallel.pp());
        let list = self.deal.list.as_ref().map(|list| list.iter().map(u64::to_string).collect::<Vec<_>>().join(","));
        let noop = Some(&self.deal.noop).filter(|noop| !noop.is_empty());
        let rotary = format!("{}", s.rope_theta).parse().map_or(Plain::Float(s.rope_theta), Plain::Int);
        vec![
            ("num_layers", int(slots)),
            ("encoder_num_layers", int(slots)),
            ("hidden_size", int(s.hidden_size)),
            ("ffn_hidden_size", int(s.ffn_hidden_size)),
            ("num_attention_heads", int(s.num_attention_heads)),
            ("kv_channels", int(s.kv_channels)),
            ("group_query_attention", Plain::Bool(s.num_query_groups != s.num_attention_heads)),
            ("num_query_groups", int(s.num_query_groups)),
            ("max_position_embeddings", int(s.max_position_embeddings)),
            ("seq_length", int(s.max_position_embeddings)),
            ("encoder_seq_length", int(s.max_position_embeddings)),
            ("position_embedding_type", text("rope")),
            ("add_position_embedding", Plain::Bool(true)),
            ("use_rotary_position_embeddings", Plain::Bool(true)),
            ("rotary_base", rotary),
            ("rotary_percent", Plain::Float(1.0)),
            ("rotary_interleaved", Plain::Bool(false)),
            ("add_bias_linear", Plain::Bool(false)),
            ("add_qkv_bias", Plain::Bool(s.qkv_bias)),
            ("add_dense_bias", Plain::Bool(false)),
            ("qk_layernorm", Plain::Bool(s.qk_norm)),
            ("swiglu", Plain::Bool(true)),
            ("untie_embeddings_and_output_weights", Plain::Bool(!s.tied)),
            ("normalization", text("RMSNorm")),
            ("norm_epsilon", Plain::Float(s.rms_norm_eps)),
            ("apply_layernorm_1p", Plain::Bool(false)),
            ("padded_vocab_size", int(self.padded_vocab)),
            ("vocab_size", int(s.vocab_size)),
            ("make_vocab_size_divisible_by", int(self.divisor)),
            ("tokenizer_type", text("Llama2Tokenizer")),
            ("tokenizer_model", self.tokenizer_model.map_or(Plain::None, text)),
            ("transformer_impl", text("local")),
            ("ckpt_format", text("torch")),
            ("use_mcore_models", Plain::Bool(true)),
            ("bf16", Plain::Bool(self.dtype == model::Dtype::Bf16)),
            ("fp16", Plain::Bool(self.dtype == model::Dtype::Fp16)),
            ("tensor_model_parallel_size", int(u64::from(self.parallel.tp()))),
            ("pipeline_model_parallel_size", int(u64::from(self.parallel.pp()))),
            ("virtual_pipeline_model_parallel_size", optional(self.deal.per_chunk.map(|n| per_stage / n.max(1)))),
            ("num_layers_per_virtual_pipeline_stage", optional(self.deal.per_chunk)),
            ("context_parallel_size", Plain::Int(1)),
            ("expert_model_parallel_size", Plain::Int(1)),
            ("num_experts", Plain::None),
            ("num_layer_list", list.map_or(Plain::None, Plain::Str)),
            ("noop_layers", noop.map_or(Plain::None, |noop| Plain::Counts(noop.clone()))),
            ("sequence_parallel", Plain::Bool(false)),
            ("use_distributed_optimizer", Plain::Bool(false)),
            ("no_save_optim", Plain::Bool(true)),
            ("no_save_rng", Plain::Bool(true)),
            ("world_size", int(self.parallel.shards())),
            ("iteration", int(self.progress.iteration)),
            ("consumed_train_samples", int(self.progress.consumed)),
            ("skipped_train_samples", int(self.progress.skipped)),
            ("consumed_valid_samples", int(self.progress.validated)),
        ]
    }
}
