//! How a model is cut into shards: tensor and pipeline parallel arithmetic.
//!
//! Source of the rules: MindSpeed-LLM 2.2.0's converter and Megatron-LM
//! core_v0.12.1 (rank order `tp-cp-ep-dp-pp`: tensor fastest, pipeline slowest).

use crate::shape::ModelShape;
use crate::stages::Deal;

/// Tensor- and pipeline-parallel sizes, each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parallel {
    tp: u32,
    pp: u32,
}

/// Where one global rank sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coordinates {
    /// Position in the tensor-parallel group, `0..tp`.
    pub tp: u32,
    /// Position in the data-parallel group, `0..dp`.
    pub dp: u32,
    /// Pipeline stage, `0..pp`.
    pub pp: u32,
}

/// Why a layout does not fit a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A size was 0.
    #[error("{what} must be at least 1")]
    Zero {
        /// Which size.
        what: &'static str,
    },
    /// A size does not divide a dimension of the model.
    #[error("{what} {size} does not divide {dimension} = {of}")]
    DoesNotDivide {
        /// `tp` or `pp`.
        what: &'static str,
        /// The size asked for.
        size: u64,
        /// Name of the dimension, as config.json spells it.
        dimension: &'static str,
        /// Value of the dimension.
        of: u64,
        /// All sizes up to 64 that would fit the whole model.
        fitting: Vec<u64>,
    },
    /// The world size is no multiple of tp x pp.
    #[error("{ranks} ranks are no multiple of tp x pp = {tp} x {pp}")]
    WorldSize {
        /// Ranks asked for.
        ranks: u64,
        /// Tensor-parallel size.
        tp: u32,
        /// Pipeline-parallel size.
        pp: u32,
    },
    /// A list of layers does not have one number for each stage, or not this sum.
    #[error("num_layer_list {} does not deal {layers} layers to {stages} stages", joined(list, ","))]
    List {
        /// The list asked for.
        list: Vec<u64>,
        /// Pipeline stages.
        stages: u64,
        /// Layers of the model.
        layers: u64,
    },
    /// A stage's layers cannot be cut into chunks of this size.
    #[error("{}", chunk_message(*per_chunk, *stages, *per_stage))]
    Chunk {
        /// The size asked for.
        per_chunk: u64,
        /// Pipeline stages.
        stages: u64,
        /// Layers of a stage.
        per_stage: u64,
        /// All sizes up to 64 that would do.
        fitting: Vec<u64>,
    },
    /// A slot without a layer that does not exist, or is named twice.
    #[error("noop_layers names slot {slot}{}", if *twice { " twice".to_owned() } else { format!("; there are slots 0 to {}", total.saturating_sub(1)) })]
    Noop {
        /// The slot.
        slot: u64,
        /// Slots of the model.
        total: u64,
        /// Whether it is named twice.
        twice: bool,
    },
    /// Two ways to deal layers that cannot be combined.
    #[error("{one} and {other} exclude each other")]
    Exclusive {
        /// One of them.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
}

fn joined(list: &[u64], between: &str) -> String {
    list.iter().map(u64::to_string).collect::<Vec<_>>().join(between)
}

fn chunk_message(per_chunk: u64, stages: u64, per_stage: u64) -> String {
    let what = "num_layers_per_virtual_pipeline_stage";
    if stages == 1 {
        return format!("{what} needs more than one pipeline stage");
    }
    format!("{what} {per_chunk} does not cut a stage's {per_stage} layers into several chunks")
}

impl LayoutError {
    /// Returns the next thing to try, printed as `hint: …`.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::DoesNotDivide { what, fitting, .. } => Some(format!("{what} may be {}", joined(fitting, ", "))),
            Self::List { stages, layers, .. } if layers >= stages && *stages <= 64 => {
                let (each, more) = (layers / stages, layers % stages);
                let even: Vec<u64> = (0..*stages).map(|stage| each + u64::from(stage < more)).collect();
                let example = joined(&even, ",");
                Some(format!("give {stages} numbers of at least 1 that add up to {layers}, such as {example}"))
            }
            Self::Chunk { fitting, .. } if !fitting.is_empty() => {
                Some(format!("num_layers_per_virtual_pipeline_stage may be {}", joined(fitting, ", ")))
            }
            Self::Chunk { .. } | Self::Exclusive { .. } => Some("leave it out".to_owned()),
            Self::List { .. } | Self::Noop { .. } => None,
            Self::WorldSize { tp, pp, .. } => {
                Some(format!("use a multiple of {} ranks", u64::from(*tp) * u64::from(*pp)))
            }
            Self::Zero { .. } => None,
        }
    }
}

impl Parallel {
    /// Pairs a tensor-parallel with a pipeline-parallel size.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Zero`] if either is 0.
    pub fn new(tp: u32, pp: u32) -> Result<Self, LayoutError> {
        if tp == 0 {
            return Err(LayoutError::Zero { what: "tp" });
        }
        if pp == 0 {
            return Err(LayoutError::Zero { what: "pp" });
        }
        Ok(Self { tp, pp })
    }

    /// Tensor-parallel size.
    #[must_use]
    pub fn tp(self) -> u32 {
        self.tp
    }

    /// Pipeline-parallel size.
    #[must_use]
    pub fn pp(self) -> u32 {
        self.pp
    }

