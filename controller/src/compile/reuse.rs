//! Taking over stages that an earlier job has made already.

use std::collections::{BTreeMap, BTreeSet};

use model::{FileRecord, Job, JobId, NodeId, Outcome, Stage, Task, TaskState};
use planner::{StagePhase, World, phase};
use proto::v1;
use tonic::Status;

use super::Compiler;

/// Earlier jobs that are looked at for one stage, newest first.
const LOOKED_AT: usize = 3;
/// Files of one question to an agent.
const FILES: usize = 64;

/// An earlier stage that may stand in.
#[derive(Clone, Debug)]
struct Candidate {
    /// The job that really made it.
    origin: JobId,
    stage: Stage,
    workdir: String,
    /// What must still be there, by the node that holds it.
    files: BTreeMap<NodeId, Vec<FileRecord>>,
}

impl Compiler {
    /// Lets equal stages of earlier jobs, whose results are still there, stand
    /// in for those of `job`. Returns a reason for each.
    pub(super) async fn take_over(&self, job: &mut Job) -> Result<Vec<String>, Status> {
        let mut reasons = Vec::new();
        for at in 0..job.stages.len() {
            let Some(digest) = job.stages[at].digest else { continue };
            let candidates = self.driver.read(move |world| candidates(world, digest)).await?;
            for candidate in candidates {
                if self.still_there(&candidate).await {
                    let stage = &mut job.stages[at];
                    reasons.push(format!(
                        "{}: same inputs and options as job {} (digest {})",
                        stage.name,
                        candidate.origin,
                        short(&digest)
                    ));
                    stand_in(stage, candidate);
                    break;
                }
            }
        }
        inherit(&mut job.stages);
        Ok(reasons)
    }

    /// Whether the agents that hold the results find them unchanged.
    async fn still_there(&self, candidate: &Candidate) -> bool {
        for (node, files) in &candidate.files {
            for files in files.chunks(FILES) {
                let request = v1::SurveyRequest {
                    workdir: candidate.workdir.clone(),
                    digest_files: files.iter().map(|file| file.path.clone()).collect(),
                    ..v1::SurveyRequest::default()
                };
                let Ok(answer) = self.surveys.ask(node, request).await else { return false };
                if !files.iter().all(|file| unchanged(file, &answer.digests)) {
                    return false;
                }
            }
        }
        !candidate.files.is_empty()
    }
}

/// An equal size and, where both sides have one, an equal digest: agents leave
/// the digest of what is very large empty.
fn unchanged(file: &FileRecord, seen: &[v1::FileRecord]) -> bool {
    seen.iter().any(|now| {
        let same_digest = now.digest == file.digest || now.digest.is_empty() || file.digest.is_empty();
        now.path == file.path && now.size == file.size && same_digest
    })
}

fn candidates(world: &World, digest: [u8; 32]) -> Vec<Candidate> {
    let mut jobs: Vec<&Job> = world.jobs.values().collect();
    jobs.sort_unstable_by_key(|job| std::cmp::Reverse((job.submitted, &job.id)));
    let equal = jobs.into_iter().filter_map(|job| {
        let stage = job.stages.iter().find(|stage| stage.digest == Some(digest))?;
        match phase::stage(world, job, stage) {
            StagePhase::Succeeded | StagePhase::Reused => candidate(world, job, stage),
            StagePhase::Pending
            | StagePhase::Running
            | StagePhase::Failed
            | StagePhase::Cancelled
            | StagePhase::Skipped => None,
        }
    });
    equal.take(LOOKED_AT).collect()
}

fn candidate(world: &World, job: &Job, stage: &Stage) -> Option<Candidate> {
    let origin = stage.reused.clone().unwrap_or_else(|| job.id.clone());
    // The origin knows on which node each task ran.
    let made = match &stage.reused {
        Some(origin) => world.jobs.get(origin)?.stages.iter().find(|other| other.digest == stage.digest)?,
        None => stage,
    };
    let files = files(made);
    if files.is_empty() {
        return None;
    }
    Some(Candidate { origin, stage: made.clone(), workdir: job.runtime.workdir.clone(), files })
}

