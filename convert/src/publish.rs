//! Puts shards that were written one by one into place, the tracker last.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::{ModelShape, Parallel, Stages};

use crate::checkpoint::{self, CONVERTED, Layout};
use crate::digest;
use crate::error::{Error, Result};
use crate::parallel::threads;
use crate::progress::{Report, Stop};
use crate::shard::Shard;
use crate::shard::read::Extent;
use crate::stage::{self, Output, Written};
use crate::verify;
use crate::zip::write::Sink;

/// Which file is which rank's shard: (tp, pp) to path.
pub type Sources = BTreeMap<(u32, u32), PathBuf>;

/// Checks all shards, moves them into `iter_0000001`, then writes the tracker.
///
/// May be run again after any interruption: a shard that is in place counts,
/// whether its source is still there (with equal content) or gone.
///
/// # Errors
///
/// If a rank has no file, a file is damaged or belongs elsewhere, `save_dir`
/// holds something else, or moving fails. Nothing is moved before all shards
/// passed their checks, and the tracker is only there when all are in place.
pub fn publish(save_dir: &Path, parallel: Parallel, sources: &Sources, report: &dyn Report) -> Result<Vec<Written>> {
    check_ranks(parallel, sources)?;
    checkpoint::refuse_foreign(save_dir, CONVERTED)?;
    let iteration = checkpoint::iteration_dir(save_dir, CONVERTED);
    let layout = Layout::new(parallel);
    let mut check = Together { parallel, shape: None, stages: Vec::new() };
    let mut moves = Vec::new();
    let mut written = Vec::new();
    for (tp, pp) in layout.ranks() {
        let Some(source) = sources.get(&(tp, pp)) else { continue };
        let goal = layout.file(&iteration, tp, pp);
        let step = plan_move(source, &goal)?;
        let at = if step == Move::InPlace { &goal } else { source };
        let (size, digest) = check.inspect(at, tp, pp, report)?;
        let same = step == Move::Into
            && goal.is_file()
            && !stage::is_same_file(source, &goal)
            && digest::of_file(&goal).is_ok_and(|d| d == digest);
        written.push(Written { path: goal.clone(), size, digest });
        if step == Move::Into && !stage::is_same_file(source, &goal) {
            moves.push((source.clone(), goal, same));
        }
    }
    check.count_layers(save_dir)?;
    let stale = other_ranks(&iteration, layout);
    if !stale.is_empty() || moves.iter().any(|(_, _, same)| !same) {
        checkpoint::remove_tracker(save_dir)?;
        for (source, goal, _) in moves.iter().filter(|(_, _, same)| !same) {
            let dir = stage::parent(goal);
            fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
            move_file(source, goal)?;
        }
        for dir in &stale {
            fs::remove_dir_all(dir).map_err(|e| Error::io("remove", dir, e))?;
        }
        stage::sync_directory(&iteration)?;
        stage::sync_directory(save_dir)?;
    }
    if checkpoint::tracker(save_dir)? != Some(CONVERTED) {
        checkpoint::write_tracker(save_dir, CONVERTED)?;
    }
    // Only now is a second copy of no use to a repeated run.
    for (source, _, _) in moves.iter().filter(|(_, _, same)| *same) {
        let _ = fs::remove_file(source);
    }
    for dir in sources.values().map(|source| stage::parent(source)) {
        if lies_below(dir, save_dir) {
            // One that still holds something stays.
            let _ = fs::remove_dir(dir);
        }
    }
    report.note(&checkpoint::saved_line(save_dir, CONVERTED));
    Ok(written)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// The source is there.
    Into,
    /// An earlier run moved it.
    InPlace,
}

fn plan_move(source: &Path, goal: &Path) -> Result<Move> {
    match source.symlink_metadata() {
        Ok(_) => Ok(Move::Into),
        Err(e) if e.kind() == io::ErrorKind::NotFound && goal.is_file() => Ok(Move::InPlace),
        Err(e) => Err(Error::io("open", source, e)),
    }
}

