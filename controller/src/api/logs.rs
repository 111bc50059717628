//! What a reader of logs may ask for.

use model::{JobId, NodeId, TaskState};
use planner::World;
use regex::bytes::{Regex, RegexBuilder};
use tonic::{Code, Status};

use super::nearest::did_you_mean;
use super::refuse;
use crate::logs::Unselectable;
use crate::logs::read::Wanted;

/// Longest pattern, in bytes.
const PATTERN: usize = 1024;
/// Largest compiled pattern, in bytes.
const COMPILED: usize = 1 << 20;

/// The pattern that lines must match, if one is given.
pub(super) fn pattern(text: &str) -> Result<Option<Regex>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > PATTERN {
        return Err(Status::invalid_argument(format!("a pattern has at most {PATTERN} bytes")));
    }
    let built = RegexBuilder::new(text).size_limit(COMPILED).dfa_size_limit(COMPILED).build();
    built.map(Some).map_err(|error| {
        // The library draws the place over several lines; its last line says what is wrong.
        let said = error.to_string();
        let what = said.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        refuse(
            Code::InvalidArgument,
            format!("`{}` is no regular expression: {what}", text.escape_debug()),
            Some("put a backslash before a character that means itself, as in `\\[`".to_owned()),
        )
    })
}

/// The refusal, with the nearest stage.
pub(super) fn unselectable(world: &World, wanted: &Wanted, error: &Unselectable) -> Status {
    let hint = match error {
        Unselectable::Gone(_) => None,
        Unselectable::NoStage { stage, .. } => world.jobs.get(&wanted.job).map(|job| {
            let stages = job.stages.iter().map(|stage| stage.name.as_str());
            did_you_mean(stage, stages, &format!("see its stages: qctl describe {}", wanted.job))
        }),
    };
    refuse(Code::NotFound, error.to_string(), hint)
}

/// Refuses a node that neither is there nor ever had a seat in the job.
pub(super) fn known_node(world: &World, job: &JobId, node: &NodeId) -> Result<(), Status> {
    let tasks = world.jobs.get(job).into_iter().flat_map(|job| &job.stages).flat_map(|stage| &stage.tasks);
    let had_seat = |task: &model::Task| {
        let now = match &task.state {
            TaskState::Active(attempt) => attempt.seats.iter().any(|seat| seat.node == *node),
            TaskState::Waiting { .. }
            | TaskState::Done { .. }
            | TaskState::Failed { .. }
            | TaskState::Cancelled { .. }
            | TaskState::Skipped => false,
        };
        now || task.history.iter().any(|past| past.nodes.contains(node))
    };
    if world.nodes.contains_key(node) || tasks.into_iter().any(had_seat) {
        return Ok(());
    }
    let hint = did_you_mean(node.as_str(), world.nodes.keys().map(NodeId::as_str), "list all nodes: qctl nodes");
    Err(refuse(Code::NotFound, format!("there is no node `{node}`"), Some(hint)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::job;
    use model::Timestamp;
    use planner::Policy;

    #[test]
    fn patterns_are_bounded_and_explained() {
        assert!(pattern("").unwrap().is_none());
        assert!(pattern("lm loss: [0-9.]+").unwrap().unwrap().is_match(b"lm loss: 2.5"));
        let refused = |text: &str| pattern(text).unwrap_err();
        assert_eq!(refused("[a").message(), "`[a` is no regular expression: unclosed character class");
        assert_eq!(refused("(a{9999}){9999}").code(), Code::InvalidArgument);
        assert_eq!(refused(&"a".repeat(2000)).message(), "a pattern has at most 1024 bytes");
    }

    #[test]
    fn a_node_that_never_was_is_refused() {
        let mut world = World::new(Policy::default(), Timestamp(0));
        world.restore_job(job("j1", "train", 1));
        let refused = known_node(&world, &JobId::new("j1").unwrap(), &NodeId::new("n9").unwrap()).unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::NotFound, "there is no node `n9`"));
    }
}
