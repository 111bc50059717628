//! The removal of an iteration, and what its tracker names then.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::iteration_dir;
use crate::watch::checkpoints::{TRACKER, iterations, read_tracker};

/// Why an iteration was not removed.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reason: String,
    pub(super) hint: String,
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        let hint = "see to it on that node, then remove it again".to_owned();
        Self { reason: error.to_string(), hint }
    }
}

/// Removes an iteration; returns its bytes. One that is not there is removed already.
///
/// `next` is what a tracker that names it is to name then. The tracker is
/// changed first, and the directory is renamed before anything in it is
/// deleted: whoever looks meanwhile sees all of the iteration or nothing.
///
/// # Errors
///
/// [`Refused`]; unless the file system failed half-way, nothing is changed then.
pub(super) fn remove(save_dir: &Path, iteration: u64, next: Option<u64>) -> Result<u64, Refused> {
    let dir = iteration_dir(save_dir, iteration);
    let present = is_removable(save_dir, &dir)?;
    let tracker = Tracker::naming(save_dir, iteration)?;
    let next = if tracker.is_some() { successor(save_dir, iteration, next)? } else { None };
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let gone = save_dir.join(format!(".removed-{name}"));
    // What an earlier removal left behind.
    let mut bytes = sweep(&gone)?;
    if let Some(tracker) = &tracker {
        tracker.name(next)?;
    }
    if !present {
        return Ok(bytes);
    }
    if let Err(error) = fs::rename(&dir, &gone) {
        if let Some(tracker) = &tracker {
            tracker.name(Some(iteration))?;
        }
        return Err(error.into());
    }
    runtime::files::sync_parent(&gone)?;
    bytes += sweep(&gone)?;
    Ok(bytes)
}

