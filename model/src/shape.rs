//! The architecture of a decoder-only model, as its `config.json` gives it.

/// Element type of a checkpoint's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// bfloat16: 8 bits of exponent, 7 of mantissa.
    Bf16,
    /// IEEE half precision.
    Fp16,
    /// IEEE single precision.
    Fp32,
}

impl Dtype {
    /// Bytes of one element.
    #[must_use]
    pub fn size(self) -> u64 {
        match self {
            Self::Bf16 | Self::Fp16 => 2,
            Self::Fp32 => 4,
        }
    }

    /// The name that the reference tools' `--params-dtype` takes.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
            Self::Fp32 => "fp32",
        }
    }
}

/// What of a model's `config.json` decides shapes and command lines.
///
/// Checked where it is parsed (`convert::config`): every count is at least 1,
/// `num_attention_heads` is a multiple of `num_query_groups`, and all products
/// of dimensions fit in 63 bits.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelShape {
    /// `model_type` of config.json, such as `qwen2` or `llama`.
    pub model_type: String,
    /// H: width of the residual stream (`hidden_size`).
    pub hidden_size: u64,
    /// F: width of the gated MLP (`intermediate_size`).
    pub ffn_hidden_size: u64,
    /// Number of decoder layers (`num_hidden_layers`).
    pub num_layers: u64,
    /// nh: query heads (`num_attention_heads`).
    pub num_attention_heads: u64,
    /// ng: key/value heads (`num_key_value_heads`; nh where absent).
    pub num_query_groups: u64,
    /// d: width of a head (`head_dim`, or H / nh).
    pub kv_channels: u64,
    /// V: rows of the embedding as stored (`vocab_size`).
    pub vocab_size: u64,
    /// Longest position the model was made for (`max_position_embeddings`).
    pub max_position_embeddings: u64,
    /// Base of the rotary embedding (`rope_theta`).
    pub rope_theta: f64,
    /// Epsilon of RMSNorm (`rms_norm_eps`).
    pub rms_norm_eps: f64,
    /// Whether `lm_head` shares the embedding's rows (`tie_word_embeddings`).
    pub tied: bool,
    /// Whether q, k and v projections have a bias (true for Qwen2).
    pub qkv_bias: bool,
    /// Whether q and k are normalised per head (true for Qwen3).
    pub qk_norm: bool,
    /// Type of the stored tensors (`torch_dtype`).
    pub dtype: Dtype,
}
