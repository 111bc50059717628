//! A checkpoint as the source of a conversion: opened, checked, every layer located.

use std::collections::HashMap;
use std::path::Path;

use model::{Dtype, ModelShape, Stages};

use crate::checkpoint::{self, Iteration};
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::parallel::{for_each, threads};
use crate::plan::Tensor;
use crate::plan::hf::{self, Held, ShardTensor};
use crate::plan::mcore::{EMBEDDING, HEAD};
use crate::progress::Report;
use crate::shard::Shard;
use crate::shard::args::Progress;
use crate::shard::read::Extent;
use crate::verify::{self, Found};

/// One iteration's shards, found to belong together.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its model.
    pub shape: ModelShape,
    /// How it is cut.
    pub held: Held,
    /// How far training had come.
    pub progress: Progress,
    /// What each Hugging Face tensor is made of, in module order.
    pub tensors: Vec<Tensor<ShardTensor>>,
    iteration: Iteration,
    shards: HashMap<(u32, u32), Shard>,
}

/// Which model a checkpoint is of.
#[derive(Clone, Debug)]
pub enum Expected<'a> {
    /// That of a `config.json`, named for messages.
    Of(&'a ModelShape, &'a Path),
    /// The one that its own `args` describe; the vocabulary may be overruled.
    Stated {
        /// Rows of the embedding without padding.
        vocabulary: Option<u64>,
    },
}

impl Checkpoint {
    /// Opens an iteration; `number` is `None` for the one that the tracker names.
    ///
    /// # Errors
    ///
    /// If it is incomplete, damaged, of another model or several iterations,
    /// or uses options that are not supported.
    pub fn open(dir: &Path, number: Option<u64>, expected: &Expected<'_>, report: &dyn Report) -> Result<Self> {
        let number = match number {
            Some(number) => number,
            None => newest(dir)?,
        };
        let iteration = checkpoint::iteration(dir, number)?;
        let mut shards = Vec::new();
        for (tp, pp, path) in &iteration.files {
            let shard = Shard::open(path)?;
            if let Some(stated) = shard.iteration().filter(|stated| *stated != number) {
                return Err(Error::bad(path, format!("is of iteration {stated}, but lies below iteration {number}"))
                    .with_hint("fetch the right file from the node that wrote it"));
            }
            shards.push(((*tp, *pp), shard));
        }
        let Some((_, first)) = shards.first() else {
            return Err(Error::bad(dir, "holds no shards"));
        };
        let shape = match expected {
            Expected::Of(shape, named) => {
                iteration.parallel.check_tensors(shape).map_err(|e| {
                    Error::bad(&iteration.path, format!("is of another model than `{}`: {e}", named.display()))
                })?;
                (*shape).clone()
            }
            Expected::Stated { .. } => {
                let shape = verify::shape_of(first)?;
                iteration.parallel.check_tensors(&shape)?;
                shape
            }
        };
        let (mut found, mut stages) = (HashMap::new(), Vec::new());
        for ((tp, pp), shard) in &shards {
            let one = verify::check(shard, &shape, iteration.parallel, *pp)?;
            if *tp == 0 {
                stages.push(one.taken.clone());
            } else if stages.last() != Some(&one.taken) {
                let (reason, hint) = verify::OTHER_LAYERS;
                return Err(Error::bad(shard.path(), reason).with_hint(hint));
            }
            found.insert((*tp, *pp), one);
        }
        let held = hold(&iteration, &shape, &stages, &found)?;
        let progress = Progress::of(&first.args, number);
        let shape = match expected {
            Expected::Of(..) => shape,
            Expected::Stated { vocabulary } => {
                let vocab_size = vocabulary.unwrap_or_else(|| stated_vocabulary(first, &held));
                ModelShape { vocab_size, ..shape }
            }
        };
        check_vocabulary(&iteration, &held, &shape, expected)?;
        let tensors = hf::from_shards(&shape, &held)
            .ok_or_else(|| Error::Internal("a layer that was counted is in no stage".to_owned()))?;
        let checkpoint = Self { shape, held, progress, tensors, iteration, shards: shards.into_iter().collect() };
        let files: Vec<&Shard> = checkpoint.shards.values().collect();
        for_each(files.len(), &|i, _| files[i].verify(Extent::Weights, threads().div_ceil(files.len())))?;
        if !checkpoint.tied_copies_agree()? {
            report.warn("the last stage's copy of the tied embedding differs from the first stage's, which is used");
        }
        Ok(checkpoint)
    }

