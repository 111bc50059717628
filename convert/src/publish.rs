//! Puts shards that were written one by one into place, the tracker last.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::{ModelShape, Parallel};

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
    checkpoint::refuse_foreign(save_dir)?;
    let iteration = checkpoint::iteration_dir(save_dir, CONVERTED);
    let layout = Layout::new(parallel);
    let mut shape: Option<ModelShape> = None;
    let mut moves = Vec::new();
    let mut written = Vec::new();
    for (tp, pp) in layout.ranks() {
        let Some(source) = sources.get(&(tp, pp)) else { continue };
        let goal = layout.file(&iteration, tp, pp);
        let step = plan_move(source, &goal)?;
        let at = if step == Move::InPlace { &goal } else { source };
        let (size, digest) = inspect(at, &mut shape, parallel, tp, pp, report)?;
        let same = step == Move::Into
            && goal.is_file()
            && !is_same_file(source, &goal)
            && digest::of_file(&goal).is_ok_and(|d| d == digest);
        written.push(Written { path: goal.clone(), size, digest });
        if step == Move::Into && !is_same_file(source, &goal) {
            moves.push((source.clone(), goal, same));
        }
    }
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
    report.note(&checkpoint::saved_line(save_dir));
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

/// Checks one file against its place and against the shards before it.
fn inspect(
    path: &Path,
    shape: &mut Option<ModelShape>,
    parallel: Parallel,
    tp: u32,
    pp: u32,
    report: &dyn Report,
) -> Result<(u64, String)> {
    let shard = Shard::open(path)?;
    report.expect(shard.size());
    let own = verify::shape_of(&shard)?;
    parallel.check(&own)?;
    verify::check(&shard, &own, parallel, tp, pp)?;
    match shape {
        Some(first) if *first != own => {
            return Err(Error::bad(path, "belongs to another model than the shards before it")
                .with_hint("make all shards from one model with the same options"));
        }
        Some(_) => {}
        None => *shape = Some(own),
    }
    shard.verify(Extent::All, threads())?;
    let digest = digest::of_bytes(shard.bytes());
    report.advance(shard.size());
    Ok((shard.size(), digest))
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
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
