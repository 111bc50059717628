//! Whether two sides of a conversion hold the same weights, read again from both.
//!
//! Both are seen as Hugging Face tensors, so shards are read by the plan of
//! the way back: an error in the plan that wrote them does not repeat itself here.

use std::collections::HashMap;
use std::path::Path;

use model::Dtype;

use crate::checkpoint;
use crate::error::{Error, Result};
use crate::matrix::{Cast, Matrix, emit};
use crate::parallel::for_each;
use crate::plan::hf::{self, ShardTensor};
use crate::plan::layer::{Rule, rows};
use crate::plan::mcore::{EMBEDDING, HEAD, NORM, layer_name};
use crate::plan::{Block, Tensor};
use crate::progress::Report;
use crate::safetensors::HfModel;
use crate::source::Checkpoint;

/// One side.
#[derive(Clone, Copy, Debug)]
pub enum Side<'a> {
    /// A Hugging Face model.
    Hf(&'a HfModel),
    /// A checkpoint.
    Mcore(&'a Checkpoint),
}

/// What was found equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Equal {
    /// Tensors, as Hugging Face counts them.
    pub tensors: usize,
    /// Bytes of each side, in the written type.
    pub bytes: u64,
}

/// Compares every tensor of `written` with that of `source`, cast as it was to be.
///
/// `dtype` is the type asked for; `None` where each tensor keeps its own.
///
/// # Errors
///
/// The first tensor that differs, has another type than it was to have, or is
/// padded or copied unequally, also between ranks; and whatever reading meets.
pub fn compare(
    source: Side<'_>,
    written: Side<'_>,
    dtype: Option<Dtype>,
    via: Option<Dtype>,
    report: &dyn Report,
) -> Result<Equal> {
    let (a, b) = (Tensors::of(source), Tensors::of(written));
    if let Side::Mcore(checkpoint) = written {
        check_copies(checkpoint)?;
    }
    let names: Vec<(String, Vec<u64>)> = hf::tensors(written.shape());
    let sizes = for_each(names.len(), &|i, stop| {
        stop.check()?;
        let (name, shape) = &names[i];
        let to = written.dtype(name, &b)?;
        let wanted = dtype.map_or_else(|| source.dtype(name, &a), Ok)?;
        if wanted != to {
            return Err(differs(name, &format!("is {} instead of {}", to.flag(), wanted.flag())));
        }
        let (theirs, count) = a.digest(name, shape, Cast { via, to })?;
        let (ours, written) = b.digest(name, shape, Cast::to(to))?;
        if theirs != ours || count != written {
            return Err(differs(name, "does not equal the source's"));
        }
        report.advance(0);
        Ok(written)
    })?;
    Ok(Equal { tensors: names.len(), bytes: sizes.iter().sum() })
}

/// Verifies what was just written to `path`; where that fails, its tracker no longer vouches for it.
///
/// # Errors
///
/// [`Error::Unverified`] with that of `verify`.
pub fn vouch<T>(path: &Path, verify: impl FnOnce() -> Result<T>) -> Result<T> {
    verify().map_err(|source| {
        // Where even this fails, the sentence alone warns.
        let _ = checkpoint::remove_tracker(path);
        Error::Unverified { path: path.to_owned(), source: Box::new(source) }
    })
}

fn differs(name: &str, how: &str) -> Error {
    Error::Differs { what: format!("`{name}` {how}") }
}

impl Side<'_> {
    fn shape(&self) -> &model::ModelShape {
        match self {
            Self::Hf(model) => model.shape(),
            Self::Mcore(checkpoint) => &checkpoint.shape,
        }
    }

    fn dtype(&self, name: &str, tensors: &Tensors<'_>) -> Result<Dtype> {
        match self {
            Self::Hf(model) => Ok(model.matrix(name)?.dtype()),
            Self::Mcore(checkpoint) => checkpoint.dtype(tensors.planned(name)?),
        }
    }
}

/// A side's tensors by name.
struct Tensors<'a> {
    side: Side<'a>,
    planned: HashMap<&'a str, &'a Tensor<ShardTensor>>,
}

impl<'a> Tensors<'a> {
    fn of(side: Side<'a>) -> Self {
        let planned = match side {
            Side::Hf(_) => HashMap::new(),
            Side::Mcore(checkpoint) => checkpoint.tensors.iter().map(|t| (t.name.as_str(), t)).collect(),
        };
        Self { side, planned }
    }

