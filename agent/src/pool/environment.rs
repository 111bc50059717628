//! What the tasks of a job share: found out once, not once a task.

use std::collections::BTreeMap;
use std::path::Path;

use proto::v1::{Assignment, RunBody};

use crate::launch::{self, Ingredients};
use crate::refusal::Refusal;
use crate::shim::pool::Shared;

/// What two assignments must have in common to share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    argv: Vec<String>,
    workdir: String,
    python: String,
    source: Vec<String>,
    env: BTreeMap<String, String>,
    mindspeed_root: String,
}

impl Key {
    pub(super) fn of(assignment: &Assignment, body: &RunBody) -> Self {
        let runtime = assignment.runtime.clone().unwrap_or_default();
        Self {
            argv: body.argv.clone(),
            workdir: runtime.workdir,
            python: runtime.python,
            source: runtime.source,
            env: runtime.env.into_iter().collect(),
            mindspeed_root: runtime.mindspeed_root,
        }
    }
}

/// Finds program and environment; files to source are sourced.
///
/// # Errors
///
/// [`Refusal`] if something is missing on this node.
pub(super) async fn shared(assignment: &Assignment, body: &RunBody, bin_dir: &Path) -> Result<Shared, Refusal> {
    let runtime = assignment.runtime.clone().unwrap_or_default();
    let environment = launch::gather(&runtime).await?;
    let from = Ingredients { assignment, seat_dir: Path::new("/"), bin_dir, environment: &environment };
    let (argv, cwd) = launch::command(&from, body)?;
    Ok(Shared { argv, cwd, env: environment })
}
