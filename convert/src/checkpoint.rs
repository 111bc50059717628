//! A checkpoint directory: iterations, ranks' directories and the tracker.
//!
//! Layout of Megatron-LM core_v0.12.1 with `--ckpt-format torch`.

use std::fs;
use std::path::{Path, PathBuf};

use model::{Parallel, layout::shard_dir};

use crate::config::read_bounded;
use crate::error::{Error, Result};
use crate::shard::{self, Shard};
use crate::stage;

/// Name of the file that holds the newest complete iteration.
pub const TRACKER: &str = "latest_checkpointed_iteration.txt";

/// The iteration that a conversion writes.
pub const CONVERTED: u64 = 1;

/// The reference's log line for a saved shard.
#[must_use]
pub fn saved_line(dir: &Path, iteration: u64) -> String {
    format!("  successfully saved checkpoint from iteration {iteration:7} to {}", dir.display())
}

/// Which file belongs to which rank.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    parallel: Parallel,
}

impl Layout {
    /// The layout of these sizes.
    #[must_use]
    pub fn new(parallel: Parallel) -> Self {
        Self { parallel }
    }

    /// All (tp, pp), stage by stage, as the reference writes them.
    pub fn ranks(self) -> impl Iterator<Item = (u32, u32)> {
        let parallel = self.parallel;
        (0..parallel.pp()).flat_map(move |pp| (0..parallel.tp()).map(move |tp| (tp, pp)))
    }

    /// A rank's file below the directory of an iteration.
    #[must_use]
    pub fn file(self, iteration_dir: &Path, tp: u32, pp: u32) -> PathBuf {
        iteration_dir.join(shard_dir(self.parallel, tp, pp)).join(shard::FILE)
    }
}

/// `iter_%07d` below `dir`.
#[must_use]
pub fn iteration_dir(dir: &Path, iteration: u64) -> PathBuf {
    dir.join(format!("iter_{iteration:07}"))
}

