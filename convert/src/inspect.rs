//! What one iteration of a checkpoint directory holds, and whether it is whole.
//!
//! Nothing here is an error as long as the directory can be read: a missing
//! rank or a broken file is what was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use model::{ModelShape, Parallel, Stages, layout::shard_dir};
use serde::Serialize;

use crate::checkpoint::{self, Layout};
use crate::error::{Error, Result};
use crate::parallel::{for_each, threads};
use crate::plan::hf;
use crate::progress::Report;
use crate::shard::read::Extent;
use crate::shard::{self, Shard};
use crate::verify;

/// Files by rank, (tp, pp).
type Files = BTreeMap<(u32, u32), PathBuf>;

/// Most shards that a layout may have.
const MOST_SHARDS: u64 = 1 << 16;

/// What to look at.
#[derive(Clone, Debug)]
pub struct Request {
    /// The directory that holds `iter_…`, or one of these itself.
    pub dir: PathBuf,
    /// `None` for the tracker's, or the newest where there is no tracker.
    pub iteration: Option<u64>,
    /// Only these shards (tp, pp); empty for all.
    pub only: BTreeSet<(u32, u32)>,
    /// Whether every byte is read and compared with its checksum.
    pub verify: bool,
    /// A layout to load it with.
    pub load_as: Option<Parallel>,
}

/// One iteration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The directory that holds `iter_…`.
    pub directory: PathBuf,
    /// What the tracker says.
    pub tracker: Option<u64>,
    /// Which iteration was looked at.
    pub iteration: u64,
    /// Tensor-parallel size.
    pub tp: u32,
    /// Pipeline-parallel size.
    pub pp: u32,
    /// Virtual stages of each pipeline stage, where all ranks could be read; 1 without.
    pub virtual_stages: Option<usize>,
    /// Layers of each pipeline stage, likewise.
    pub layers: Vec<u64>,
    /// Whether all ranks are there, readable, and of this iteration.
    pub complete: bool,
    /// Whether every byte was compared with its checksum.
    pub verified: bool,
    /// Directories of the ranks that have no file.
    pub missing: Vec<String>,
    /// What is wrong, a sentence each, the first file first.
    pub problems: Vec<Problem>,
    /// Parameters of the whole model, padding of the vocabulary included.
    pub parameters: Option<u64>,
    /// Types of the weights.
    pub dtypes: BTreeSet<String>,
    /// The files' bytes together.
    pub bytes: u64,
    /// What was found, stage by stage.
    pub shards: Vec<Found>,
    /// Whether it can be loaded with the layout asked for.
    pub load: Option<Load>,
}

/// A file and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which file.
    pub path: PathBuf,
    /// A sentence.
    pub message: String,
    /// The next thing to try.
    pub hint: Option<String>,
}

/// One rank's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Tensor-parallel rank.
    pub tp: u32,
    /// Pipeline stage.
    pub pp: u32,
    /// Where it lies.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// The iteration that the file itself states.
    pub iteration: Option<u64>,
    /// Elements of its weights.
    pub elements: u64,
    /// Whether nothing is wrong with it.
    pub intact: bool,
}

/// Whether a layout can load it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Tensor-parallel size asked for.
    pub tp: u32,
    /// Pipeline-parallel size asked for.
    pub pp: u32,
    /// Whether it can.
    pub possible: bool,
    /// Why not.
    pub reason: Option<String>,
    /// The next thing to try.
    pub hint: Option<String>,
}

/// What is read of one shard.
struct Read {
    found: Found,
    dtypes: BTreeSet<String>,
    shape: Option<ModelShape>,
    stated: Option<Parallel>,
    /// By virtual stage, the places that hold a layer.
    taken: Option<Vec<Vec<u64>>>,
    problems: Vec<Problem>,
}