    fn planned(&self, name: &str) -> Result<&'a Tensor<ShardTensor>> {
        self.planned.get(name).copied().ok_or_else(|| differs(name, "is not in the shards"))
    }

    /// Digest and number of the cast tensor's bytes.
    fn digest(&self, name: &str, shape: &[u64], cast: Cast) -> Result<(blake3::Hash, u64)> {
        let (mut hash, mut count) = (blake3::Hasher::new(), 0);
        let mut sink = |bytes: &[u8]| {
            for chunk in bytes.chunks(1 << 20) {
                hash.update(chunk);
            }
            count += bytes.len() as u64;
            Ok(())
        };
        match self.side {
            Side::Hf(model) => {
                let (rows, width) = (shape.first().copied().unwrap_or(1), shape.get(1).copied().unwrap_or(1));
                let whole = Tensor {
                    name: name.to_owned(),
                    shape: shape.to_vec(),
                    blocks: vec![Block::rows(name.to_owned(), 0, rows, width)],
                };
                emit(&whole, cast, &|name| model.matrix(name), &mut sink)?;
            }
            Side::Mcore(checkpoint) => {
                emit(self.planned(name)?, cast, &|at| checkpoint.matrix(at), &mut sink)?;
            }
        }
        Ok((hash.finalize(), count))
    }
}

/// What no Hugging Face tensor has: padding, a tied model's second copy, and what every rank holds for itself.
fn check_copies(checkpoint: &Checkpoint) -> Result<()> {
    if !checkpoint.tied_copies_agree()? {
        return Err(differs(HEAD, "does not equal the embedding that it is tied to"));
    }
    check_padding(checkpoint)?;
    check_whole(checkpoint)
}

fn last_chunk(checkpoint: &Checkpoint) -> u32 {
    u32::try_from(checkpoint.held.stages.chunks_per_stage()).unwrap_or(1).saturating_sub(1)
}

/// Rows beyond the vocabulary repeat its last.
fn check_padding(checkpoint: &Checkpoint) -> Result<()> {
    let (last, held) = (checkpoint.held.parallel.pp() - 1, &checkpoint.held);
    let sides = [(EMBEDDING, 0, 0, &held.embedding_rows), (HEAD, last, last_chunk(checkpoint), &held.head_rows)];
    for (name, pp, chunk, rows) in sides {
        let at = |tp| ShardTensor { tp, pp, chunk, name: name.to_owned() };
        let (mut start, mut expected) = (0, None);
        for (tp, held) in (0..).zip(rows) {
            let matrix: Matrix<'_> = checkpoint.matrix(&at(tp))?;
            for row in checkpoint.shape.vocab_size.saturating_sub(start + 1)..*held {
                let mut bytes = Vec::new();
                let one = Tensor {
                    name: name.to_owned(),
                    shape: vec![1, checkpoint.shape.hidden_size],
                    blocks: vec![Block::rows((), row, 1, checkpoint.shape.hidden_size)],
                };
                emit(&one, Cast::to(matrix.dtype()), &|()| Ok(matrix), &mut |run| {
                    bytes.extend_from_slice(run);
                    Ok(())
                })?;
                if *expected.get_or_insert_with(|| bytes.clone()) != bytes {
                    return Err(differs(name, "has padding that does not repeat the vocabulary's last row"));
                }
            }
            start += held;
        }
    }
    Ok(())
}

/// The way back reads what is not cut from the first rank alone; the others hold the same.
fn check_whole(checkpoint: &Checkpoint) -> Result<()> {
    let (last, held) = (checkpoint.held.parallel.pp() - 1, &checkpoint.held);
    let mut all = vec![(last, last_chunk(checkpoint), NORM.to_owned())];
    for l in 0..checkpoint.shape.num_layers {
        let Some((pp, chunk, place)) = held.stages.place(l) else { continue };
        let whole = rows(&checkpoint.shape).filter(|row| matches!(row.rule, Rule::Whole(..)));
        all.extend(whole.map(|row| (pp, chunk, layer_name(place, row))));
    }
    for (pp, chunk, name) in all {
        let at = |tp| checkpoint.matrix(&ShardTensor { tp, pp, chunk, name: name.clone() });
        let first = at(0)?;
        for tp in 1..held.parallel.tp() {
            if !at(tp)?.same(&first) {
                return Err(differs(
                    &name,
                    &format!("of stage {pp} is another on tensor-parallel rank {tp} than on 0"),
                ));
            }
        }
    }
    Ok(())
}