fn check_ranks(parallel: Parallel, sources: &Sources) -> Result<()> {
    let layout = Layout::new(parallel);
    if let Some((tp, pp)) = sources.keys().find(|(tp, pp)| *tp >= parallel.tp() || *pp >= parallel.pp()) {
        return Err(Error::usage(format!(
            "shard {tp},{pp} lies outside tp x pp = {} x {}",
            parallel.tp(),
            parallel.pp()
        )));
    }
    match layout.ranks().find(|rank| !sources.contains_key(rank)) {
        Some((tp, pp)) => Err(Error::usage(format!("shard {tp},{pp} is missing"))
            .with_hint(format!("name all {} shards, each as TP,PP=FILE", parallel.shards()))),
        None => Ok(()),
    }
}

/// What the shards before had, which the next must agree with.
struct Together {
    parallel: Parallel,
    shape: Option<ModelShape>,
    /// By stage, then virtual stage, the places that hold a layer.
    stages: Vec<Vec<Vec<u64>>>,
}

impl Together {
    /// Checks one file against its place and against the shards before it.
    fn inspect(&mut self, path: &Path, tp: u32, pp: u32, report: &dyn Report) -> Result<(u64, String)> {
        let shard = Shard::open(path)?;
        report.expect(shard.size());
        let own = verify::shape_of(&shard)?;
        self.parallel.check_tensors(&own)?;
        let found = verify::check(&shard, &own, self.parallel, pp)?;
        let other = || {
            Error::bad(path, "belongs to another model than the shards before it")
                .with_hint("make all shards from one model with the same options")
        };
        if *self.shape.get_or_insert_with(|| own.clone()) != own {
            return Err(other());
        }
        if tp == 0 {
            self.stages.push(found.taken);
        } else if self.stages.last() != Some(&found.taken) {
            return Err(other());
        }
        shard.verify(Extent::All, threads())?;
        let digest = digest::of_bytes(shard.bytes());
        report.advance(shard.size());
        Ok((shard.size(), digest))
    }

    /// All layers must be there once all shards are.
    fn count_layers(&self, save_dir: &Path) -> Result<()> {
        let Some(shape) = &self.shape else { return Ok(()) };
        let wrong = match Stages::of_taken(&self.stages).map(|stages| stages.layers()) {
            None => "whose stages have different numbers of virtual stages".to_owned(),
            Some(held) if held != shape.num_layers => {
                format!("with {held} layers, but their model has {}", shape.num_layers)
            }
            Some(_) => return Ok(()),
        };
        Err(Error::bad(save_dir, format!("was to get shards {wrong}"))
            .with_hint("make all shards from one model with the same options"))
    }
}

fn lies_below(dir: &Path, root: &Path) -> bool {
    matches!((dir.canonicalize(), root.canonicalize()), (Ok(dir), Ok(root)) if dir != root && dir.starts_with(&root))
}

/// Directories of ranks that the layout does not have.
fn other_ranks(iteration: &Path, layout: Layout) -> Vec<PathBuf> {
    let ours: Vec<PathBuf> =
        layout.ranks().map(|(tp, pp)| stage::parent(&layout.file(iteration, tp, pp)).to_owned()).collect();
    let entries = fs::read_dir(iteration).into_iter().flatten().flatten().map(|e| e.path());
    entries.filter(|path| !ours.contains(path)).collect()
}

/// By rename; by copy and rename where source and goal lie on two file systems.
fn move_file(source: &Path, goal: &Path) -> Result<()> {
    match fs::rename(source, goal) {
        Ok(()) => stage::sync_directory(stage::parent(goal)),
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
            let shard = Shard::open(source)?;
            let (partial, stop) = (stage::partial_name(goal), Stop::default());
            let mut output = Output::create(&partial, shard.size(), &crate::progress::Silent, &stop)?;
            output.put(shard.bytes())?;
            output.finish()?;
            stage::publish_file(&partial, goal)?;
            fs::remove_file(source).map_err(|e| Error::io("remove", source, e))
        }
        Err(e) => Err(Error::io("rename into place", goal, e)),
    }
}