/// The files that a stage's result consists of, by node.
///
/// Where a closing task published the result, the other tasks' files are gone.
fn files(stage: &Stage) -> BTreeMap<NodeId, Vec<FileRecord>> {
    let closing = stage.tasks.iter().any(|task| task.closing);
    let mut files: BTreeMap<NodeId, Vec<FileRecord>> = BTreeMap::new();
    for task in stage.tasks.iter().filter(|task| task.closing || !closing) {
        let (Some(node), TaskState::Done { output, .. }) = (succeeded_on(task), &task.state) else { continue };
        if !output.files.is_empty() {
            files.entry(node).or_default().extend(output.files.iter().cloned());
        }
    }
    let newest = stage.checkpoints.values().rev().find(|checkpoint| checkpoint.is_usable());
    for shard in newest.into_iter().flat_map(|checkpoint| checkpoint.shards.values()) {
        let file = FileRecord { path: shard.path.clone(), size: shard.size, digest: String::new() };
        files.entry(shard.node.clone()).or_default().push(file);
    }
    files
}

fn succeeded_on(task: &Task) -> Option<NodeId> {
    let past = task.history.iter().rev().find(|past| past.outcome == Outcome::Succeeded)?;
    past.nodes.first().cloned()
}

/// Puts the earlier tasks and their results in place; their attempts, and so
/// their logs, stay the origin's.
fn stand_in(stage: &mut Stage, candidate: Candidate) {
    stage.reused = Some(candidate.origin);
    stage.tasks = candidate.stage.tasks;
    for task in &mut stage.tasks {
        task.history = model::History::default();
    }
    stage.checkpoints = candidate.stage.checkpoints;
}

/// What waits for a stage that was taken over waits for what that one waited
/// for: it must not start before the preflight because nothing lies between.
fn inherit(stages: &mut [Stage]) {
    for at in 0..stages.len() {
        let mut after: BTreeSet<usize> = stages[at].after.iter().copied().collect();
        // Stages only come after earlier ones, so those are settled already.
        for before in stages[at].after.clone() {
            if stages.get(before).is_some_and(|stage| stage.reused.is_some()) {
                after.extend(&stages[before].after);
            }
        }
        stages[at].after = after.into_iter().collect();
    }
}

fn short(digest: &[u8; 32]) -> String {
    let hex: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_stage_taken_over_still_waits_for_the_preflight() {
        let mut stages = Vec::new();
        for after in [vec![], vec![0], vec![1], vec![2]] {
            let one = crate::testing::job("j1", "x", 1).stages.remove(0);
            stages.push(Stage { after, ..one });
        }
        let origin = Some(JobId::new("j0").unwrap());
        stages[1].reused.clone_from(&origin);
        stages[2].reused = origin;
        inherit(&mut stages);
        let after: Vec<_> = stages.iter().map(|stage| stage.after.clone()).collect();
        assert_eq!(after, [vec![], vec![0], vec![0, 1], vec![0, 1, 2]]);
    }

    #[test]
    fn files_are_unchanged_by_size_and_by_digest_where_both_have_one() {
        let file = |size, digest: &str| FileRecord { path: "a".into(), size, digest: digest.into() };
        let seen = |size, digest: &str| [v1::FileRecord { path: "a".into(), size, digest: digest.into() }];
        assert!(unchanged(&file(7, "x"), &seen(7, "x")));
        assert!(unchanged(&file(7, ""), &seen(7, "x")) && unchanged(&file(7, "x"), &seen(7, "")));
        assert!(!unchanged(&file(7, "x"), &seen(8, "x")) && !unchanged(&file(7, "x"), &seen(7, "y")));
        assert!(!unchanged(&file(7, "x"), &[]));
    }
}