/// Looks at one iteration.
///
/// # Errors
///
/// If the directory or its tracker cannot be read, or it holds no such
/// iteration, or nothing in Megatron's torch format.
pub fn inspect(request: &Request, report: &dyn Report) -> Result<Inspection> {
    let (directory, named) = split(&request.dir);
    let tracker = checkpoint::tracker(&directory)?;
    let iteration = choose(&directory, request.iteration.or(named), tracker)?;
    let path = checkpoint::iteration_dir(&directory, iteration);
    let (files, staged) = ranks(&path)?;
    let wanted: Vec<_> =
        files.iter().filter(|(rank, _)| request.only.is_empty() || request.only.contains(rank)).collect();
    let size = |file: &Path| fs::metadata(file).map_or(0, |meta| meta.len());
    if request.verify {
        report.expect(wanted.iter().map(|(_, file)| size(file)).sum());
    }
    let each = if request.verify { threads().div_ceil(wanted.len().max(1)) } else { 1 };
    let mut read = for_each(wanted.len(), &|at, _| {
        let (rank, file) = wanted[at];
        let read = read_shard(file, *rank, iteration, request.verify.then_some(each));
        if request.verify {
            report.advance(read.found.size);
        }
        Ok(read)
    })?;
    let parallel = layout(&path, files.keys().copied(), &read)?;
    for one in &mut read {
        compare(one, parallel, staged);
    }
    Ok(sum_up(request, (directory, tracker, iteration), &files, parallel, read))
}

fn sum_up(
    request: &Request,
    (directory, tracker, iteration): (PathBuf, Option<u64>, u64),
    files: &Files,
    parallel: Parallel,
    read: Vec<Read>,
) -> Inspection {
    let asked = |rank: &(u32, u32)| request.only.is_empty() || request.only.contains(rank);
    let missing: Vec<String> = Layout::new(parallel)
        .ranks()
        .filter(|rank| asked(rank) && !files.contains_key(rank))
        .map(|(tp, pp)| shard_dir(parallel, tp, pp))
        .collect();
    let shape = read.iter().find_map(|one| one.shape.clone());
    let mut problems: Vec<Problem> = read.iter().flat_map(|one| one.problems.clone()).collect();
    for one in read.iter().filter(|one| one.shape.is_some() && !alike(one.shape.as_ref(), shape.as_ref())) {
        problems.push(problem(&one.found.path, "describes another model than the first shard does", None));
    }
    problems.extend(unlike_their_stage(&read));
    let stages = stages(&read, parallel);
    if let (Some(stages), Some(shape)) = (&stages, &shape)
        && stages.layers() != shape.num_layers
        && problems.is_empty()
    {
        let message =
            format!("and the shards beside it hold {} layers; their model has {}", stages.layers(), shape.num_layers);
        problems.push(problem(&read[0].found.path, &message, None));
    }
    if read.iter().any(|one| one.found.elements > 0) {
        for one in read.iter().filter(|one| one.found.elements == 0 && one.problems.is_empty()) {
            problems.push(problem(&one.found.path, "holds no weights, though other shards do", None));
        }
    }
    let mut inspection = Inspection {
        directory,
        tracker,
        iteration,
        tp: parallel.tp(),
        pp: parallel.pp(),
        complete: missing.is_empty() && problems.is_empty(),
        verified: request.verify,
        missing,
        virtual_stages: stages.as_ref().map(Stages::chunks_per_stage),
        layers: stages.map(|stages| layers_of(&stages)).unwrap_or_default(),
        parameters: shape.as_ref().map(parameters),
        dtypes: read.iter().flat_map(|one| one.dtypes.clone()).collect(),
        bytes: read.iter().map(|one| one.found.size).sum(),
        shards: Vec::new(),
        load: None,
        problems,
    };
    inspection.shards = read.into_iter().map(|one| one.found).collect();
    for shard in &mut inspection.shards {
        shard.intact = inspection.problems.iter().all(|problem| problem.path != shard.path);
    }
    inspection.load = request.load_as.map(|wanted| load(&inspection, shape.as_ref(), parallel, wanted));
    inspection
}

/// The shards that hold other layers than the first of their stage.
fn unlike_their_stage(read: &[Read]) -> Vec<Problem> {
    let (message, hint) = verify::OTHER_LAYERS;
    let checked = || read.iter().filter(|one| one.taken.is_some());
    let first = |pp| checked().find(|one| one.found.pp == pp);
    let other = |one: &&Read| first(one.found.pp).is_some_and(|first| first.taken != one.taken);
    checked().filter(other).map(|one| problem(&one.found.path, message, Some(hint))).collect()
}

/// Which layers are where, if every stage could be read.
fn stages(read: &[Read], parallel: Parallel) -> Option<Stages> {
    let of_stage = |pp| read.iter().find(|one| one.found.pp == pp).and_then(|one| one.taken.clone());
    let taken = (0..parallel.pp()).map(of_stage).collect::<Option<Vec<_>>>()?;
    Stages::of_taken(&taken)
}

fn layers_of(stages: &Stages) -> Vec<u64> {
    let held = |pp| stages.chunks(pp).iter().flatten().flatten().count() as u64;
    (0..).take(stages.count()).map(held).collect()
}

