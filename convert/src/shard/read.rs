//! Reads a shard, whoever wrote it: torch, MSAdapter or this crate.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::model::Parallel;

use super::args::Args;
use super::tensor::TensorRef;
use crate::dtype;
use crate::error::{Error, Result};
use crate::mapped::Mapped;
use crate::matrix::Matrix;
use crate::pickle::{Id, Pickle, Value};
use crate::zip::Archive;
use crate::zip::read::Entry;

/// Most keys of the top dictionary, virtual stages among them.
const MOST_KEYS: usize = 4096;

/// Most entries of all `model` dictionaries together.
const MOST_ENTRIES: usize = 1 << 17;

/// Most bytes of a name; one str may stand in many places at no cost to whoever wrote the file.
const LONGEST_NAME: usize = 256;

/// Largest size of one side of a layout.
const LARGEST_SIZE: u64 = 4096;

/// The sizes of a layout as `args` name them.
const SIZES: [&str; 2] = ["tensor_model_parallel_size", "pipeline_model_parallel_size"];

/// A value of a `model` dictionary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelEntry {
    /// A tensor.
    Tensor(TensorRef),
    /// None, as `_extra_state` has.
    None,
    /// Anything else, such as an `_extra_state` with content.
    Other,
}

/// A plain value at the top of the dictionary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// None.
    None,
    /// An int.
    Int(i64),
    /// A float.
    Float(f64),
    /// Anything else.
    Other,
}

/// Which of a shard's bytes are compared with their checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of them.
    All,
    /// Those of the weights: optimizer state, several times as large, is left out.
    Weights,
}

/// An opened shard. Its tensors' bytes stay in the mapped file.
#[derive(Debug)]
pub struct Shard {
    map: Mapped,
    archive: Archive,
    top: String,
    /// Keys of the top dictionary with their plain values, in order.
    pub scalars: Vec<(String, Scalar)>,
    /// The plain values of `args`.
    pub args: Args,
    /// `model`, or `model0`, `model1`, … with virtual pipeline stages; entries in order.
    pub models: Vec<(String, Vec<(String, ModelEntry)>)>,
}

