//! To Megatron-core, from Hugging Face or from shards of another layout.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::{Dtype, ModelShape, Stages};

use crate::checkpoint::{self, Layout};
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::parallel::for_each;
use crate::plan::Tensor;
use crate::plan::compose::compose;
use crate::plan::hf::ShardTensor;
use crate::plan::mcore::{Chunk, Cut, Entry, shard};
use crate::progress::{Report, Stop};
use crate::safetensors::HfModel;
use crate::shard::args::{Progress, Written as Args};
use crate::shard::write::Draft;
use crate::source::Checkpoint;
use crate::stage::{self, Output, StagedDir, Written};

/// Where tensors come from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A Hugging Face model.
    Hf(&'a HfModel),
    /// A checkpoint of another layout.
    Mcore(&'a Checkpoint),
}

/// What to convert, and how.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The checked source.
    pub source: Source<'a>,
    /// How it is cut.
    pub cut: Cut,
    /// Type of the written tensors.
    pub dtype: Dtype,
    /// `--tokenizer-model` as given: recorded in `args`, never read.
    pub tokenizer_model: Option<String>,
}

/// A tensor of the source.
#[derive(Clone, Debug)]
enum From {
    Hf(String),
    Mcore(ShardTensor),
}

impl<'a> Source<'a> {
    /// The source's model.
    #[must_use]
    pub fn shape(&self) -> &'a ModelShape {
        match self {
            Self::Hf(model) => model.shape(),
            Self::Mcore(checkpoint) => &checkpoint.shape,
        }
    }

    fn progress(&self) -> Progress {
        match self {
            Self::Hf(_) => Progress::BEGINNING,
            Self::Mcore(checkpoint) => checkpoint.progress,
        }
    }

    fn matrix(&self, from: &From) -> Result<Matrix<'a>> {
        match (self, from) {
            (Self::Hf(model), From::Hf(name)) => model.matrix(name),
            (Self::Mcore(checkpoint), From::Mcore(at)) => checkpoint.matrix(at),
            (Self::Hf(_), From::Mcore(_)) | (Self::Mcore(_), From::Hf(_)) => {
                Err(Error::Internal(format!("{from:?} is of another source")))
            }
        }
    }

    /// Plans over Hugging Face tensors, as plans over this source's.
    fn plan(&self, chunks: Vec<Chunk>) -> Result<Vec<Chunk<From>>> {
        let named: HashMap<&str, &Tensor<ShardTensor>> = match self {
            Self::Hf(_) => HashMap::new(),
            Self::Mcore(checkpoint) => checkpoint.tensors.iter().map(|t| (t.name.as_str(), t)).collect(),
        };
        let entry = |entry| match entry {
            Entry::ExtraState(name) => Ok(Entry::ExtraState(name)),
            Entry::Tensor(tensor) => match self {
                Self::Hf(_) => Ok(Entry::Tensor(tensor.map(From::Hf))),
                Self::Mcore(_) => compose(&tensor, &|name| named.get(name).copied())
                    .map(|tensor| Entry::Tensor(tensor.map(From::Mcore)))
                    .ok_or_else(|| Error::Internal(format!("nothing makes up `{}`", tensor.name))),
            },
        };
        let chunk = |chunk: Chunk| {
            let entries = chunk.entries.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
            Ok(Chunk { key: chunk.key, entries })
        };
        chunks.into_iter().map(chunk).collect()
    }
}

impl Request<'_> {
    fn draft(&self, stages: &Stages, tp: u32, pp: u32) -> Result<Draft<From>> {
        let shape = self.source.shape();
        let args = Args {
            shape,
            parallel: self.cut.parallel,
            deal: &self.cut.deal,
            padded_vocab: self.cut.vocabulary(shape),
            divisor: self.cut.divisor,
            dtype: self.dtype,
            tokenizer_model: self.tokenizer_model.as_deref(),
            progress: self.source.progress(),
        };
        let chunks = self.source.plan(shard(shape, &self.cut, stages, tp, pp))?;
        Ok(Draft::new(chunks, &args, self.cut.convention))
    }

    fn write(&self, draft: &Draft<From>, path: &Path, report: &dyn Report, stop: &Stop) -> Result<Written> {
        let output = Output::create(path, draft.size(), report, stop)?;
        draft.write(output, &|from| self.source.matrix(from))?.finish()
    }
}

