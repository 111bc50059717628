//! Facts about a model or a checkpoint on disk, for planning.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use model::ModelShape;
use serde::Serialize;

use crate::checkpoint;
use crate::digest;
use crate::error::{Error, Result};
use crate::parallel::for_each;
use crate::safetensors::HfModel;
use crate::to_hf::TOKENIZER_FILES;
use crate::zip::Archive;

/// Below this many bytes the weights' digest covers all of them.
const FULL_DIGEST: u64 = 2 << 30;

/// A file and its size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSize {
    /// Where it lies.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
}

/// A small file with the digest of its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DigestedFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// `blake3:…`.
    pub digest: String,
}

/// [`ModelShape`] in a form that can be written as JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shape {
    model_type: String,
    hidden_size: u64,
    ffn_hidden_size: u64,
    num_layers: u64,
    num_attention_heads: u64,
    num_query_groups: u64,
    kv_channels: u64,
    vocab_size: u64,
    max_position_embeddings: u64,
    rope_theta: f64,
    rms_norm_eps: f64,
    tied: bool,
    qkv_bias: bool,
    qk_norm: bool,
    dtype: &'static str,
}

impl From<&ModelShape> for Shape {
    fn from(s: &ModelShape) -> Self {
        Self {
            model_type: s.model_type.clone(),
            hidden_size: s.hidden_size,
            ffn_hidden_size: s.ffn_hidden_size,
            num_layers: s.num_layers,
            num_attention_heads: s.num_attention_heads,
            num_query_groups: s.num_query_groups,
            kv_channels: s.kv_channels,
            vocab_size: s.vocab_size,
            max_position_embeddings: s.max_position_embeddings,
            rope_theta: s.rope_theta,
            rms_norm_eps: s.rms_norm_eps,
            tied: s.tied,
            qkv_bias: s.qkv_bias,
            qk_norm: s.qk_norm,
            dtype: s.dtype.flag(),
        }
    }
}

/// A Hugging Face model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HfFacts {
    /// What `config.json` says, checked against the weights.
    pub shape: Shape,
    /// The safetensors files.
    pub files: Vec<FileSize>,
    /// Their bytes together.
    pub bytes: u64,
    /// Digest of `config.json`.
    pub config_digest: String,
    /// The tokenizer's files.
    pub tokenizer: Tokenizer,
    /// Digest of the weights.
    pub weights_digest: String,
    /// What it covers: `content`, or `headers, sizes and times`.
    pub weights_digest_covers: &'static str,
    /// Remarks worth showing.
    pub remarks: Vec<String>,
}

/// The files of a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tokenizer {
    /// In a fixed order; absent ones are left out.
    pub files: Vec<DigestedFile>,
}

/// Describes the model in `dir`.
///
/// # Errors
///
/// Those of [`HfModel::open`], and of reading files.
pub fn hf(dir: &Path) -> Result<HfFacts> {
    let model = HfModel::open(dir)?;
    let files = model.files().map(|(map, _)| FileSize { path: map.path().to_owned(), size: map.bytes().len() as u64 });
    let (weights_digest, weights_digest_covers) = weights_digest(&model)?;
    let mut tokenizer = Vec::new();
    for name in TOKENIZER_FILES {
        let path = dir.join(name);
        if let Ok(meta) = fs::metadata(&path)
            && meta.is_file()
        {
            tokenizer.push(DigestedFile { size: meta.len(), digest: digest::of_file(&path)?, path });
        }
    }
    Ok(HfFacts {
        shape: Shape::from(model.shape()),
        files: files.collect(),
        bytes: model.bytes(),
        config_digest: digest::of_bytes(&model.config.text),
        tokenizer: Tokenizer { files: tokenizer },
        weights_digest,
        weights_digest_covers,
        remarks: model.remarks.clone(),
    })
}

/// All content while that is quick; beyond, what changes when content is replaced.
fn weights_digest(model: &HfModel) -> Result<(String, &'static str)> {
    let files: Vec<_> = model.files().collect();
    let full = model.bytes() < FULL_DIGEST;
    let parts = for_each(files.len(), &|i, _| {
        let (map, header) = files[i];
        if full {
            return Ok(digest::of_bytes(map.bytes()));
        }
        let meta = fs::metadata(map.path()).map_err(|e| Error::io("read", map.path(), e))?;
        let time = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos());
        Ok(format!("{} {time}", digest::of_bytes(map.bytes().get(..header).unwrap_or_default())))
    })?;
    let mut hash = blake3::Hasher::new();
    for ((map, _), part) in files.iter().zip(parts) {
        let name = map.path().file_name().unwrap_or_default().to_string_lossy();
        hash.update(format!("{name}\0{}\0{part}\n", map.bytes().len()).as_bytes());
    }
    Ok((digest::render(&hash), if full { "content" } else { "headers, sizes and times" }))
}

/// A checkpoint directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct McoreFacts {
    /// What the tracker says.
    pub tracker: Option<u64>,
    /// Whether the tracker names a complete iteration.
    pub usable: bool,
    /// All iterations, ascending.
    pub iterations: Vec<IterationFacts>,
}

/// One iteration of a checkpoint directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IterationFacts {
    /// Its number.
    pub iteration: u64,
    /// Whether all shards are there and whole.
    pub complete: bool,
    /// Why not, where it is not.
    pub why: Option<String>,
    /// Tensor-parallel size, where the directories show one layout.
    pub tp: Option<u32>,
    /// Pipeline-parallel size, likewise.
    pub pp: Option<u32>,
    /// The shards' files.
    pub shards: Vec<ShardFacts>,
    /// Their bytes together.
    pub bytes: u64,
}

/// One shard's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShardFacts {
    /// Tensor-parallel rank.
    pub tp: u32,
    /// Pipeline stage.
    pub pp: u32,
    /// Where it lies.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
}

/// Describes the checkpoints in `dir`.
///
/// # Errors
///
/// If `dir` or its tracker cannot be read; incomplete iterations are facts, not errors.
pub fn mcore(dir: &Path) -> Result<McoreFacts> {
    let tracker = checkpoint::tracker(dir)?;
    let iterations: Vec<IterationFacts> =
        checkpoint::iterations(dir)?.into_iter().map(|number| describe_iteration(dir, number)).collect();
    let usable = iterations.iter().any(|i| Some(i.iteration) == tracker && i.complete);
    Ok(McoreFacts { tracker, usable, iterations })
}

fn describe_iteration(dir: &Path, number: u64) -> IterationFacts {
    let mut facts = IterationFacts {
        iteration: number,
        complete: false,
        why: None,
        tp: None,
        pp: None,
        shards: Vec::new(),
        bytes: 0,
    };
    let found = match checkpoint::iteration(dir, number) {
        Ok(found) => found,
        Err(error) => {
            facts.why = Some(error.chain());
            return facts;
        }
    };
    (facts.tp, facts.pp) = (Some(found.parallel.tp()), Some(found.parallel.pp()));
    for (tp, pp, path) in found.files {
        match crate::mapped::Mapped::open(&path).and_then(|map| {
            Archive::parse(&path, map.bytes())?;
            Ok(map.bytes().len() as u64)
        }) {
            Ok(size) => {
                facts.bytes += size;
                facts.shards.push(ShardFacts { tp, pp, path, size });
            }
            Err(error) => facts.why = facts.why.or_else(|| Some(error.chain())),
        }
    }
    facts.complete = facts.why.is_none();
    facts
}