/// The directory of all iterations, and the one that `dir` itself names.
fn split(dir: &Path) -> (PathBuf, Option<u64>) {
    let named = dir.file_name().and_then(|name| checkpoint::iteration_of(&name.to_string_lossy()));
    match (named, dir.parent()) {
        (Some(number), Some(parent)) if parent.as_os_str().is_empty() => (PathBuf::from("."), Some(number)),
        (Some(number), Some(parent)) => (parent.to_owned(), Some(number)),
        _ => (dir.to_owned(), None),
    }
}

fn choose(directory: &Path, asked: Option<u64>, tracker: Option<u64>) -> Result<u64> {
    let present = checkpoint::iterations(directory)?;
    let Some(newest) = present.last().copied() else {
        return Err(Error::bad(directory, "holds no `iter_…` directory")
            .with_hint("give the directory that a training's `save_dir` or a conversion's `--save-dir` names"));
    };
    match asked.or(tracker) {
        None => Ok(newest),
        Some(number) if present.contains(&number) => Ok(number),
        Some(number) => {
            let held: Vec<String> = present.iter().rev().take(8).map(u64::to_string).collect();
            let whose = if asked.is_some() { "holds no" } else { "has a tracker that names a missing" };
            Err(Error::bad(directory, format!("{whose} iteration {number}"))
                .with_hint(format!("it holds {}; choose one with `--iteration`", held.join(", "))))
        }
    }
}

/// Files by rank, and whether the names state pipeline stages.
fn ranks(path: &Path) -> Result<(Files, bool)> {
    let (mut files, mut staged) = (BTreeMap::new(), BTreeSet::new());
    for entry in fs::read_dir(path).map_err(|e| Error::io("read", path, e))? {
        let entry = entry.map_err(|e| Error::io("read", path, e))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("mp_rank_") {
            continue;
        }
        let Some((tp, pp)) = checkpoint::rank_of(&name) else {
            return Err(Error::unsupported(format!("`{name}` in `{}` (expert parallelism)", path.display())));
        };
        staged.insert(pp.is_some());
        let file = entry.path().join(shard::FILE);
        if file.is_file() {
            files.insert((tp, pp.unwrap_or(0)), file);
        }
    }
    if staged.len() > 1 {
        return Err(Error::bad(path, "holds ranks of two layouts, with and without pipeline stages")
            .with_hint("move the directories of the older layout away"));
    }
    if files.is_empty() {
        return Err(Error::bad(path, format!("holds no `mp_rank_…/{}`", shard::FILE))
            .with_hint("only checkpoints in Megatron's torch format are read"));
    }
    Ok((files, staged.contains(&true)))
}

/// The layout that most can be trusted: what the shards state, else what their names show.
fn layout(path: &Path, ranks: impl Iterator<Item = (u32, u32)>, read: &[Read]) -> Result<Parallel> {
    let (tp, pp) = ranks.fold((0, 0), |(tp, pp), rank| (tp.max(rank.0), pp.max(rank.1)));
    let shown = Parallel::new(tp.saturating_add(1), pp.saturating_add(1))?;
    let parallel = read.iter().find_map(|one| one.stated).unwrap_or(shown);
    if parallel.shards() > MOST_SHARDS {
        return Err(Error::bad(path, format!("states an impossible layout of {} shards", parallel.shards())));
    }
    Ok(parallel)
}

fn read_shard(path: &Path, (tp, pp): (u32, u32), iteration: u64, verify: Option<usize>) -> Read {
    let size = fs::metadata(path).map_or(0, |meta| meta.len());
    let found = Found { tp, pp, path: path.to_owned(), size, iteration: None, elements: 0, intact: false };
    let mut read =
        Read { found, dtypes: BTreeSet::new(), shape: None, stated: None, taken: None, problems: Vec::new() };
    if let Err(error) = look(&mut read, path, verify) {
        read.problems.push(told(path, &error));
    }
    if let Some(stated) = read.found.iteration.filter(|stated| *stated != iteration) {
        let message = format!("is of iteration {stated}, but lies below iteration {iteration}");
        read.problems.push(problem(path, &message, Some("fetch the right file from the node that wrote it")));
    }
    read
}

