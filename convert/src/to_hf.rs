//! Megatron-core back to Hugging Face.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::{Dtype, ModelShape};
use serde_json::{Map, Value};

use crate::checkpoint::{self, Iteration};
use crate::config::{Config, read_bounded};
use crate::dtype;
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::parallel::{for_each, threads};
use crate::plan::Tensor;
use crate::plan::hf::{self, ShardTensor};
use crate::progress::{Report, Stop};
use crate::safetensors::write::{FileDraft, SHARD_BYTES, Typed, index, split};
use crate::shard::Shard;
use crate::shard::read::Extent;
use crate::stage::{Output, StagedDir, Written};
use crate::verify::{self, Rows};
use crate::zip::write::Sink;

/// Files of a tokenizer, as transformers names them.
pub const TOKENIZER_FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Largest of the small files that are copied.
const LARGEST_COPY: u64 = 256 << 20;

/// What to convert, and where to.
#[derive(Clone, Debug)]
pub struct Request {
    /// Directory with `iter_…` directories and, for the newest, a tracker.
    pub load_dir: PathBuf,
    /// `None` for the one that the tracker names.
    pub iteration: Option<u64>,
    /// Directory of the original model: its config and tokenizer are copied.
    pub hf_dir: PathBuf,
    /// The directory to be made, or replaced as a whole.
    pub out: PathBuf,
    /// `None` keeps the type that each tensor has.
    pub dtype: Option<Dtype>,
}

/// Writes a Hugging Face model from a checkpoint.
///
/// # Errors
///
/// If the checkpoint is incomplete, damaged, of another model, or uses options
/// that are not supported, and whatever reading or writing meets. Then `out` is
/// as it was.
pub fn convert(request: &Request, report: &dyn Report) -> Result<Vec<Written>> {
    let config = Config::read(&request.hf_dir)?;
    refuse_foreign(&request.out)?;
    let source = Source::open(request, &config.shape, report)?;
    let tensors = source.plan(&config.shape, request.dtype)?;
    let config_text = config_for(&config, &tensors, report)?;
    let files = split(tensors, SHARD_BYTES);
    let mut small = vec![("config.json".to_owned(), config_text)];
    if files.len() > 1 {
        small.push(("model.safetensors.index.json".to_owned(), index(&files)));
    }
    for name in ["generation_config.json"].into_iter().chain(TOKENIZER_FILES) {
        let path = request.hf_dir.join(name);
        if path.is_file() {
            small.push((name.to_owned(), read_bounded(&path, LARGEST_COPY)?));
        }
    }
    let total: u64 =
        files.iter().map(FileDraft::size).sum::<u64>() + small.iter().map(|(_, b)| b.len() as u64).sum::<u64>();
    report.expect(total);
    let staged = StagedDir::create(&request.out)?;
    let mut written = for_each(files.len(), &|i, stop| {
        let output = Output::create(&staged.path().join(&files[i].name), files[i].size(), report, stop)?;
        files[i].write(output, &|at| source.matrix(at))?.finish()
    })?;
    for (name, bytes) in &small {
        let stop = Stop::default();
        let mut output = Output::create(&staged.path().join(name), bytes.len() as u64, report, &stop)?;
        output.put(bytes)?;
        written.push(output.finish()?);
    }
    for file in &mut written {
        file.path = staged.goal_of(&file.path);
    }
    staged.publish()?;
    report.note(&format!("save weight to {}", request.out.display()));
    Ok(written)
}

/// The opened shards of one iteration.
struct Source {
    iteration: Iteration,
    shards: HashMap<(u32, u32), Shard>,
    embedding_rows: Vec<u64>,
    head_rows: Vec<u64>,
}

impl Source {
    fn open(request: &Request, shape: &ModelShape, report: &dyn Report) -> Result<Self> {
        let number = match request.iteration {
            Some(number) => number,
            None => newest(&request.load_dir)?,
        };
        let iteration = checkpoint::iteration(&request.load_dir, number)?;
        iteration.parallel.check(shape).map_err(|e| {
            let dir = checkpoint::iteration_dir(&request.load_dir, number);
            Error::bad(dir, format!("is of another model than `{}`: {e}", request.hf_dir.display()))
        })?;
        let mut source = Self { iteration, shards: HashMap::new(), embedding_rows: Vec::new(), head_rows: Vec::new() };
        for (tp, pp, path) in source.iteration.files.clone() {
            let shard = Shard::open(&path)?;
            let Rows { embedding, head } = verify::check(&shard, shape, source.iteration.parallel, tp, pp)?;
            source.embedding_rows.extend(embedding);
            source.head_rows.extend(head);
            source.shards.insert((tp, pp), shard);
        }
        source.check_vocabulary(shape)?;
        for shard in source.shards.values() {
            shard.verify(Extent::Weights, threads())?;
        }
        source.compare_tied(shape, report)?;
        Ok(source)
    }

    fn check_vocabulary(&self, shape: &ModelShape) -> Result<()> {
        for (what, rows) in [("embedding", &self.embedding_rows), ("output layer", &self.head_rows)] {
            let held = rows.iter().fold(0u64, |n, rows| n.saturating_add(*rows));
            if !rows.is_empty() && held < shape.vocab_size {
                let dir = checkpoint::iteration_dir(Path::new(""), self.iteration.number);
                return Err(Error::bad(
                    dir,
                    format!("holds {held} rows of the {what}; config.json states vocab_size = {}", shape.vocab_size),
                )
                .with_hint("config.json belongs to another model"));
            }
        }
        Ok(())
    }

