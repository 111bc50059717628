//! `config.json` of a Hugging Face model.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use model::{Dtype, ModelShape};
use serde_json::{Map, Value};

use crate::dtype;
use crate::error::{Error, Result};

/// Largest `config.json` that is read.
const LARGEST: u64 = 4 << 20;

/// Largest count that any dimension may state.
pub const LARGEST_DIMENSION: u64 = 1 << 31;

/// Most layers that a model may state.
pub const MOST_LAYERS: u64 = 4096;

/// Most query groups of all layers together: plans have blocks for each.
const MOST_GROUPS: u64 = 1 << 17;

/// What a `model_type` says about tensors that `config.json` does not.
struct Architecture {
    model_type: &'static str,
    /// Whether q, k and v have biases.
    qkv_bias: bool,
    /// Whether q and k have norms.
    qk_norm: bool,
    /// Width of a head where `head_dim` is absent; None for hidden_size / num_attention_heads.
    head_dim: Option<u64>,
    /// Switches that add tensors for which shards have no place, such as a bias on o_proj.
    refused: &'static [&'static str],
}

/// As transformers' classes of these names have it.
const ARCHITECTURES: [Architecture; 4] = [
    Architecture { model_type: "qwen2", qkv_bias: true, qk_norm: false, head_dim: None, refused: &[] },
    Architecture {
        model_type: "qwen3",
        qkv_bias: false,
        qk_norm: true,
        head_dim: Some(128),
        refused: &["attention_bias"],
    },
    Architecture {
        model_type: "llama",
        qkv_bias: false,
        qk_norm: false,
        head_dim: None,
        refused: &["attention_bias", "mlp_bias"],
    },
    Architecture { model_type: "mistral", qkv_bias: false, qk_norm: false, head_dim: None, refused: &[] },
];

const REFETCH: &str = "correct it, or fetch the file again from where the model came";

/// A parsed and checked `config.json`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read.
    pub path: PathBuf,
    /// What it says about shapes; its `dtype` is float32 where the file is silent.
    pub shape: ModelShape,
    /// Whether the file states the tensors' type.
    pub dtype_stated: bool,
    /// The file's bytes, for copies and digests.
    pub text: Vec<u8>,
}

impl Config {
    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    ///
    /// If it is missing, larger than 4 MiB, no JSON object, lacks a field,
    /// states an impossible value, or describes a model that is not supported.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let text = read_bounded(&path, LARGEST)?;
        Self::parse(path, text)
    }

    /// Parses the bytes of a `config.json`; `path` is for messages.
    ///
    /// # Errors
    ///
    /// As [`Config::read`].
    pub fn parse(path: PathBuf, text: Vec<u8>) -> Result<Self> {
        let parse = || {
            let json: Map<String, Value> = serde_json::from_slice(&text)
                .map_err(|e| Error::bad(&path, format!("is no valid JSON object: {e}")))?;
            Fields { path: &path, json: &json }.shape()
        };
        let (shape, dtype_stated) = parse().map_err(|error| error.or_hint(REFETCH))?;
        Ok(Self { path, shape, dtype_stated, text })
    }
}

/// Reads a small file whole.
///
/// # Errors
///
/// If it cannot be read or is longer than `limit` bytes.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut text = Vec::new();
    file.take(limit + 1).read_to_end(&mut text).map_err(|e| Error::io("read", path, e))?;
    if text.len() as u64 > limit {
        return Err(Error::bad(path, format!("is longer than {limit} bytes")));
    }
    Ok(text)
}

