//! Any command: one process a rank.

use proto::v1::RunBody;

use super::{Ingredients, environment::find_program};
use crate::refusal::Refusal;
use crate::shim::record::Process;

pub(super) fn processes(from: &Ingredients<'_>, body: &RunBody) -> Result<Vec<Process>, Refusal> {
    let assignment = from.assignment;
    let workdir = from.workdir()?;
    let name = body.argv.first().ok_or_else(|| Refusal::new("`run` has an empty command", "give `argv` a program"))?;
    let program = find_program(name, &workdir, from.environment)?;
    let mut argv = vec![program.to_string_lossy().into_owned()];
    argv.extend(body.argv[1..].iter().cloned());
    let ranks = assignment.first_rank..assignment.first_rank.saturating_add(assignment.ranks.max(1));
    Ok(ranks
        .enumerate()
        .map(|(local, rank)| {
            let mut env = from.environment.clone();
            let mut set = |name: &str, value: String| drop(env.insert(name.to_owned(), value));
            set("QCTL_ATTEMPT", assignment.attempt.clone());
            set("QCTL_ATTEMPT_NUMBER", assignment.number.to_string());
            for prefix in ["QCTL_", ""] {
                set(&format!("{prefix}RANK"), rank.to_string());
                set(&format!("{prefix}LOCAL_RANK"), local.to_string());
                set(&format!("{prefix}WORLD_SIZE"), assignment.world_size.max(1).to_string());
            }
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