    /// The directory of the iteration.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.iteration.path
    }

    /// The elements of a shard's tensor.
    ///
    /// # Errors
    ///
    /// If there is no such tensor, or its type is not supported.
    pub fn matrix(&self, at: &ShardTensor) -> Result<Matrix<'_>> {
        let shard = self.shards.get(&(at.tp, at.pp));
        let held = shard.and_then(|shard| Some((shard, shard.tensor(at.chunk, &at.name)?)));
        let (shard, tensor) = held.ok_or_else(|| Error::Internal(format!("no shard holds `{}`", at.name)))?;
        shard.matrix(&at.name, tensor)
    }

    /// The type that all parts of a tensor have.
    ///
    /// # Errors
    ///
    /// If they have several.
    pub fn dtype(&self, tensor: &Tensor<ShardTensor>) -> Result<Dtype> {
        let mut seen: Option<Dtype> = None;
        for part in tensor.blocks.iter().flat_map(|block| &block.parts) {
            let dtype = self.matrix(&part.source)?.dtype();
            if seen.is_some_and(|d| d != dtype) {
                return Err(self.mixed(&part.source.name));
            }
            seen = Some(dtype);
        }
        seen.ok_or_else(|| Error::Internal(format!("nothing makes up `{}`", tensor.name)))
    }

    /// The type that all tensors have.
    ///
    /// # Errors
    ///
    /// If they have several.
    pub fn only_dtype(&self) -> Result<Dtype> {
        let mut seen = None;
        for tensor in &self.tensors {
            let dtype = self.dtype(tensor)?;
            if *seen.get_or_insert(dtype) != dtype {
                return Err(self.mixed(&tensor.name));
            }
        }
        seen.ok_or_else(|| Error::Internal("a model without tensors".to_owned()))
    }

    fn mixed(&self, name: &str) -> Error {
        Error::bad(self.path(), format!("holds `{name}` in another type than what belongs to it"))
            .with_hint("choose one type with --params-dtype")
    }

    /// Whether a tied model's second copy of the embedding equals the first; training must have kept it so.
    ///
    /// # Errors
    ///
    /// If a copy is of a type that is not supported.
    pub fn tied_copies_agree(&self) -> Result<bool> {
        let (pp, chunks) = (self.held.parallel.pp(), self.held.stages.chunks_per_stage());
        if !self.shape.tied || pp == 1 {
            return Ok(true);
        }
        let last = u32::try_from(chunks).unwrap_or(1) - 1;
        for tp in 0..self.held.parallel.tp() {
            let at = |pp, chunk, name: &str| ShardTensor { tp, pp, chunk, name: name.to_owned() };
            if !self.matrix(&at(0, 0, EMBEDDING))?.same(&self.matrix(&at(pp - 1, last, HEAD))?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Puts what the shards hold together, and counts the layers.
fn hold(
    iteration: &Iteration,
    shape: &ModelShape,
    taken: &[Vec<Vec<u64>>],
    found: &HashMap<(u32, u32), Found>,
) -> Result<Held> {
    let stages = Stages::of_taken(taken).ok_or_else(|| {
        Error::bad(&iteration.path, "has stages with different numbers of virtual stages")
            .with_hint("all shards must come from one run")
    })?;
    if stages.layers() != shape.num_layers {
        return Err(Error::bad(
            &iteration.path,
            format!("holds {} layers; its model has {}", stages.layers(), shape.num_layers),
        )
        .with_hint("config.json belongs to another model, or shards of another layout lie among these"));
    }
    let (tp, last) = (iteration.parallel.tp(), iteration.parallel.pp() - 1);
    let rows = |pp, side: fn(&Found) -> Option<u64>| {
        (0..tp).filter_map(|tp| found.get(&(tp, pp)).and_then(side)).collect::<Vec<u64>>()
    };
    Ok(Held {
        parallel: iteration.parallel,
        stages,
        embedding_rows: rows(0, |found| found.embedding),
        head_rows: rows(last, |found| found.head),
    })
}

/// The vocabulary without padding: what `args` state, if the padding follows from it; else all rows.
fn stated_vocabulary(first: &Shard, held: &Held) -> u64 {
    let rows: u64 = held.embedding_rows.iter().fold(0, |n, rows| n.saturating_add(*rows));
    let divisor = first.args.count("make_vocab_size_divisible_by").unwrap_or(1);
    let follows = |vocabulary: u64| {
        let unit = divisor.checked_mul(u64::from(held.parallel.tp())).filter(|unit| *unit > 0);
        unit.and_then(|unit| vocabulary.checked_next_multiple_of(unit)) == Some(rows)
    };
    first.args.count("vocab_size").filter(|stated| *stated > 0 && follows(*stated)).unwrap_or(rows)
}

fn check_vocabulary(iteration: &Iteration, held: &Held, shape: &ModelShape, expected: &Expected<'_>) -> Result<()> {
    for (what, rows) in [("embedding", &held.embedding_rows), ("output layer", &held.head_rows)] {
        let rows_held = rows.iter().fold(0u64, |n, rows| n.saturating_add(*rows));
        if rows.is_empty() || rows_held >= shape.vocab_size {
            continue;
        }
        let (whose, hint) = match expected {
            Expected::Of(..) => ("its model has vocab_size =", "config.json belongs to another model".to_owned()),
            Expected::Stated { vocabulary: Some(_) } => {
                ("`--true-vocab-size` is", format!("give at most {rows_held}, or leave the flag out"))
            }
            Expected::Stated { vocabulary: None } => {
                ("its vocabulary has", "all shards must come from one run".to_owned())
            }
        };
        let reason = format!("holds {rows_held} rows of the {what}; {whose} {}", shape.vocab_size);
        return Err(Error::bad(&iteration.path, reason).with_hint(hint));
    }
    Ok(())
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
