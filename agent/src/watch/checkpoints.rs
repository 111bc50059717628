//! Checkpoints as they appear in a training stage's save directory.
//!
//! Layout and order of writes are Megatron's: `iter_%07d/mp_rank_TT[_PPP]/
//! model_optim_rng.pt` by the ranks of data-parallel position 0, then a
//! barrier, then the tracker by global rank 0. A shard is whole when it is a
//! zip whose end-of-central-directory record is intact.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::Parallel;
use model::layout::shard_dir;
use proto::v1::{CheckpointShard, Tracker};

/// File name of a shard.
const SHARD: &str = "model_optim_rng.pt";
/// File name of the tracker.
pub const TRACKER: &str = "latest_checkpointed_iteration.txt";
/// Where an attempt moves what it supersedes.
const SUPERSEDED: &str = "superseded";

/// Which shards a seat speaks for.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Absolute save directory.
    pub save_dir: PathBuf,
    /// (tp, pp) of each local rank of data-parallel position 0.
    pub shards: BTreeSet<(u32, u32)>,
    /// Layout, for the names of directories.
    pub parallel: Parallel,
    /// Whether global rank 0 is here: then the tracker is this seat's to report.
    pub tracker: bool,
    /// Files written before this (milliseconds since the Unix epoch) are another attempt's.
    pub since_ms: u64,
}

/// What was seen for the first time.
#[derive(Clone, Debug, PartialEq)]
pub enum Sighting {
    /// A whole shard.
    Shard(CheckpointShard),
    /// A tracker with a new value.
    Tracker(Tracker),
}

/// Looks at a save directory again and again.
#[derive(Debug)]
pub struct Watch {
    scope: Scope,
    reported: BTreeSet<(u64, u32, u32)>,
    tracked: Option<u64>,
    sizes: BTreeMap<PathBuf, u64>,
}

impl Watch {
    /// A watch that has seen nothing.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self { scope, reported: BTreeSet::new(), tracked: None, sizes: BTreeMap::new() }
    }

    /// Marks a shard as reported by an earlier life of this agent.
    pub fn know_shard(&mut self, iteration: u64, tp: u32, pp: u32) {
        self.reported.insert((iteration, tp, pp));
    }

    /// Marks a tracker's value as reported by an earlier life of this agent.
    pub fn know_tracker(&mut self, iteration: u64) {
        self.tracked = Some(iteration);
    }

    /// Looks once. A shard counts when its size is that of the look before,
    /// or at once if `settled` says that nobody writes any more.
    pub fn look(&mut self, settled: bool) -> Vec<Sighting> {
        let mut seen = Vec::new();
        for (iteration, dir) in iterations(&self.scope.save_dir) {
            for &(tp, pp) in &self.scope.shards {
                if self.reported.contains(&(iteration, tp, pp)) {
                    continue;
                }
                let path = dir.join(shard_dir(self.scope.parallel, tp, pp)).join(SHARD);
                let Some(size) = self.fresh_size(&path) else { continue };
                let stable = self.sizes.insert(path.clone(), size) == Some(size);
                if (stable || settled) && is_whole_zip(&path) {
                    self.sizes.remove(&path);
                    self.reported.insert((iteration, tp, pp));
                    let path = path.to_string_lossy().into_owned();
                    seen.push(Sighting::Shard(CheckpointShard { iteration, tp, pp, path, size }));
                }
            }
        }
        if self.scope.tracker
            && let Some(iteration) = self.fresh_tracker()
            && self.tracked != Some(iteration)
        {
            self.tracked = Some(iteration);
            seen.push(Sighting::Tracker(Tracker { iteration }));
        }
        seen
    }

    fn fresh_size(&self, path: &Path) -> Option<u64> {
        let meta = fs::metadata(path).ok()?;
        (meta.is_file() && is_since(meta.modified().ok()?, self.scope.since_ms)).then_some(meta.len())
    }

    fn fresh_tracker(&self) -> Option<u64> {
        let path = self.scope.save_dir.join(TRACKER);
        self.fresh_size(&path)?;
        read_tracker(&self.scope.save_dir)
    }
}

fn is_since(modified: SystemTime, since_ms: u64) -> bool {
    // File systems may stamp a little in the past of the clock that is read.
    modified + Duration::from_millis(20) >= UNIX_EPOCH + Duration::from_millis(since_ms)
}

