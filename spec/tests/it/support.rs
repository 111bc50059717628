//! The tutorial's pipeline, its model, and what a survey would say of them.

use model::{Dtype, ModelShape};
use spec::Spec;
use spec::plan::{DataFormat, DatasetSurvey, FileSurvey, ModelSurvey, RowGroup, Survey, TokenizerSurvey};

pub(crate) const TUTORIAL: &str = "\
name: qwen25-7b-pretrain
workdir: /data/MindSpeed-LLM
parallel: { tp: 2, pp: 2 }
model: { hf_dir: ./qwen2.5_7b_hf }
dataset: { files: [./dataset/train-00000-of-00001-a09b74b3ef9c3b56.parquet] }
runtime:
  python: /data/venvs/ms271/bin/python
  env: { CUDA_DEVICE_MAX_CONNECTIONS: \"1\" }
stages:
  preflight: { require: { cann: 8.2.RC2, mindspore: 2.7.1, python: \"3.10\" } }
  convert: { engine: native, save_dir: ./model_weights/qwen2.5_mcore, dtype: bf16 }
  preprocess: { engine: native, output_prefix: ./dataset/alpaca, workers: 4 }
  train:
    launcher: ranks
    script: pretrain_gpt.py
    nodes: 1
    ranks_per_node: 4
    seq_length: 10240
    micro_batch_size: 1
    global_batch_size: 64
    train_iters: 3
    recompute: none
    save_dir: ./pretrain_ckpt/nonrecompute
    lr: 1.25e-6
    resume: weights
    args: []
  export: { from: train, iteration: latest }
";

pub(crate) fn tutorial() -> Spec {
    with(&[])
}

/// `--set` as a test writes it.
pub(crate) type Set<'a> = (&'a str, &'a str);

/// The tutorial's pipeline with values replaced.
pub(crate) fn with(overrides: &[(&str, &str)]) -> Spec {
    parse_with(TUTORIAL, overrides).unwrap_or_else(|problems| panic!("{}", spec::render(&problems)))
}

pub(crate) fn parse_with(text: &str, overrides: &[(&str, &str)]) -> Result<Spec, Vec<spec::Problem>> {
    let overrides: Vec<(String, String)> =
        overrides.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect();
    spec::parse_with_overrides(text, "pipeline.yaml", &overrides)
}

pub(crate) fn qwen7b() -> ModelShape {
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

/// Two agents on two hosts saw everything.
pub(crate) fn survey() -> Survey {
    Survey {
        model: Some(ModelSurvey { shape: qwen7b(), bytes: 15_231_233_024, digest: "m0".into() }),
        dataset: vec![DatasetSurvey {
            path: "./dataset/train-00000-of-00001-a09b74b3ef9c3b56.parquet".into(),
            format: DataFormat::Parquet,
            rows: Some(1000),
            bytes: 4000,
            byte_slices: false,
            row_groups: [250, 250, 250, 250].map(|rows| RowGroup { rows, bytes: 1000 }).to_vec(),
            columns: ["instruction", "input", "output", "text"].map(str::to_owned).to_vec(),
            digest: "d0".into(),
        }],
        tokenizer: Some(TokenizerSurvey { digest: "t0".into(), eos: Some(151_645), vocab_size: Some(151_665) }),
        script: Some(FileSurvey { path: "pretrain_gpt.py".into(), digest: "s0".into() }),
        hosts: 2,
        agents: 2,
    }
}

pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