impl Shard {
    /// Opens a shard and reads all but its tensors.
    ///
    /// # Errors
    ///
    /// If the file is no intact archive, its pickle is malformed, or a tensor
    /// names a storage that is missing or too short.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_checked(path)
            .map_err(|error| error.or_hint("make or fetch the checkpoint again, or choose another iteration"))
    }

    fn open_checked(path: &Path) -> Result<Self> {
        let map = Mapped::open(path)?;
        let archive = Archive::parse(path, map.bytes())?;
        let bad = |reason: String| Error::bad(path, reason);
        let mut tops = archive.entries().iter().filter_map(|e| e.name.strip_suffix("/data.pkl"));
        let top = match (tops.next(), tops.next()) {
            (Some(top), None) if !top.contains('/') => top.to_owned(),
            _ => return Err(bad("holds no single `data.pkl` below one top directory".to_owned())),
        };
        let entry = archive.find(&format!("{top}/data.pkl")).ok_or_else(|| bad("holds no `data.pkl`".to_owned()))?;
        if !archive.check(map.bytes(), entry) {
            return Err(damaged(path, entry));
        }
        let order = archive.find(&format!("{top}/byteorder")).map(|e| &map.bytes()[e.range.clone()]);
        if order.is_some_and(|o| o != b"little") {
            return Err(Error::unsupported(format!("the byte order of `{}`", path.display())));
        }
        let pickle = Pickle::parse(&map.bytes()[entry.range.clone()])
            .map_err(|reason| bad(format!("has a malformed `data.pkl`: {reason}")))?;
        let top_pairs = pickle.pairs(pickle.root()).ok_or_else(|| bad("holds no dictionary".to_owned()))?;
        if top_pairs.len() > MOST_KEYS {
            return Err(bad(format!("holds a dictionary of more than {MOST_KEYS} keys")));
        }
        let short = |key: Id| pickle.str(key).filter(|name| name.len() <= LONGEST_NAME);
        let named: Vec<(&str, Id)> = top_pairs.iter().filter_map(|(k, v)| Some((short(*k)?, *v))).collect();
        let args = named.iter().find(|(k, _)| *k == "args").map(|(_, id)| Args::read(&pickle, *id));
        let args =
            args.unwrap_or_else(|| Some(Args::default())).ok_or_else(|| bad("has too many `args`".to_owned()))?;
        for name in SIZES {
            if let Some(size) = args.count(name).filter(|size| *size > LARGEST_SIZE) {
                return Err(bad(format!("states {name} = {size} in its `args`, more than {LARGEST_SIZE}")));
            }
        }
        let scalars = named.iter().map(|(k, v)| ((*k).to_owned(), scalar(pickle.get(*v)))).collect();
        let (mut models, mut held) = (Vec::new(), 0);
        for (key, id) in &named {
            if key.strip_prefix("model").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit())) {
                let pairs = pickle.pairs(*id).ok_or_else(|| bad(format!("has a `{key}` that is no dictionary")))?;
                held += pairs.len();
                if held > MOST_ENTRIES {
                    return Err(bad(format!("holds more than {MOST_ENTRIES} tensors")));
                }
                let entries = model_entries(&pickle, &pairs)
                    .ok_or_else(|| bad(format!("names a tensor in more than {LONGEST_NAME} bytes")))?;
                models.push(((*key).to_owned(), entries));
            }
        }
        sort_chunks(&mut models).ok_or_else(|| bad("holds no unbroken row of `model` dictionaries".to_owned()))?;
        if models.is_empty() {
            return Err(
                bad("holds no `model`".to_owned()).with_hint("only checkpoints in Megatron's torch format are read")
            );
        }
        let shard = Self { top, scalars, args, models, map, archive };
        shard.check_storages()?;
        Ok(shard)
    }

    /// Where the shard lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// Size of the file in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.map.bytes().len() as u64
    }

    /// The file's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.map.bytes()
    }

    /// The tensors of each `model` dictionary, by name.
    pub fn tensors(&self) -> impl Iterator<Item = HashMap<&str, &TensorRef>> {
        self.models.iter().map(|(_, entries)| {
            let tensors = entries.iter().filter_map(|(name, entry)| match entry {
                ModelEntry::Tensor(tensor) => Some((name.as_str(), tensor)),
                ModelEntry::None | ModelEntry::Other => None,
            });
            tensors.collect()
        })
    }

    /// The tensor of that name in the `model` dictionary of a virtual stage.
    #[must_use]
    pub fn tensor(&self, chunk: u32, name: &str) -> Option<&TensorRef> {
        let (_, entries) = self.models.get(chunk as usize)?;
        entries.iter().find_map(|(held, entry)| match entry {
            ModelEntry::Tensor(tensor) if held == name => Some(tensor),
            ModelEntry::Tensor(_) | ModelEntry::None | ModelEntry::Other => None,
        })
    }

    /// The iteration that the file itself states.
    #[must_use]
    pub fn iteration(&self) -> Option<u64> {
        self.scalars.iter().find_map(|(key, value)| match value {
            Scalar::Int(number) if key == "iteration" => u64::try_from(*number).ok(),
            Scalar::Int(_) | Scalar::None | Scalar::Float(_) | Scalar::Other => None,
        })
    }

    /// The layout that `args` state.
    #[must_use]
    pub fn parallel(&self) -> Option<Parallel> {
        let size = |name: &str| self.args.count(name).and_then(|n| u32::try_from(n).ok());
        let [tp, pp] = SIZES.map(size);
        Parallel::new(tp?, pp?).ok()
    }

    /// Whether the state of a training run lies beside the weights.
    #[must_use]
    pub fn has_training_state(&self) -> bool {
        self.scalars.iter().any(|(key, _)| ["optimizer", "opt_param_scheduler", "rng_state"].contains(&key.as_str()))
    }

    /// Whether it is a conversion's: its `args` then say nothing of batches, which no training goes without.
    #[must_use]
    pub fn is_converted(&self) -> bool {
        self.args.flag("no_save_optim") == Some(true)
            && self.args.is_set("world_size")
            && !self.args.is_set("micro_batch_size")
    }

    /// A tensor's elements.
    ///
    /// # Errors
    ///
    /// If its type is not supported or its strides leave the storage.
    pub fn matrix(&self, name: &str, tensor: &TensorRef) -> Result<Matrix<'_>> {
        let path = self.path();
        let dtype = tensor
            .dtype()
            .ok_or_else(|| Error::unsupported(format!("`{}` of `{name}` in `{}`", tensor.storage, path.display())))?;
        let bytes = self.storage(tensor)?;
        usize::try_from(tensor.offset)
            .ok()
            .and_then(|offset| offset.checked_mul(dtype::width(dtype)))
            .and_then(|start| bytes.get(start..))
            .and_then(|bytes| Matrix::strided(bytes, dtype, &tensor.shape, &tensor.strides))
            .ok_or_else(|| Error::bad(path, format!("holds `{name}` with a shape or strides beyond its storage")))
    }

    /// Compares the checksums of the chosen entries, in `threads` threads.
    ///
    /// # Errors
    ///
    /// If one differs.
    pub fn verify(&self, extent: Extent, threads: usize) -> Result<()> {
        let entries: Vec<&Entry> = match extent {
            Extent::All => self.archive.entries().iter().collect(),
            Extent::Weights => {
                let models = self.models.iter().flat_map(|(_, entries)| entries);
                let keys = models.filter_map(|(_, entry)| match entry {
                    ModelEntry::Tensor(tensor) => Some(&tensor.key),
                    ModelEntry::None | ModelEntry::Other => None,
                });
                keys.filter_map(|key| self.archive.find(&format!("{}/data/{key}", self.top))).collect()
            }
        };
        let next = AtomicUsize::new(0);
        let bytes = self.map.bytes();
        let work = || loop {
            match entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                None => return Ok(()),
                Some(entry) if !self.archive.check(bytes, entry) => return Err(damaged(self.path(), entry)),
                Some(_) => {}
            }
        };
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for helper in helpers {
                result = result.and(helper.join().unwrap_or(Err(Error::Stopped)));
            }
            result
        })
    }

    fn storage(&self, tensor: &TensorRef) -> Result<&[u8]> {
        self.archive
            .find(&format!("{}/data/{}", self.top, tensor.key))
            .map(|entry| &self.map.bytes()[entry.range.clone()])
            .ok_or_else(|| Error::bad(self.path(), format!("lacks the storage `data/{}`", tensor.key)))
    }

    /// Every tensor of the weights must have its bytes before anything is written.
    fn check_storages(&self) -> Result<()> {
        for (_, entries) in &self.models {
            for (name, entry) in entries {
                let ModelEntry::Tensor(tensor) = entry else { continue };
                let held = self.storage(tensor)?.len() as u64;
                let needed = tensor.dtype().map_or(Some(0), |d| tensor.elements.checked_mul(d.size()));
                if needed.is_none_or(|needed| needed > held) {
                    return Err(Error::bad(
                        self.path(),
                        format!("states {} elements for `{name}`, but its storage has {held} bytes", tensor.elements),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// `model` alone, or `model0`, `model1`, … in this order.
fn sort_chunks<T>(models: &mut [(String, T)]) -> Option<()> {
    if let [(only, _)] = models
        && only == "model"
    {
        return Some(());
    }
    models.sort_by_cached_key(|(key, _)| key.strip_prefix("model").and_then(|rest| rest.parse::<u32>().ok()));
    models.iter().enumerate().all(|(i, (key, _))| *key == format!("model{i}")).then_some(())
}

fn damaged(path: &Path, entry: &Entry) -> Error {
    Error::bad(path, format!("is damaged: `{}` does not have its checksum", entry.name))
        .with_hint("make or fetch the file again")
}

fn scalar(value: &Value<'_>) -> Scalar {
    match value {
        Value::None => Scalar::None,
        Value::Int(n) => Scalar::Int(*n),
        Value::Float(f) => Scalar::Float(*f),
        Value::Bool(_)
        | Value::Str(_)
        | Value::Opaque
        | Value::Tuple(_)
        | Value::List(_)
        | Value::Dict(_)
        | Value::Global { .. }
        | Value::Persistent(_)
        | Value::Object { .. } => Scalar::Other,
    }
}

/// `None` where a name is too long.
fn model_entries(pickle: &Pickle<'_>, pairs: &[(Id, Id)]) -> Option<Vec<(String, ModelEntry)>> {
    let named = pairs.iter().filter_map(|(key, id)| Some((pickle.str(*key)?, *id)));
    let entry = |(name, id): (&str, Id)| {
        let entry = match TensorRef::read(pickle, id) {
            Some(tensor) => ModelEntry::Tensor(tensor),
            None if pickle.get(id) == &Value::None => ModelEntry::None,
            None => ModelEntry::Other,
        };
        (name.len() <= LONGEST_NAME).then(|| (name.to_owned(), entry))
    };
    named.map(entry).collect()
}
