//! What can be said with a survey that has gaps.

use model::{Deal, Dtype, ModelShape, Parallel};

use super::compile::compile;
use super::pipeline::{Body, Pipeline};
use super::survey::{DataFormat, DatasetSurvey, ModelSurvey, Survey, TokenizerSurvey, wanted};
use crate::arguments::Arguments;
use crate::problem::Problem;
use crate::spec::Spec;

/// A pipeline for the eye: nothing of it is to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// Stages and tasks; unknown values of arguments read `<…>`, and no stage has a digest.
    pub pipeline: Pipeline,
    /// What could not be seen and what follows from it, a sentence each.
    pub unseen: Vec<String>,
}

/// Flags whose value is read from the model, and the key it is read from.
const FROM_MODEL: [(&str, &str); 9] = [
    ("--num-layers", "<num_hidden_layers>"),
    ("--hidden-size", "<hidden_size>"),
    ("--ffn-hidden-size", "<intermediate_size>"),
    ("--num-attention-heads", "<num_attention_heads>"),
    ("--num-query-groups", "<num_key_value_heads>"),
    ("--norm-epsilon", "<rms_norm_eps>"),
    ("--rotary-base", "<rope_theta>"),
    ("--padded-vocab-size", "<padded vocab_size>"),
    ("--params-dtype", "<torch_dtype>"),
];

/// Compiles for display, with stand-ins for what no agent saw.
///
/// # Errors
///
/// As [`compile`], for what was seen.
pub fn outline(spec: &Spec, survey: &Survey) -> Result<Outline, Vec<Problem>> {
    let wanted = wanted(spec);
    let mut unseen = Vec::new();
    let mut filled = survey.clone();
    let model_unseen = wanted.model.as_ref().filter(|_| survey.model.is_none());
    if let Some(dir) = model_unseen {
        unseen.push(format!(
            "the model in `{dir}`: sizes, optional flags such as --add-qkv-bias, and whether tp and pp divide it"
        ));
        filled.model =
            Some(ModelSurvey { shape: stand_in(spec.parallel, &spec.deal), bytes: 0, digest: String::new() });
    }
    if let Some(dir) = wanted.tokenizer.filter(|_| survey.tokenizer.is_none()) {
        unseen.push(format!("the tokenizer in `{dir}`: whether it fits the model"));
        filled.tokenizer = Some(TokenizerSurvey { digest: String::new(), eos: Some(0), vocab_size: None });
    }
    filled.dataset = wanted
        .dataset
        .iter()
        .map(|path| match survey.dataset.iter().find(|file| file.path == *path) {
            Some(file) => file.clone(),
            None => {
                unseen.push(format!("the input `{path}`: its columns, and how it is split into shards"));
                unseen_file(path)
            }
        })
        .collect();
    if survey.agents == 0 {
        unseen.push("any agent: how many shards and hosts there will be".to_owned());
    }
    let mut pipeline = compile(spec, &filled)?;
    let incomplete = !unseen.is_empty();
    for stage in &mut pipeline.stages {
        if incomplete {
            stage.digest = None;
        }
        if model_unseen.is_some() {
            stage.warnings.clear();
            for task in &mut stage.tasks {
                task.weight_bytes = 0;
                mask(spec, &mut task.body);
            }
        }
    }
    Ok(Outline { pipeline, unseen })
}

fn mask(spec: &Spec, body: &mut Body) {
    let words = match body {
        Body::ConvertShard { args, .. } => args,
        Body::Train(train) => &mut train.arguments,
        Body::Preflight(_)
        | Body::ConvertPublish { .. }
        | Body::Tokenize { .. }
        | Body::TokenizeMerge { .. }
        | Body::Export { .. }
        | Body::Run { .. } => return,
    };
    let user = spec.train().map(|train| Arguments::parse(&train.args)).unwrap_or_default();
    let dtype_known = spec.convert().is_some_and(|convert| convert.dtype.is_some());
    let mut list = Arguments::parse(words);
    for (flag, placeholder) in FROM_MODEL {
        let known = user.has(flag) || (flag == "--params-dtype" && dtype_known);
        if list.has(flag) && !known {
            list.set(flag, placeholder);
        }
    }
    *words = list.into_words();
}

fn unseen_file(path: &str) -> DatasetSurvey {
    DatasetSurvey {
        path: path.to_owned(),
        format: DataFormat::Parquet,
        rows: None,
        bytes: 0,
        byte_slices: false,
        row_groups: Vec::new(),
        columns: Vec::new(),
        digest: String::new(),
    }
}

/// Qwen2.5-7B's shape, widened and deepened until any layout and recompute setting fits.
pub(super) fn stand_in(parallel: Parallel, deal: &Deal) -> ModelShape {
    let (tp, pp) = (u64::from(parallel.tp()), u64::from(parallel.pp()));
    let slots = 10_000 * pp * deal.per_chunk.unwrap_or(1) - deal.noop.len() as u64;
    let num_layers = deal.list.as_ref().map_or(slots, |list| list.iter().fold(0, |sum, n| n.saturating_add(sum)));
    ModelShape {
        model_type: "qwen2".to_owned(),
        hidden_size: 3584 * tp,
        ffn_hidden_size: 18944 * tp,
        num_layers,
        num_attention_heads: 28 * tp,
        num_query_groups: 4 * tp,
        kv_channels: 128,
        vocab_size: 152_064,
        max_position_embeddings: u64::from(u32::MAX),
        rope_theta: 1e6,
        rms_norm_eps: 1e-6,
        tied: false,
        qkv_bias: true,
        qk_norm: false,
        dtype: Dtype::Bf16,
    }
}
