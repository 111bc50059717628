//! Taking over stages that an earlier job has made already.

use std::collections::BTreeMap;

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
    let newest = stage.checkpoints.values().rev().find(|checkpoint| checkpoint.complete.is_some());
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
        task.history.clear();
    }
    stage.checkpoints = candidate.stage.checkpoints;
}

fn short(digest: &[u8; 32]) -> String {
    let hex: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}…")
}