/// Whether the directory is there, with nothing in its place or below that belongs elsewhere.
fn is_removable(save_dir: &Path, dir: &Path) -> Result<bool, Refused> {
    let device = match fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_dir() => fs::metadata(save_dir)?.dev(),
        Ok(_) => return Err(io::Error::other("it is no directory of its own").into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    match mount(dir, device)? {
        Some(mount) => Err(io::Error::other(format!("`{}` is mounted there", mount.display())).into()),
        None => Ok(true),
    }
}

/// The first directory from here on that is not on `device`.
fn mount(dir: &Path, device: u64) -> io::Result<Option<PathBuf>> {
    if fs::symlink_metadata(dir)?.dev() != device {
        return Ok(Some(dir.to_owned()));
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Some(found) = mount(&entry.path(), device)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// What the tracker is to name; `None` if no other iteration is left.
fn successor(save_dir: &Path, iteration: u64, next: Option<u64>) -> Result<Option<u64>, Refused> {
    let is_there = |next: &u64| *next != iteration && iteration_dir(save_dir, *next).is_dir();
    if let Some(next) = next.filter(is_there) {
        return Ok(Some(next));
    }
    let others = iterations(save_dir).into_iter().map(|(at, _)| at).filter(|at| *at != iteration);
    let others: Vec<String> = others.map(|at| at.to_string()).collect();
    if others.is_empty() {
        return Ok(None);
    }
    let others = others.join(", ");
    let path = save_dir.join(TRACKER);
    let reason = next.map_or_else(
        || format!("`{}` names it, and none of the others there ({others}) is known to be complete", path.display()),
        |next| format!("`{}` names it, and iteration {next} is not there (others are {others})", path.display()),
    );
    let hint = format!(
        "write into `{}` on that node which of them is to be gone on from, then remove it again",
        path.display()
    );
    Err(Refused { reason, hint })
}

/// The file that names the iteration to go on from.
struct Tracker {
    path: PathBuf,
    permissions: fs::Permissions,
}

impl Tracker {
    /// The tracker, if it names `iteration`.
    fn naming(save_dir: &Path, iteration: u64) -> io::Result<Option<Self>> {
        if read_tracker(save_dir) != Some(iteration) {
            return Ok(None);
        }
        let path = save_dir.join(TRACKER);
        let permissions = fs::metadata(&path)?.permissions();
        Ok(Some(Self { path, permissions }))
    }

    /// Names another iteration, or none.
    fn name(&self, iteration: Option<u64>) -> io::Result<()> {
        let Some(iteration) = iteration else {
            fs::remove_file(&self.path)?;
            return runtime::files::sync_parent(&self.path);
        };
        runtime::files::write_durably(&self.path, iteration.to_string().as_bytes())?;
        // Whoever could read it can read it.
        fs::set_permissions(&self.path, self.permissions.clone())
    }
}

/// Deletes a directory; returns the bytes that were in its files.
fn sweep(dir: &Path) -> io::Result<u64> {
    let bytes = size(dir);
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn size(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
        }
        Ok(meta) => meta.len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn saved(dir: &Path, iterations: &[u64]) {
        for iteration in iterations {
            let rank = iteration_dir(dir, *iteration).join("mp_rank_00");
            fs::create_dir_all(&rank).unwrap();
            fs::write(rank.join("model_optim_rng.pt"), [7; 100]).unwrap();
        }
    }

    fn tracked(dir: &Path, text: &str) {
        fs::write(dir.join(TRACKER), text).unwrap();
        fs::set_permissions(dir.join(TRACKER), fs::Permissions::from_mode(0o644)).unwrap();
    }

    #[test]
    fn the_tracker_names_what_is_left_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        saved(dir, &[5, 10, 15]);
        tracked(dir, "15");
        assert_eq!(remove(dir, 5, Some(15)).unwrap(), 100);
        assert_eq!(read_tracker(dir), Some(15), "it named another one");
        assert_eq!(remove(dir, 15, Some(10)).unwrap(), 100);
        assert_eq!(read_tracker(dir), Some(10));
        assert_eq!(fs::metadata(dir.join(TRACKER)).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(remove(dir, 15, Some(10)).unwrap(), 0, "a second time there is nothing to do");
        assert_eq!(remove(dir, 10, None).unwrap(), 100);
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "an empty directory needs no tracker");
    }

    #[test]
    fn a_tracker_never_names_what_is_not_there_nor_goes_while_others_are() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        saved(dir, &[5, 15]);
        tracked(dir, "15");
        for (next, why) in [(Some(10), "iteration 10 is not there (others are 5)"), (None, "the others there (5)")] {
            let refused = remove(dir, 15, next).unwrap_err();
            assert!(refused.reason.contains(why) && refused.hint.contains(TRACKER), "{refused:?}");
            assert_eq!(read_tracker(dir), Some(15));
            assert!(iteration_dir(dir, 15).is_dir(), "nothing is changed");
        }
        tracked(dir, "5");
        assert_eq!(remove(dir, 15, None).unwrap(), 100, "the next step that was named");
        assert_eq!(remove(dir, 5, Some(4)).unwrap(), 100, "the last one here takes its tracker along");
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    }

    #[test]
    fn a_removal_that_was_cut_short_is_finished_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        saved(dir, &[5]);
        fs::rename(iteration_dir(dir, 5), dir.join(".removed-iter_0000005")).unwrap();
        assert_eq!(remove(dir, 5, None).unwrap(), 100);
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
        saved(dir, &[6]);
        symlink(iteration_dir(dir, 6), iteration_dir(dir, 7)).unwrap();
        tracked(dir, "7");
        assert!(remove(dir, 7, Some(6)).unwrap_err().reason.contains("no directory of its own"));
        assert_eq!(read_tracker(dir), Some(7), "what cannot be removed is still named");
        assert!(iteration_dir(dir, 6).join("mp_rank_00/model_optim_rng.pt").exists());
    }

    #[test]
    fn what_is_mounted_below_is_found() {
        let dir = tempfile::tempdir().unwrap();
        saved(dir.path(), &[5]);
        let device = fs::metadata(dir.path()).unwrap().dev();
        assert_eq!(mount(dir.path(), device).unwrap(), None);
        assert_eq!(mount(dir.path(), device + 1).unwrap().as_deref(), Some(dir.path()));
    }
}
