//! Any command: one process a rank.

use std::path::PathBuf;

use proto::v1::{Assignment, RunBody};

use super::Ingredients;
use super::environment::{Environment, find_program};
use crate::refusal::Refusal;
use crate::shim::record::Process;

pub(super) fn processes(from: &Ingredients<'_>, body: &RunBody) -> Result<Vec<Process>, Refusal> {
    let assignment = from.assignment;
    let (argv, workdir) = command(from, body)?;
    let ranks = assignment.first_rank..assignment.first_rank.saturating_add(assignment.ranks.max(1));
    Ok(ranks
        .zip(0_u32..)
        .map(|(rank, local)| {
            let mut env = from.environment.clone();
            env.extend(variables(assignment, rank, local));
            let log = from.log(&super::rank_log(rank));
            Process {
                name: super::rank_log(rank),
                rank: Some(rank),
                nested: false,
                argv: argv.clone(),
                cwd: workdir.clone(),
                env,
                stdout: log.clone(),
                stderr: log,
            }
        })
        .collect())
}

/// The command line with its program found, and where it runs.
///
/// # Errors
///
/// [`Refusal`] if it is not there.
pub fn command(from: &Ingredients<'_>, body: &RunBody) -> Result<(Vec<String>, PathBuf), Refusal> {
    let workdir = from.workdir()?;
    let name = body.argv.first().ok_or_else(|| Refusal::new("`run` has an empty command", "give `argv` a program"))?;
    let program = find_program(name, &workdir, from.environment)?;
    let mut argv = vec![program.to_string_lossy().into_owned()];
    argv.extend(body.argv[1..].iter().cloned());
    Ok((argv, workdir))
}

/// What tells one rank from another: global number `rank`, number `local` on this node.
#[must_use]
pub fn variables(assignment: &Assignment, rank: u32, local: u32) -> Environment {
    let mut env = Environment::new();
    let mut set = |name: &str, value: String| drop(env.insert(name.to_owned(), value));
    set("QCTL_ATTEMPT", assignment.attempt.clone());
    set("QCTL_ATTEMPT_NUMBER", assignment.number.to_string());
    for prefix in ["QCTL_", ""] {
        set(&format!("{prefix}RANK"), rank.to_string());
        set(&format!("{prefix}LOCAL_RANK"), local.to_string());
        set(&format!("{prefix}WORLD_SIZE"), assignment.world_size.max(1).to_string());
    }
    env
}