/// The iteration that a directory's name states.
#[must_use]
pub fn iteration_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("iter_")?;
    (digits.len() >= 7 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The (tp, pp) that a directory's name states; `pp` is `None` with one stage.
#[must_use]
pub fn rank_of(name: &str) -> Option<(u32, Option<u32>)> {
    let rest = name.strip_prefix("mp_rank_")?;
    let number = |text: &str, digits: usize| -> Option<u32> {
        (text.len() >= digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
    };
    match rest.split_once('_') {
        None => Some((number(rest, 2)?, None)),
        Some((tp, pp)) => Some((number(tp, 2)?, Some(number(pp, 3)?))),
    }
}

/// What the tracker of a directory says, or `None` where there is none.
///
/// # Errors
///
/// If it cannot be read or holds no iteration.
pub fn tracker(dir: &Path) -> Result<Option<u64>> {
    let path = dir.join(TRACKER);
    if !path.exists() {
        return Ok(None);
    }
    let text = read_bounded(&path, 4096)?;
    let text = String::from_utf8_lossy(&text);
    match text.trim() {
        "release" => Err(Error::unsupported(format!("the iteration `release` in `{}`", path.display()))),
        digits => digits.parse().map(Some).map_err(|_| Error::bad(&path, "holds no iteration number")),
    }
}

/// Writes the tracker whole, as the last act of publishing.
///
/// # Errors
///
/// If it cannot be written.
pub fn write_tracker(dir: &Path, iteration: u64) -> Result<()> {
    stage::write_small(&dir.join(TRACKER), iteration.to_string().as_bytes())
}

/// Takes the tracker away before files that it vouches for change.
///
/// # Errors
///
/// If there is one and it cannot be removed.
pub fn remove_tracker(dir: &Path) -> Result<()> {
    let path = dir.join(TRACKER);
    match fs::remove_file(&path) {
        Ok(()) => stage::sync_directory(dir),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("remove", &path, e)),
    }
}

/// Refuses a directory that a conversion must not replace.
///
/// # Errors
///
/// If its tracker names another iteration than the one to be written, or that
/// one holds anything but weights, as a conversion leaves them. Of an iteration
/// that training reached, weights alone may be all that a run saved: there
/// every shard must be a conversion's.
pub fn refuse_foreign(dir: &Path, written: u64) -> Result<()> {
    let hint = "choose another output directory, or move the old one away";
    if dir.exists() && !dir.is_dir() {
        return Err(Error::bad(dir, "is not a directory").with_hint("choose another output directory"));
    }
    if let Some(iteration) = tracker(dir)?
        && iteration != written
    {
        return Err(
            Error::bad(dir, format!("holds a training run's checkpoints up to iteration {iteration}")).with_hint(hint)
        );
    }
    let iteration = iteration_dir(dir, written);
    let Ok(ranks) = fs::read_dir(&iteration) else { return Ok(()) };
    for rank in ranks.flatten() {
        if rank_of(&rank.file_name().to_string_lossy()).is_none() {
            return Err(Error::bad(rank.path(), "is no rank's directory of a checkpoint").with_hint(hint));
        }
        let files = fs::read_dir(rank.path()).map_err(|e| Error::io("read", rank.path(), e))?;
        for file in files.flatten() {
            let name = file.file_name();
            let name = name.to_string_lossy();
            if name != shard::FILE && !name.starts_with(&format!(".{}.partial-", shard::FILE)) {
                return Err(
                    Error::bad(file.path(), "would be replaced, but is no result of a conversion").with_hint(hint)
                );
            }
            // What cannot be read is no state that could be lost.
            let Some(shard) = (name == shard::FILE).then(|| Shard::open(&file.path()).ok()).flatten() else { continue };
            if shard.has_training_state() {
                return Err(
                    Error::bad(file.path(), "would be replaced, but holds a training run's state").with_hint(hint)
                );
            }
            if written > CONVERTED && !shard.is_converted() {
                return Err(Error::bad(file.path(), "would be replaced, but may hold what a training run saved")
                    .with_hint(hint));
            }
        }
    }
    Ok(())
}

/// The ranks' files of one iteration.
#[derive(Clone, Debug)]
pub struct Iteration {
    /// Its number.
    pub number: u64,
    /// Its directory.
    pub path: PathBuf,
    /// The layout that the directories' names show.
    pub parallel: Parallel,
    /// (tp, pp, file), stage by stage; complete.
    pub files: Vec<(u32, u32, PathBuf)>,
}

/// Finds the files of an iteration.
///
/// # Errors
///
/// If the directory is missing, holds ranks of two layouts or of expert
/// parallelism, or lacks a rank's file.
pub fn iteration(dir: &Path, number: u64) -> Result<Iteration> {
    let path = iteration_dir(dir, number);
    let entries = fs::read_dir(&path).map_err(|e| Error::io("read", &path, e))?;
    let (mut ranks, mut staged) = (Vec::new(), None);
    for entry in entries {
        let name = entry.map_err(|e| Error::io("read", &path, e))?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("mp_rank_") {
            continue;
        }
        let Some((tp, pp)) = rank_of(&name) else {
            return Err(Error::unsupported(format!("`{name}` in `{}` (expert parallelism)", path.display())));
        };
        if *staged.get_or_insert(pp.is_some()) != pp.is_some() {
            return Err(Error::bad(&path, "holds ranks of two layouts, with and without pipeline stages")
                .with_hint("move the directories of the older layout away"));
        }
        ranks.push((tp, pp.unwrap_or(0)));
    }
    let shown = shown(&ranks).ok_or_else(|| {
        Error::bad(&path, "holds no `mp_rank_…` directory")
            .with_hint("only checkpoints in Megatron's torch format are read")
    })?;
    let parallel = stated(&path, &ranks, staged == Some(true)).unwrap_or(shown);
    let layout = Layout::new(parallel);
    let complete = parallel.shards() == ranks.len() as u64;
    if let Some(missing) = layout.ranks().take(ranks.len() + 1).find(|rank| !complete && !ranks.contains(rank)) {
        return Err(incomplete(dir, number, layout, missing));
    }
    if let Some((tp, pp)) = ranks.iter().find(|(tp, pp)| *tp >= parallel.tp() || *pp >= parallel.pp()) {
        let stray = Layout::new(shown).file(&path, *tp, *pp);
        let message = format!("has no place in a layout of TP {} x PP {}", parallel.tp(), parallel.pp());
        return Err(Error::bad(stage::parent(&stray), message).with_hint("move what an older layout left behind away"));
    }
    let files: Vec<_> = layout.ranks().map(|(t, p)| (t, p, layout.file(&path, t, p))).collect();
    match files.iter().find(|(_, _, file)| !file.is_file()) {
        Some((t, p, _)) => Err(incomplete(dir, number, layout, (*t, *p))),
        None => Ok(Iteration { number, path, parallel, files }),
    }
}

/// The least layout that has all these ranks.
fn shown(ranks: &[(u32, u32)]) -> Option<Parallel> {
    let size = |side: fn(&(u32, u32)) -> u32| ranks.iter().map(side).max().map_or(0, |n| n.saturating_add(1));
    Parallel::new(size(|r| r.0), size(|r| r.1)).ok()
}

/// The layout that a shard itself states: names alone do not tell which ranks are missing at the end.
fn stated(path: &Path, ranks: &[(u32, u32)], staged: bool) -> Option<Parallel> {
    let (tp, pp) = ranks.iter().min_by_key(|(tp, pp)| (*pp, *tp))?;
    let name = if staged { format!("mp_rank_{tp:02}_{pp:03}") } else { format!("mp_rank_{tp:02}") };
    let shard = Shard::open(&path.join(name).join(shard::FILE)).ok()?;
    shard.parallel().filter(|stated| staged == (stated.pp() > 1))
}

fn incomplete(dir: &Path, number: u64, layout: Layout, (tp, pp): (u32, u32)) -> Error {
    let file = layout.file(Path::new(""), tp, pp);
    let error = Error::bad(iteration_dir(dir, number), format!("is incomplete: `{}` is missing", file.display()));
    if tracker(dir).ok().flatten() == Some(number) {
        return error.with_hint(
            "its tracker is there, so whoever wrote it was interrupted (MindSpeed-LLM's converters write the tracker \
             before the last shard) or not all shards were brought here: write or fetch it again",
        );
    }
    error.with_hint("choose another iteration, or bring all shards to this machine")
}

/// The numbers of all iterations below `dir`, ascending.
///
/// # Errors
///
/// If `dir` cannot be read.
pub fn iterations(dir: &Path) -> Result<Vec<u64>> {
    let entries = fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))?;
    let mut numbers: Vec<u64> =
        entries.flatten().filter_map(|e| iteration_of(&e.file_name().to_string_lossy())).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_state_iterations_and_ranks_only_in_their_exact_form() {
        assert_eq!(iteration_of("iter_0000020"), Some(20));
        assert_eq!(iteration_of("iter_12345678"), Some(12_345_678));
        for name in ["iter_1", "iter_000002x", "iter_0000020.partial", "iter_99999999999999999999999", "x"] {
            assert_eq!(iteration_of(name), None, "{name}");
        }
        assert_eq!(rank_of("mp_rank_01"), Some((1, None)));
        assert_eq!(rank_of("mp_rank_01_003"), Some((1, Some(3))));
        for name in ["mp_rank_1", "mp_rank_01_3", "mp_rank_", "mp_rank_01_003_000", "mp_rank_-1"] {
            assert_eq!(rank_of(name), None, "{name}");
        }
    }
}
