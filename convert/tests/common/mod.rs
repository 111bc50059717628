//! What several test files share: reference data, and small models of our own.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::missing_panics_doc,
    reason = "each test file uses a part of this"
)]

pub(crate) mod lab;
pub(crate) mod parts;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::{Dtype, ModelShape};

/// The directory of reference results, where it is present.
pub(crate) fn golden() -> Option<PathBuf> {
    let root = std::env::var_os("QCTL_REFERENCE_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let golden = root.join("golden");
    if golden.is_dir() {
        return Some(golden);
    }
    println!("skipped: no reference data at {} (set QCTL_REFERENCE_DATA)", root.display());
    None
}

/// A deterministic stream of 64-bit words.
pub(crate) struct Words(pub(crate) u64);

impl Words {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A tensor's shape and bytes.
pub(crate) type Content = (Vec<u64>, Vec<u8>);

/// Tensors by name.
pub(crate) type Tensors = BTreeMap<String, Content>;

/// Random finite elements of a type.
pub(crate) fn elements(words: &mut Words, dtype: Dtype, count: u64) -> Vec<u8> {
    (0..count)
        .flat_map(|_| {
            let bits = u32::try_from(words.next() >> 32).unwrap();
            // An exponent around zero, random sign and mantissa.
            let float = f32::from_bits((bits & 0x807f_ffff) | ((118 + (bits >> 24) % 12) << 23));
            match dtype {
                Dtype::Fp32 => float.to_le_bytes().to_vec(),
                Dtype::Bf16 => half::bf16::from_f32(float).to_le_bytes().to_vec(),
                Dtype::Fp16 => half::f16::from_f32(float).to_le_bytes().to_vec(),
            }
        })
        .collect()
}

/// Names and shapes, written down independently of the library.
pub(crate) fn tensor_shapes(s: &ModelShape) -> Vec<(String, Vec<u64>)> {
    let (h, f, d) = (s.hidden_size, s.ffn_hidden_size, s.kv_channels);
    let mut all = vec![
        ("model.embed_tokens.weight".to_owned(), vec![s.vocab_size, h]),
        ("model.norm.weight".to_owned(), vec![h]),
    ];
    if !s.tied {
        all.push(("lm_head.weight".to_owned(), vec![s.vocab_size, h]));
    }
    for l in 0..s.num_layers {
        let mut add = |name: &str, shape: Vec<u64>| all.push((format!("model.layers.{l}.{name}"), shape));
        add("input_layernorm.weight", vec![h]);
        add("post_attention_layernorm.weight", vec![h]);
        add("self_attn.q_proj.weight", vec![s.num_attention_heads * d, h]);
        add("self_attn.k_proj.weight", vec![s.num_query_groups * d, h]);
        add("self_attn.v_proj.weight", vec![s.num_query_groups * d, h]);
        add("self_attn.o_proj.weight", vec![h, s.num_attention_heads * d]);
        add("mlp.gate_proj.weight", vec![f, h]);
        add("mlp.up_proj.weight", vec![f, h]);
        add("mlp.down_proj.weight", vec![h, f]);
        if s.qk_norm {
            add("self_attn.q_norm.weight", vec![d]);
            add("self_attn.k_norm.weight", vec![d]);
        }
        if s.qkv_bias {
            add("self_attn.q_proj.bias", vec![s.num_attention_heads * d]);
            add("self_attn.k_proj.bias", vec![s.num_query_groups * d]);
            add("self_attn.v_proj.bias", vec![s.num_query_groups * d]);
        }
    }
    all
}

pub(crate) fn config_json(s: &ModelShape) -> String {
    let dtype = match s.dtype {
        Dtype::Bf16 => "bfloat16",
        Dtype::Fp16 => "float16",
        Dtype::Fp32 => "float32",
    };
    format!(
        r#"{{
  "model_type": "{}",
  "hidden_size": {},
  "intermediate_size": {},
  "num_hidden_layers": {},
  "num_attention_heads": {},
  "num_key_value_heads": {},
  "head_dim": {},
  "vocab_size": {},
  "max_position_embeddings": {},
  "rope_theta": 1000000.0,
  "rms_norm_eps": 1e-06,
  "tie_word_embeddings": {},
  "hidden_act": "silu",
  "torch_dtype": "{dtype}"
}}
"#,
        s.model_type,
        s.hidden_size,
        s.ffn_hidden_size,
        s.num_layers,
        s.num_attention_heads,
        s.num_query_groups,
        s.kv_channels,
        s.vocab_size,
        s.max_position_embeddings,
        s.tied
    )
}

pub(crate) fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bf16 => "BF16",
        Dtype::Fp16 => "F16",
        Dtype::Fp32 => "F32",
    }
}

/// Bytes of a safetensors file with these tensors in this order.
pub(crate) fn safetensors(dtype: Dtype, tensors: &[(&String, &Content)]) -> Vec<u8> {
    let mut header = String::from("{");
    let mut at = 0;
    for (i, (name, (shape, bytes))) in tensors.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let end = at + bytes.len();
        header += &format!(
            r#"{comma}"{name}":{{"dtype":"{}","shape":{shape:?},"data_offsets":[{at},{end}]}}"#,
            dtype_name(dtype)
        );
        at = end;
    }
    header.push('}');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    for (_, (_, bytes)) in tensors {
        file.extend(bytes);
    }
    file
}

/// Writes a random model: one file, or two with an index.
pub(crate) fn write_model(dir: &Path, s: &ModelShape, seed: u64, files: usize) -> Tensors {
    fs::create_dir_all(dir).unwrap();
    let mut words = Words(seed);
    let tensors: Tensors = tensor_shapes(s)
        .into_iter()
        .map(|(name, shape)| {
            let bytes = elements(&mut words, s.dtype, shape.iter().product());
            (name, (shape, bytes))
        })
        .collect();
    fs::write(dir.join("config.json"), config_json(s)).unwrap();
    fs::write(dir.join("generation_config.json"), "{}\n").unwrap();
    fs::write(dir.join("tokenizer.json"), "{\"model\":{}}").unwrap();
    let all: Vec<_> = tensors.iter().collect();
    if files == 1 {
        fs::write(dir.join("model.safetensors"), safetensors(s.dtype, &all)).unwrap();
        return tensors;
    }
    let mut map = Vec::new();
    for (i, part) in all.chunks(all.len().div_ceil(files)).enumerate() {
        let name = format!("model-{:05}-of-{files:05}.safetensors", i + 1);
        fs::write(dir.join(&name), safetensors(s.dtype, part)).unwrap();
        map.extend(part.iter().map(|(tensor, _)| format!("\"{tensor}\":\"{name}\"")));
    }
    fs::write(dir.join("model.safetensors.index.json"), format!("{{\"weight_map\":{{{}}}}}", map.join(","))).unwrap();
    tensors
}

pub(crate) fn small_shape() -> ModelShape {
    ModelShape {
        model_type: "qwen2".into(),
        hidden_size: 16,
        ffn_hidden_size: 24,
        num_layers: 4,
        num_attention_heads: 4,
        num_query_groups: 2,
        kv_channels: 4,
        vocab_size: 37,
        max_position_embeddings: 64,
        rope_theta: 1e6,
        rms_norm_eps: 1e-6,
        tied: false,
        qkv_bias: true,
        qk_norm: false,
        dtype: Dtype::Bf16,
    }
}

/// All paths below a directory, sorted, for "nothing was left behind".
pub(crate) fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path.clone());
            }
            all.push(path.strip_prefix(dir).unwrap().to_owned());
        }
    }
    all.sort();
    all
}