/// Writes the shard of one rank to `out`, which appears whole or not at all.
///
/// # Errors
///
/// A layout that does not fit, a rank outside it, and whatever reading or writing meets.
pub fn write_shard(request: &Request<'_>, tp: u32, pp: u32, out: &Path, report: &dyn Report) -> Result<Written> {
    let stages = request.cut.stages(request.source.shape())?;
    let parallel = request.cut.parallel;
    if tp >= parallel.tp() || pp >= parallel.pp() {
        return Err(Error::usage(format!(
            "shard {tp},{pp} lies outside tp x pp = {} x {}",
            parallel.tp(),
            parallel.pp()
        ))
        .with_hint(format!("tp is 0 to {}, pp is 0 to {}", parallel.tp() - 1, parallel.pp() - 1)));
    }
    if !stage::parent(out).is_dir() {
        return Err(Error::bad(stage::parent(out), "is not a directory").with_hint("make the directory of --out first"));
    }
    let draft = request.draft(&stages, tp, pp)?;
    report.expect(draft.size());
    stage::remove_abandoned(out);
    let partial = stage::partial_name(out);
    let written = request.write(&draft, &partial, report, &Stop::default())?;
    stage::publish_file(&partial, out).inspect_err(|_| {
        let _ = fs::remove_file(&partial);
    })?;
    Ok(Written { path: out.to_owned(), ..written })
}

/// Writes a whole checkpoint below `save_dir`, its tracker last.
///
/// It is iteration 1 from Hugging Face, and the source's from shards.
///
/// # Errors
///
/// A layout that does not fit, a `save_dir` that holds something else, and
/// whatever reading or writing meets. Then `save_dir` is as it was, except that
/// it may have been created.
pub fn convert(request: &Request<'_>, save_dir: &Path, report: &dyn Report) -> Result<Vec<Written>> {
    let stages = request.cut.stages(request.source.shape())?;
    let iteration = request.source.progress().iteration;
    let goal = checkpoint::iteration_dir(save_dir, iteration);
    if let Source::Mcore(source) = request.source
        && stage::is_same_file(source.path(), &goal)
    {
        return Err(Error::usage(format!("`{}` would be replaced while it is read", goal.display()))
            .with_hint("give another `--save-dir`"));
    }
    checkpoint::refuse_foreign(save_dir, iteration)?;
    let layout = Layout::new(request.cut.parallel);
    let ranks: Vec<(u32, u32)> = layout.ranks().collect();
    let drafts = ranks.iter().map(|(tp, pp)| request.draft(&stages, *tp, *pp)).collect::<Result<Vec<_>>>()?;
    report.expect(drafts.iter().map(Draft::size).sum());
    let staged = StagedDir::create(&goal)?;
    let mut paths: Vec<PathBuf> = Vec::new();
    for (tp, pp) in &ranks {
        let path = layout.file(staged.path(), *tp, *pp);
        let dir = stage::parent(&path);
        fs::create_dir(dir).map_err(|e| Error::io("create", dir, e))?;
        paths.push(path);
    }
    let mut written = for_each(ranks.len(), &|i, stop| {
        let written = request.write(&drafts[i], &paths[i], report, stop)?;
        stage::sync_directory(stage::parent(&paths[i]))?;
        Ok(written)
    })?;
    for file in &mut written {
        file.path = staged.goal_of(&file.path);
    }
    checkpoint::remove_tracker(save_dir)?;
    staged.publish()?;
    checkpoint::write_tracker(save_dir, iteration)?;
    // Once for each shard, as the reference logs it, but only when it is true.
    for _ in &written {
        report.note(&checkpoint::saved_line(save_dir, iteration));
    }
    Ok(written)
}