fn look(read: &mut Read, path: &Path, verify: Option<usize>) -> Result<()> {
    let shard = Shard::open(path)?;
    read.found.size = shard.size();
    read.found.iteration = shard.iteration();
    read.stated = shard.parallel();
    for (name, tensor) in shard.tensors().flatten() {
        read.dtypes.insert(tensor.dtype().map_or_else(|| tensor.storage.clone(), |dtype| dtype.flag().to_owned()));
        let count = tensor.shape.iter().try_fold(1_u64, |product, side| product.checked_mul(*side));
        read.found.elements = read.found.elements.saturating_add(count.unwrap_or(u64::MAX));
        if tensor.dtype().is_some() {
            shard.matrix(name, tensor)?;
        }
    }
    // Without weights, or sizes in `args`, nothing is claimed that could be compared.
    if read.found.elements > 0 && shard.args.is_set("num_layers") {
        let shape = verify::shape_of(&shard)?;
        read.shape = Some(shape.clone());
        let seated = |p: &Parallel| read.found.tp < p.tp() && read.found.pp < p.pp();
        if let Some(parallel) = read.stated.filter(seated) {
            parallel.check_tensors(&shape)?;
            match verify::check(&shard, &shape, parallel, read.found.pp) {
                Ok(found) => read.taken = Some(found.taken),
                // What cannot be converted may still be a whole checkpoint.
                Err(Error::Unsupported { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    match verify {
        Some(threads) => shard.verify(Extent::All, threads),
        None => Ok(()),
    }
}

/// Compares a shard's place with the layout of all.
fn compare(read: &mut Read, parallel: Parallel, staged: bool) {
    let Found { tp, pp, path, .. } = &read.found;
    let text = |p: Parallel| format!("TP {} x PP {}", p.tp(), p.pp());
    if let Some(stated) = read.stated.filter(|stated| *stated != parallel) {
        let message = format!("is of layout {}; the first shard's is {}", text(stated), text(parallel));
        read.problems.push(problem(path, &message, None));
    } else if *tp >= parallel.tp() || *pp >= parallel.pp() || staged != (parallel.pp() > 1) {
        let message = format!("has no place in a layout of {}", text(parallel));
        read.problems.push(problem(path, &message, Some("move what an older layout left behind away")));
    }
}

fn problem(path: &Path, message: &str, hint: Option<&str>) -> Problem {
    let message = format!("`{}` {message}", path.display());
    Problem { path: path.to_owned(), message, hint: hint.map(str::to_owned) }
}

fn told(path: &Path, error: &Error) -> Problem {
    Problem { path: path.to_owned(), message: error.chain(), hint: error.hint() }
}

/// Shards differ in rows of the vocabulary's padding and in nothing else.
fn alike(one: Option<&ModelShape>, other: Option<&ModelShape>) -> bool {
    let sizes = |shape: &ModelShape| {
        (shape.hidden_size, shape.ffn_hidden_size, shape.num_layers, shape.num_attention_heads, shape.num_query_groups)
    };
    one.map(sizes) == other.map(sizes)
}

fn parameters(shape: &ModelShape) -> u64 {
    let count = |shape: &[u64]| shape.iter().fold(1_u64, |product, side| product.saturating_mul(*side));
    hf::tensors(shape).iter().map(|(_, shape)| count(shape)).fold(0, u64::saturating_add)
}

fn load(inspection: &Inspection, shape: Option<&ModelShape>, held: Parallel, wanted: Parallel) -> Load {
    let mut load = Load { tp: wanted.tp(), pp: wanted.pp(), possible: false, reason: None, hint: None };
    let (reason, hint) = if wanted != held {
        if let Some(error) = shape.and_then(|shape| wanted.check(shape).err()) {
            (error.to_string(), error.hint())
        } else {
            let reason = format!(
                "it is cut for TP {} x PP {}, and a checkpoint in this format is loaded as it is cut",
                held.tp(),
                held.pp()
            );
            let again = format!(
                "cut it again with `qctl convert --load-model-type mg --save-model-type mg --target-tensor-parallel-size {} \
                 --target-pipeline-parallel-size {}` (weights only)",
                wanted.tp(),
                wanted.pp()
            );
            (reason, Some(again))
        }
    } else if let Some(first) = inspection.problems.first() {
        (first.message.clone(), first.hint.clone())
    } else if let Some(first) = inspection.missing.first() {
        let reason = format!("`{first}` is missing, and {} more", inspection.missing.len() - 1);
        (reason, Some("bring all shards to this directory, or choose another iteration".to_owned()))
    } else {
        load.possible = true;
        return load;
    };
    (load.reason, load.hint) = (Some(reason), hint);
    load
}
