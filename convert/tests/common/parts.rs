//! A shard taken apart, to be put together otherwise.

use std::fs;
use std::path::Path;

use convert::pickle::write::Writer as Pickler;
use convert::shard::args::Plain;
use convert::shard::{ModelEntry, Shard};
use convert::zip::{Archive, Writer as Zipper};
use model::Dtype;

/// What of `args` is kept.
const ARGS: [&str; 21] = [
    "num_layers",
    "hidden_size",
    "ffn_hidden_size",
    "num_attention_heads",
    "kv_channels",
    "group_query_attention",
    "num_query_groups",
    "max_position_embeddings",
    "rotary_base",
    "norm_epsilon",
    "add_qkv_bias",
    "qk_layernorm",
    "untie_embeddings_and_output_weights",
    "padded_vocab_size",
    "vocab_size",
    "make_vocab_size_divisible_by",
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "noop_layers",
    "world_size",
    "no_save_optim",
];

/// A tensor of a shard.
#[derive(Clone)]
pub(crate) struct Weights {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

/// A shard's content.
pub(crate) struct Parts {
    pub(crate) args: Vec<(String, Plain)>,
    pub(crate) iteration: u64,
    /// By `model` dictionary, the tensors.
    pub(crate) models: Vec<(String, Vec<(String, Weights)>)>,
}

impl Parts {
    /// Reads a shard that this program wrote.
    pub(crate) fn read(path: &Path) -> Self {
        let shard = Shard::open(path).unwrap();
        let archive = Archive::parse(path, shard.bytes()).unwrap();
        let mut models = Vec::new();
        for (key, entries) in &shard.models {
            let mut all = Vec::new();
            for (name, entry) in entries {
                let ModelEntry::Tensor(tensor) = entry else { continue };
                let at = archive.find(&format!("model_optim_rng/data/{}", tensor.key)).unwrap();
                let bytes = shard.bytes()[at.range.clone()].to_vec();
                all.push((
                    name.clone(),
                    Weights { dtype: tensor.dtype().unwrap(), shape: tensor.shape.clone(), bytes },
                ));
            }
            models.push((key.clone(), all));
        }
        let args = ARGS.iter().filter_map(|name| Some(((*name).to_owned(), shard.args.get(name)?.clone()))).collect();
        Self { args, iteration: shard.iteration().unwrap(), models }
    }

    /// Writes it in place of another.
    pub(crate) fn write(&self, path: &Path) {
        let mut p = Pickler::default();
        p.empty_dict().mark();
        p.str("args").empty_dict().mark();
        for (key, value) in &self.args {
            p.str(key);
            match value {
                Plain::None | Plain::Other => p.none(),
                Plain::Bool(b) => p.bool(*b),
                Plain::Int(n) => p.int(*n),
                Plain::Float(f) => p.float(*f),
                Plain::Str(s) => p.str(s),
                Plain::Counts(counts) => p.list(counts),
            };
        }
        p.set_items();
        p.str("iteration").count(self.iteration);
        let mut payloads = Vec::new();
        for (key, tensors) in &self.models {
            p.str(key).empty_dict().mark();
            for (name, weights) in tensors {
                p.str(name);
                let key = payloads.len().to_string();
                let elements: u64 = weights.shape.iter().product();
                let storage = match weights.dtype {
                    Dtype::Bf16 => "BFloat16Storage",
                    Dtype::Fp16 => "HalfStorage",
                    Dtype::Fp32 => "FloatStorage",
                };
                p.global("torch._utils", "_rebuild_tensor_v2").mark();
                p.mark().str("storage").global("torch", storage).str(&key).str("cpu").count(elements);
                p.tuple().persistent();
                let strides = if let [_, width] = weights.shape[..] { vec![width, 1] } else { vec![1] };
                p.count(0).counts(&weights.shape).counts(&strides).bool(false).none().tuple().reduce();
                payloads.push(&weights.bytes);
            }
            p.set_items();
        }
        p.set_items();
        let mut zip = Zipper::new(Vec::new());
        zip.entry("model_optim_rng/data.pkl", &p.finish()).unwrap();
        for (key, payload) in payloads.into_iter().enumerate() {
            zip.entry(&format!("model_optim_rng/data/{key}"), payload).unwrap();
        }
        fs::write(path, zip.finish().unwrap()).unwrap();
    }

    /// A tensor of the first `model` dictionary.
    pub(crate) fn tensor(&mut self, name: &str) -> &mut Weights {
        let found = self.models[0].1.iter_mut().find(|(held, _)| held == name);
        &mut found.unwrap_or_else(|| panic!("no {name}")).1
    }

    /// Sets an attribute of `args`.
    pub(crate) fn set(&mut self, name: &str, value: Plain) {
        self.args.retain(|(held, _)| held != name);
        self.args.push((name.to_owned(), value));
    }
}

/// Changes a shard in place.
pub(crate) fn patch(path: &Path, change: impl FnOnce(&mut Parts)) {
    let mut parts = Parts::read(path);
    change(&mut parts);
    parts.write(path);
}
