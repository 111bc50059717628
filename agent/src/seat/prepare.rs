//! What a gang's seat checks before it starts.

use std::path::{Path, PathBuf};

use proto::v1::{Assignment, assignment::Body};

use crate::host::Host;
use crate::launch::{self, Ingredients, absolute, ports};
use crate::refusal::Refusal;

/// Checks what the seat's processes need; seat 0 of a training also gets a port.
///
/// # Errors
///
/// [`Refusal`] for the first thing that is missing.
pub(super) async fn prepare(
    host: &Host,
    assignment: &Assignment,
    seat_dir: &Path,
) -> Result<Option<ports::Reserved>, Refusal> {
    let Some(runtime) = &assignment.runtime else { return Err(Refusal::new("the assignment has no runtime", "")) };
    let environment = launch::gather(runtime).await?;
    let from = Ingredients { assignment, seat_dir, bin_dir: &host.bin_dir, environment: &environment };
    launch::check(&from)?;
    let Some(Body::Train(body)) = &assignment.body else { return Ok(None) };
    if !body.save_dir.is_empty() {
        writable(&absolute(&from.workdir()?, &body.save_dir))?;
    }
    if assignment.seat == 0 { ports::reserve(&host.address, &host.ports).map(Some) } else { Ok(None) }
}

/// Checks that `dir` is a directory that can be written, or can be made.
///
/// Returns the directory that exists: itself, or the nearest one above it.
///
/// # Errors
///
/// [`Refusal`] naming what stands in the way.
pub fn writable(dir: &Path) -> Result<PathBuf, Refusal> {
    let mut there = dir;
    while !there.exists() {
        there = there.parent().unwrap_or(Path::new("/"));
    }
    if !there.is_dir() {
        return Err(Refusal::new(
            format!("`{}` cannot be a directory: `{}` is a file", dir.display(), there.display()),
            "choose another directory, or move the file",
        ));
    }
    rustix::fs::access(there, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).map_err(|error| {
        Refusal::new(
            format!("`{}` cannot be written: {error}", there.display()),
            "choose a directory that the agent's user may write",
        )
    })?;
    Ok(there.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_may_still_have_to_be_made() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(writable(&dir.path().join("a/b")).unwrap(), dir.path());
        std::fs::write(dir.path().join("file"), "").unwrap();
        let refusal = writable(&dir.path().join("file/sub")).unwrap_err();
        assert!(refusal.message.contains("is a file"), "{refusal}");
    }
}