/// The iteration that the tracker in `save_dir` names.
#[must_use]
pub fn read_tracker(save_dir: &Path) -> Option<u64> {
    let file = File::open(save_dir.join(TRACKER)).ok()?;
    let mut text = String::new();
    file.take(64).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Moves iterations that a restart supersedes to `<save_dir>/superseded/`.
///
/// Those are all newer than `keep`, the iteration that the attempt resumes
/// from: a trainer that died left them incomplete. Returns what was moved.
///
/// # Errors
///
/// Whatever the file system says.
pub fn set_aside(save_dir: &Path, keep: u64, attempt: &str) -> std::io::Result<Vec<u64>> {
    let mut moved = Vec::new();
    for (iteration, dir) in iterations(save_dir) {
        if iteration <= keep {
            continue;
        }
        let aside = save_dir.join(SUPERSEDED);
        fs::create_dir_all(&aside)?;
        let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        match fs::rename(&dir, aside.join(format!("{name}.{attempt}"))) {
            Ok(()) => moved.push(iteration),
            // Another seat on the same storage was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(moved)
}

/// The iterations in `save_dir` and their directories, by number.
pub(crate) fn iterations(save_dir: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(save_dir).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let digits = entry.file_name().to_str()?.strip_prefix("iter_")?.to_owned();
            let fits = digits.len() >= 7 && digits.bytes().all(|b| b.is_ascii_digit());
            fits.then(|| digits.parse().ok().map(|i| (i, entry.path())))?
        })
        .collect();
    found.sort_unstable();
    found
}

/// Whether the file ends in a zip's end-of-central-directory record.
///
/// PyTorch's writer leaves no comment, so the record is the last 22 bytes.
fn is_whole_zip(path: &Path) -> bool {
    let read = || -> std::io::Result<bool> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        if length < 22 {
            return Ok(false);
        }
        let mut tail = [0_u8; 22];
        file.seek(SeekFrom::Start(length - 22))?;
        file.read_exact(&mut tail)?;
        Ok(tail.starts_with(b"PK\x05\x06") && tail.ends_with(&[0, 0]))
    };
    read().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn zip(path: &Path, whole: bool) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = vec![b'x'; 100];
        bytes.extend_from_slice(b"PK\x05\x06");
        bytes.extend_from_slice(&[0; 18]);
        if !whole {
            bytes.truncate(110);
        }
        fs::write(path, bytes).unwrap();
    }

    fn scope(dir: &Path, since_ms: u64) -> Scope {
        Scope {
            save_dir: dir.to_owned(),
            shards: [(0, 0), (1, 0)].into(),
            parallel: Parallel::new(2, 2).unwrap(),
            tracker: true,
            since_ms,
        }
    }

    #[test]
    fn whole_settled_shards_of_this_seat_are_seen_once() {
        let dir = tempfile::tempdir().unwrap();
        let iter = dir.path().join("iter_0000005");
        zip(&iter.join("mp_rank_00_000").join(SHARD), true);
        zip(&iter.join("mp_rank_01_000").join(SHARD), false);
        zip(&iter.join("mp_rank_00_001").join(SHARD), true);
        let mut watch = Watch::new(scope(dir.path(), 0));
        assert!(watch.look(false).is_empty(), "a size must be seen twice");
        let seen = watch.look(false);
        assert_eq!(seen.len(), 1);
        assert!(matches!(&seen[0], Sighting::Shard(s) if (s.iteration, s.tp, s.pp, s.size) == (5, 0, 0, 122)));
        zip(&iter.join("mp_rank_01_000").join(SHARD), true);
        assert_eq!(watch.look(true).len(), 1);
        assert!(watch.look(true).is_empty());
    }

    #[test]
    fn the_tracker_is_seen_at_each_new_value() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(scope(dir.path(), 0));
        fs::write(dir.path().join(TRACKER), "5").unwrap();
        assert_eq!(watch.look(false), [Sighting::Tracker(Tracker { iteration: 5 })]);
        assert!(watch.look(false).is_empty());
        fs::write(dir.path().join(TRACKER), "10\n").unwrap();
        assert_eq!(watch.look(false), [Sighting::Tracker(Tracker { iteration: 10 })]);
    }

    #[test]
    fn what_lay_there_before_the_attempt_is_not_its() {
        let dir = tempfile::tempdir().unwrap();
        zip(&dir.path().join("iter_0000005/mp_rank_00_000").join(SHARD), true);
        fs::write(dir.path().join(TRACKER), "5").unwrap();
        let later = runtime::clock::now_ms() + 60_000;
        assert!(Watch::new(scope(dir.path(), later)).look(true).is_empty());
    }

    #[test]
    fn iterations_behind_the_resumed_one_are_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["iter_0000005", "iter_0000010", "iter_0000015", "iter_x", "other"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(set_aside(dir.path(), 5, "j.train.0.2").unwrap(), [10, 15]);
        assert!(dir.path().join("superseded/iter_0000010.j.train.0.2").is_dir());
        assert!(dir.path().join("iter_0000005").is_dir() && dir.path().join("iter_x").is_dir());
        assert!(set_aside(&dir.path().join("missing"), 5, "a").unwrap().is_empty());
    }
}
