//! Models in Hugging Face format with Qwen2's names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Sizes of a model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Width.
    pub hidden: u64,
    /// Width of the feed-forward part.
    pub ffn: u64,
    /// Layers.
    pub layers: u64,
    /// Attention heads.
    pub heads: u64,
    /// Key and value heads.
    pub groups: u64,
    /// Rows of the embedding.
    pub vocab: u64,
}

impl Shape {
    /// A model of a few hundred kilobytes.
    pub const SMALL: Self = Self { hidden: 32, ffn: 64, layers: 4, heads: 4, groups: 2, vocab: 258 };

    /// A model whose conversion takes a moment.
    pub const LARGE: Self = Self { hidden: 1024, ffn: 2816, layers: 8, heads: 16, groups: 4, vocab: 258 };

    fn tensors(self) -> Vec<(String, Vec<u64>)> {
        let (h, f, kv) = (self.hidden, self.ffn, self.hidden / self.heads * self.groups);
        let mut all = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocab, h]),
            ("model.norm.weight".to_owned(), vec![h]),
            ("lm_head.weight".to_owned(), vec![self.vocab, h]),
        ];
        for layer in 0..self.layers {
            let parts = [
                ("input_layernorm.weight", vec![h]),
                ("post_attention_layernorm.weight", vec![h]),
                ("self_attn.q_proj.weight", vec![h, h]),
                ("self_attn.q_proj.bias", vec![h]),
                ("self_attn.k_proj.weight", vec![kv, h]),
                ("self_attn.k_proj.bias", vec![kv]),
                ("self_attn.v_proj.weight", vec![kv, h]),
                ("self_attn.v_proj.bias", vec![kv]),
                ("self_attn.o_proj.weight", vec![h, h]),
                ("mlp.gate_proj.weight", vec![f, h]),
                ("mlp.up_proj.weight", vec![f, h]),
                ("mlp.down_proj.weight", vec![h, f]),
            ];
            all.extend(parts.map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)));
        }
        all
    }
}

/// Writes a model in two bf16 files with their index, its configuration and a tokenizer.
pub fn model(directory: &Path, shape: Shape) {
    fs::create_dir_all(directory).unwrap();
    let config = json!({
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.groups, "vocab_size": shape.vocab, "max_position_embeddings": 512,
        "rope_theta": 1_000_000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": false, "hidden_act": "silu",
        "torch_dtype": "bfloat16",
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    super::tokenizer(directory);
    let tensors = shape.tensors();
    let mut places = Map::new();
    for (number, part) in (1..).zip(tensors.chunks(tensors.len().div_ceil(2))) {
        let name = format!("model-{number:05}-of-00002.safetensors");
        fs::write(directory.join(&name), safetensors(part, number)).unwrap();
        places.extend(part.iter().map(|(tensor, _)| (tensor.clone(), json!(name))));
    }
    let index = json!({"metadata": {}, "weight_map": places});
    fs::write(directory.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// The bytes of a safetensors file with random bf16 elements.
#[must_use]
pub fn safetensors(tensors: &[(String, Vec<u64>)], seed: u64) -> Vec<u8> {
    let mut header = String::from("{");
    let mut end = 0;
    for (name, shape) in tensors {
        let begin = end;
        end += 2 * shape.iter().product::<u64>();
        let comma = if header.len() > 1 { "," } else { "" };
        write!(header, r#"{comma}"{name}":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#)
            .unwrap();
    }
    header.push('}');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    let mut state = seed;
    file.extend((0..end / 2).flat_map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [high, low, ..] = state.to_be_bytes().map(usize::from);
        element(low, high).to_le_bytes()
    }));
    file
}

/// A bf16 number of either sign, between 2^-8 and 2^-4 in size.
fn element(exponent: usize, rest: usize) -> u16 {
    let sign = u16::try_from(rest & 0x80).unwrap() << 8;
    let exponent = u16::try_from(119 + exponent % 4).unwrap() << 7;
    sign | exponent | u16::try_from(rest & 0x7f).unwrap()
}

/// Name of a tensor to its type, shape and bytes.
pub type Tensors = BTreeMap<String, (Value, Value, Vec<u8>)>;

/// Reads every tensor of a model directory.
#[must_use]
pub fn tensors(directory: &Path) -> Tensors {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let file = fs::read(path).unwrap();
        let (length, rest) = file.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
        let header: Value = serde_json::from_slice(header).unwrap();
        for (name, tensor) in header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__") {
            let at = |end: usize| usize::try_from(tensor["data_offsets"][end].as_u64().unwrap()).unwrap();
            all.insert(name.clone(), (tensor["dtype"].clone(), tensor["shape"].clone(), data[at(0)..at(1)].to_vec()));
        }
    }
    all
}

/// Cuts a file in the middle.
pub fn truncate(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / 2).unwrap();
}