    /// A tied model's last stage has a copy that training must have kept equal.
    fn compare_tied(&self, shape: &ModelShape, report: &dyn Report) -> Result<()> {
        let pp = self.iteration.parallel.pp();
        if !shape.tied || pp == 1 {
            return Ok(());
        }
        for tp in 0..self.iteration.parallel.tp() {
            let at = |pp, name: &str| ShardTensor { tp, pp, name: name.to_owned() };
            let first = self.matrix(&at(0, "embedding.word_embeddings.weight"))?;
            let last = self.matrix(&at(pp - 1, "output_layer.weight"))?;
            if !first.same(&last) {
                report
                    .warn("the last stage's copy of the tied embedding differs from the first stage's, which is used");
                return Ok(());
            }
        }
        Ok(())
    }

    fn matrix(&self, at: &ShardTensor) -> Result<Matrix<'_>> {
        let shard = self.shards.get(&(at.tp, at.pp));
        let held = shard.and_then(|shard| Some((shard, shard.tensor(&at.name)?)));
        let (shard, tensor) = held.ok_or_else(|| Error::Internal(format!("no shard holds `{}`", at.name)))?;
        shard.matrix(&at.name, tensor)
    }

    fn plan(&self, shape: &ModelShape, wanted: Option<Dtype>) -> Result<Vec<Typed<ShardTensor>>> {
        hf::from_shards(shape, self.iteration.parallel, &self.embedding_rows, &self.head_rows)
            .into_iter()
            .map(|tensor| {
                let dtype = match wanted {
                    Some(dtype) => dtype,
                    None => self.stored_dtype(&tensor)?,
                };
                Ok(Typed { tensor, dtype })
            })
            .collect()
    }

    fn stored_dtype(&self, tensor: &Tensor<ShardTensor>) -> Result<Dtype> {
        let mut seen: Option<Dtype> = None;
        for part in tensor.blocks.iter().flat_map(|block| &block.parts) {
            let dtype = self.matrix(&part.source)?.dtype();
            if seen.is_some_and(|d| d != dtype) {
                let dir = checkpoint::iteration_dir(Path::new(""), self.iteration.number);
                return Err(Error::bad(
                    dir,
                    format!("holds `{}` in different types on different ranks", part.source.name),
                )
                .with_hint("choose one type with --params-dtype"));
            }
            seen = Some(dtype);
        }
        seen.ok_or_else(|| Error::Internal(format!("nothing makes up `{}`", tensor.name)))
    }
}

fn newest(load_dir: &Path) -> Result<u64> {
    if let Some(number) = checkpoint::tracker(load_dir)? {
        return Ok(number);
    }
    let error = Error::bad(load_dir, format!("has no `{}`", checkpoint::TRACKER));
    let above = load_dir.file_name().and_then(|n| checkpoint::iteration_of(&n.to_string_lossy())).is_some();
    Err(if above {
        error.with_hint("give the directory that holds `iter_…`, not the iteration's own")
    } else {
        match checkpoint::iterations(load_dir)?.last() {
            Some(number) => error.with_hint(format!("choose one with --iteration; the newest directory is {number}")),
            None => error.with_hint("the directory holds no checkpoint"),
        }
    })
}

/// Only a directory of an earlier conversion may be replaced.
fn refuse_foreign(out: &Path) -> Result<()> {
    if out.symlink_metadata().is_err() {
        return Ok(());
    }
    let hint = "choose another output directory, or move the old one away";
    let entries = fs::read_dir(out).map_err(|e| Error::io("read", out, e))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.ends_with(".safetensors")
            || ["config.json", "generation_config.json", "model.safetensors.index.json"].contains(&&*name)
            || TOKENIZER_FILES.contains(&&*name);
        if !ours || entry.path().is_dir() {
            return Err(Error::bad(entry.path(), "would be replaced, but is no result of a conversion").with_hint(hint));
        }
    }
    Ok(())
}

/// The original `config.json`, with the tensors' type set right where it changed.
fn config_for(config: &Config, tensors: &[Typed<ShardTensor>], report: &dyn Report) -> Result<Vec<u8>> {
    let mut types = tensors.iter().map(|t| t.dtype);
    let first = types.next().unwrap_or(config.shape.dtype);
    if types.any(|d| d != first) || (config.dtype_stated && first == config.shape.dtype) {
        return Ok(config.text.clone());
    }
    let mut json: Map<String, Value> = serde_json::from_slice(&config.text)
        .map_err(|e| Error::bad(&config.path, format!("is no valid JSON object: {e}")))?;
    let key = if json.contains_key("dtype") && !json.contains_key("torch_dtype") { "dtype" } else { "torch_dtype" };
    if config.dtype_stated {
        let (old, new) = (dtype::torch_name(config.shape.dtype), dtype::torch_name(first));
        report.warn(&format!("the checkpoint holds {new}, config.json said {old}; the copy says {new}"));
    }
    json.insert(key.to_owned(), dtype::torch_name(first).into());
    Ok(format!("{:#}\n", Value::Object(json)).into_bytes())
}