struct Fields<'a> {
    path: &'a Path,
    json: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn shape(&self) -> Result<(ModelShape, bool)> {
        let model_type = self.model_type()?;
        let architecture = self.architecture(&model_type)?;
        let hidden_size = self.count("hidden_size")?;
        let num_attention_heads = self.count("num_attention_heads")?;
        let num_query_groups = self.optional_count("num_key_value_heads")?.unwrap_or(num_attention_heads);
        let kv_channels = match self.optional_count("head_dim")? {
            Some(width) => width,
            None if architecture.head_dim.is_some() => architecture.head_dim.unwrap_or(1),
            None if hidden_size % num_attention_heads == 0 => hidden_size / num_attention_heads,
            None => {
                return Err(self.bad(format!(
                    "has hidden_size = {hidden_size}, no multiple of num_attention_heads = {num_attention_heads}"
                )));
            }
        };
        if num_attention_heads % num_query_groups != 0 {
            return Err(self.bad(format!(
                "has num_attention_heads = {num_attention_heads}, no multiple of num_key_value_heads = {num_query_groups}"
            )));
        }
        let (dtype, dtype_stated) = self.dtype()?;
        let shape = ModelShape {
            qkv_bias: architecture.qkv_bias,
            qk_norm: architecture.qk_norm,
            model_type,
            hidden_size,
            ffn_hidden_size: self.count("intermediate_size")?,
            num_layers: self.layers()?,
            num_attention_heads,
            num_query_groups,
            kv_channels,
            vocab_size: self.count("vocab_size")?,
            max_position_embeddings: self.optional_count("max_position_embeddings")?.unwrap_or(2048),
            rope_theta: self.rope_theta()?,
            rms_norm_eps: self.number("rms_norm_eps", 1e-6)?,
            tied: self.flag("tie_word_embeddings")?.unwrap_or(false),
            dtype,
        };
        if !is_countable(&shape) {
            return Err(
                self.bad("describes tensors beyond any storage, or more query groups than any model has".to_owned())
            );
        }
        Ok((shape, dtype_stated))
    }

    fn bad(&self, reason: String) -> Error {
        Error::bad(self.path, reason)
    }

    fn model_type(&self) -> Result<String> {
        match self.json.get("model_type") {
            Some(Value::String(name)) if name.len() <= 64 => Ok(name.clone()),
            Some(other) => Err(self.bad(format!("has model_type = {}, not a short string", brief(other)))),
            None => Err(self
                .bad("has no `model_type`".to_owned())
                .with_hint("the directory must hold a Hugging Face transformers model")),
        }
    }

    fn architecture(&self, model_type: &str) -> Result<&'static Architecture> {
        let refuse = |what: String| {
            Err(Error::unsupported(what)
                .with_hint("supported: qwen2 (also Qwen2.5), qwen3, llama, mistral; dense, unquantised"))
        };
        let known = ARCHITECTURES.iter().find(|known| known.model_type == model_type);
        let Some(architecture) = known else {
            return if model_type.contains("moe") || model_type == "mixtral" {
                refuse(format!("model_type `{model_type}` (mixture of experts)"))
            } else {
                refuse(format!("model_type `{model_type}`"))
            };
        };
        for key in ["num_experts", "num_local_experts", "n_routed_experts"] {
            if self.json.get(key).and_then(Value::as_u64).is_some_and(|n| n > 0) {
                return refuse(format!("`{key}` in config.json (mixture of experts)"));
            }
        }
        if self.json.get("quantization_config").is_some_and(|v| !v.is_null()) {
            return refuse("`quantization_config` in config.json (quantised weights)".to_owned());
        }
        for key in architecture.refused {
            if self.flag(key)?.unwrap_or(false) {
                return refuse(format!("`{key}: true` for model_type `{model_type}`"));
            }
        }
        match self.json.get("hidden_act") {
            None | Some(Value::Null) => {}
            Some(Value::String(act)) if act == "silu" || act == "swish" => {}
            Some(other) => return refuse(format!("`hidden_act: {}` in config.json", brief(other))),
        }
        Ok(architecture)
    }

    fn count(&self, key: &str) -> Result<u64> {
        self.optional_count(key)?.ok_or_else(|| self.bad(format!("has no `{key}`")))
    }

    fn optional_count(&self, key: &str) -> Result<Option<u64>> {
        match self.json.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(n) if (1..=LARGEST_DIMENSION).contains(&n) => Ok(Some(n)),
                _ => Err(self.bad(format!("has {key} = {}, not a whole number from 1 to 2^31", brief(value)))),
            },
        }
    }

    fn layers(&self) -> Result<u64> {
        let layers = self.count("num_hidden_layers")?;
        if layers > MOST_LAYERS {
            return Err(self.bad(format!("has num_hidden_layers = {layers}, more than {MOST_LAYERS}")));
        }
        Ok(layers)
    }

    fn number(&self, key: &str, default: f64) -> Result<f64> {
        match self.json.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|n| n.is_finite() && *n > 0.0)
                .ok_or_else(|| self.bad(format!("has {key} = {}, not a positive number", brief(value)))),
        }
    }

    /// Newer files keep the base below `rope_parameters`.
    fn rope_theta(&self) -> Result<f64> {
        if let Some(Value::Object(inner)) = self.json.get("rope_parameters")
            && inner.contains_key("rope_theta")
        {
            return Fields { path: self.path, json: inner }.number("rope_theta", 1e4);
        }
        self.number("rope_theta", 1e4)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.json.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(self.bad(format!("has {key} = {}, not true or false", brief(other)))),
        }
    }

    fn dtype(&self) -> Result<(Dtype, bool)> {
        let stated = self.json.get("torch_dtype").or_else(|| self.json.get("dtype"));
        match stated {
            None | Some(Value::Null) => Ok((Dtype::Fp32, false)),
            Some(Value::String(name)) => match dtype::by_name(name) {
                Some(dtype) => Ok((dtype, true)),
                None => Err(Error::unsupported(format!("torch_dtype `{name}`"))
                    .with_hint("supported: bfloat16, float16, float32")),
            },
            Some(other) => Err(self.bad(format!("has torch_dtype = {}, not a string", brief(other)))),
        }
    }
}