    /// Number of shards of a checkpoint, tp x pp.
    #[must_use]
    pub fn shards(self) -> u64 {
        u64::from(self.tp) * u64::from(self.pp)
    }

    /// Checks that this layout cuts `shape` evenly.
    ///
    /// # Errors
    ///
    /// [`LayoutError::DoesNotDivide`] for the first dimension (query groups,
    /// heads, FFN width, layers) that is not divided, with the sizes that are.
    pub fn check(self, shape: &ModelShape) -> Result<(), LayoutError> {
        self.check_tensors(shape)?;
        Deal::default().check(self.pp, shape.num_layers)
    }

    /// Checks that the tensor-parallel size cuts the tensors of `shape` evenly.
    ///
    /// # Errors
    ///
    /// [`LayoutError::DoesNotDivide`] for the first of query groups, heads and FFN width that is not divided.
    pub fn check_tensors(self, shape: &ModelShape) -> Result<(), LayoutError> {
        let tp = u64::from(self.tp);
        let tp_dims = [
            ("num_key_value_heads", shape.num_query_groups),
            ("num_attention_heads", shape.num_attention_heads),
            ("intermediate_size", shape.ffn_hidden_size),
        ];
        for (dimension, of) in tp_dims {
            if of % tp != 0 {
                let fitting = (1..=64).filter(|t| tp_dims.iter().all(|(_, n)| n % t == 0)).collect();
                return Err(LayoutError::DoesNotDivide { what: "tp", size: tp, dimension, of, fitting });
            }
        }
        Ok(())
    }

    /// Data-parallel size of a world of `ranks`.
    ///
    /// # Errors
    ///
    /// [`LayoutError::WorldSize`] if `ranks` is 0 or no multiple of tp x pp.
    pub fn dp(self, ranks: u32) -> Result<u32, LayoutError> {
        let cell = self.shards();
        let ranks = u64::from(ranks);
        if ranks == 0 || ranks % cell != 0 {
            return Err(LayoutError::WorldSize { ranks, tp: self.tp, pp: self.pp });
        }
        u32::try_from(ranks / cell).map_err(|_| LayoutError::WorldSize { ranks, tp: self.tp, pp: self.pp })
    }

    /// Where global `rank` sits in a world of data-parallel size `dp`.
    ///
    /// `rank = tp + TP * (dp + DP * pp)`.
    #[must_use]
    pub fn coordinates(self, rank: u32, dp: u32) -> Coordinates {
        let dp = dp.max(1);
        Coordinates { tp: rank % self.tp, dp: (rank / self.tp) % dp, pp: rank / self.tp / dp }
    }
}

/// Rows of the padded embedding: the least multiple of `divisor * tp` that holds `vocab`.
#[must_use]
pub fn padded_vocab(vocab: u64, divisor: u64, tp: u32) -> u64 {
    let unit = divisor.max(1) * u64::from(tp.max(1));
    vocab.div_ceil(unit) * unit
}

/// Directory name of one shard below `iter_%07d`.
///
/// `mp_rank_TT` with one pipeline stage, `mp_rank_TT_PPP` with more.
#[must_use]
pub fn shard_dir(parallel: Parallel, tp: u32, pp: u32) -> String {
    if parallel.pp == 1 { format!("mp_rank_{tp:02}") } else { format!("mp_rank_{tp:02}_{pp:03}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Dtype;

    fn qwen7b() -> ModelShape {
        ModelShape {
            model_type: "qwen2".into(),
            hidden_size: 3584,
            ffn_hidden_size: 18944,
            num_layers: 28,
            num_attention_heads: 28,
            num_query_groups: 4,
            kv_channels: 128,
            vocab_size: 152_064,
            max_position_embeddings: 32768,
            rope_theta: 1e6,
            rms_norm_eps: 1e-6,
            tied: false,
            qkv_bias: true,
            qk_norm: false,
            dtype: Dtype::Bf16,
        }
    }

    #[test]
    fn a_layout_that_does_not_divide_names_the_ones_that_do() {
        let error = Parallel::new(8, 1).unwrap().check(&qwen7b()).unwrap_err();
        assert_eq!(error.to_string(), "tp 8 does not divide num_key_value_heads = 4");
        assert_eq!(error.hint().unwrap(), "tp may be 1, 2, 4");
        let error = Parallel::new(2, 3).unwrap().check(&qwen7b()).unwrap_err();
        assert_eq!(error.hint().unwrap(), "pp may be 1, 2, 4, 7, 14, 28");
        assert!(Parallel::new(2, 2).unwrap().check(&qwen7b()).is_ok());
    }

    #[test]
    fn ranks_run_tensor_first_and_pipeline_last() {
        let p = Parallel::new(2, 2).unwrap();
        let seen: Vec<_> = (0..8).map(|r| p.coordinates(r, 2)).map(|c| (c.tp, c.dp, c.pp)).collect();
        assert_eq!(seen, [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1)]);
        assert_eq!(p.dp(8), Ok(2));
        assert!(p.dp(6).is_err() && p.dp(0).is_err());
    }

    #[test]
    fn vocabularies_are_padded_to_the_next_multiple() {
        assert_eq!(padded_vocab(1003, 1, 2), 1004);
        assert_eq!(padded_vocab(1003, 128, 2), 1024);
        assert_eq!(padded_vocab(152_064, 1, 4), 152_064);
    }
}