/// Whether the bytes of all tensors, also after padding, are countable in 63 bits, and what is planned fits in memory.
#[must_use]
pub fn is_countable(s: &ModelShape) -> bool {
    let heads = s.num_attention_heads.checked_add(2 * s.num_query_groups);
    let qkv = heads.and_then(|n| n.checked_mul(s.kv_channels)).and_then(|n| n.checked_mul(s.hidden_size));
    let ffn = s.ffn_hidden_size.checked_mul(2).and_then(|n| n.checked_mul(s.hidden_size));
    let vocab = s.vocab_size.checked_mul(s.hidden_size);
    let countable = |product: Option<u64>| {
        let bytes = product.and_then(|n| n.checked_mul(4)).and_then(|n| n.checked_mul(s.num_layers.max(2)));
        bytes.is_some_and(|b| b <= 1 << 56)
    };
    let planned = s.num_layers <= MOST_LAYERS && s.num_query_groups <= MOST_GROUPS / s.num_layers.max(1);
    planned && [qkv, ffn, vocab].into_iter().all(countable)
}

/// A value short enough for a message.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 40 { text } else { text.chars().take(40).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse("m/config.json".into(), text.as_bytes().to_vec())
    }

    const GOOD: &str = r#"{"model_type":"qwen2","hidden_size":64,"intermediate_size":176,"num_hidden_layers":4,
        "num_attention_heads":8,"num_key_value_heads":4,"vocab_size":1003,"torch_dtype":"bfloat16","rope_theta":1000000.0}"#;

    #[test]
    fn a_qwen2_config_gives_its_shape() {
        let shape = parse(GOOD).unwrap().shape;
        assert_eq!((shape.kv_channels, shape.num_query_groups, shape.vocab_size), (8, 4, 1003));
        assert!(shape.qkv_bias && !shape.tied && shape.dtype == Dtype::Bf16);
    }

    #[test]
    fn a_qwen3_config_has_norms_on_q_and_k_and_its_own_width_of_heads() {
        let text = GOOD.replace("qwen2", "qwen3");
        let shape = parse(&text).unwrap().shape;
        assert!(shape.qk_norm && !shape.qkv_bias);
        assert_eq!(shape.kv_channels, 128);
        let text = text.replace("\"hidden_size\"", "\"head_dim\":16,\"hidden_size\"");
        assert_eq!(parse(&text).unwrap().shape.kv_channels, 16);
    }

    #[test]
    fn what_cannot_be_converted_is_refused_by_name() {
        let table = [
            ("\"qwen2\"", "\"qwen3_moe\"", "model_type `qwen3_moe` (mixture of experts) is not supported yet"),
            (
                "\"qwen2\"",
                "\"qwen3\",\"attention_bias\":true",
                "`attention_bias: true` for model_type `qwen3` is not supported yet",
            ),
            ("\"qwen2\"", "\"qwen2_moe\"", "model_type `qwen2_moe` (mixture of experts) is not supported yet"),
            ("\"qwen2\"", "\"gpt2\"", "model_type `gpt2` is not supported yet"),
            (
                "\"vocab_size\"",
                "\"quantization_config\":{\"bits\":4},\"vocab_size\"",
                "`quantization_config` in config.json (quantised weights) is not supported yet",
            ),
            ("\"bfloat16\"", "\"float8\"", "torch_dtype `float8` is not supported yet"),
            (
                "\"hidden_size\":64",
                "\"hidden_size\":0",
                "`m/config.json` has hidden_size = 0, not a whole number from 1 to 2^31",
            ),
            (
                "\"hidden_size\":64",
                "\"hidden_size\":-1",
                "`m/config.json` has hidden_size = -1, not a whole number from 1 to 2^31",
            ),
            (
                "\"hidden_size\":64",
                "\"hidden_size\":\"x\"",
                "`m/config.json` has hidden_size = \"x\", not a whole number from 1 to 2^31",
            ),
            ("\"hidden_size\":64,", "", "`m/config.json` has no `hidden_size`"),
            (
                "\"hidden_size\":64",
                "\"hidden_size\":65",
                "`m/config.json` has hidden_size = 65, no multiple of num_attention_heads = 8",
            ),
            (
                "\"num_key_value_heads\":4",
                "\"num_key_value_heads\":3",
                "`m/config.json` has num_attention_heads = 8, no multiple of num_key_value_heads = 3",
            ),
        ];
        for (find, put, expected) in table {
            let text = GOOD.replacen(find, put, 1);
            assert_ne!(text, GOOD, "{find}");
            assert_eq!(parse(&text).unwrap_err().to_string(), expected);
        }
        assert!(parse("[1]").unwrap_err().to_string().contains("is no valid JSON object"));
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
