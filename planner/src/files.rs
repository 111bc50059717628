//! Where the files of a checkpoint lie, and who may need them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use model::{Attempt, AttemptState, Body, Job, JobId, NodeId, Stage, Task, Timestamp};

use crate::checkpoint::{complete_iterations, newest_complete};
use crate::world::World;

/// A stage that keeps a checkpoint, by its job and position.
pub(crate) type Keeper = (JobId, usize);

/// What the removal of an iteration deletes: its directory, on each of these nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The directory in which the iteration's lies.
    pub save_dir: PathBuf,
    /// Nodes that may hold some of it.
    pub nodes: BTreeSet<NodeId>,
    /// Whether every node sees all of it.
    pub shared: bool,
}

impl Files {
    /// Those of an iteration; `None` if the stage has no record of it, or names no directory.
    ///
    /// Of what is not complete, any node that trained may hold shards that were never reported.
    #[must_use]
    pub fn of(job: &Job, stage: &Stage, iteration: u64) -> Option<Self> {
        let checkpoint = stage.checkpoints.get(&iteration)?;
        // A stage that was taken over has its files where its origin has them.
        let seen = checkpoint.shards.values().find_map(|shard| holder(&shard.path, iteration));
        let save_dir = seen.or_else(|| save_dir(job, stage))?;
        let mut nodes: BTreeSet<NodeId> = checkpoint.shards.values().map(|shard| shard.node.clone()).collect();
        if checkpoint.complete.is_none() {
            let trained = stage.tasks.iter().flat_map(|task| {
                let sits = task.state.attempt().into_iter().flat_map(|attempt| &attempt.seats);
                let sat = task.history.iter().flat_map(|past| &past.nodes);
                sits.map(|seat| &seat.node).chain(sat).cloned()
            });
            nodes.extend(trained);
        }
        Some(Self { save_dir, nodes, shared: job.runtime.shared_storage })
    }

    /// The iteration's own directory.
    #[must_use]
    pub fn directory(&self, iteration: u64) -> PathBuf {
        self.save_dir.join(format!("iter_{iteration:07}"))
    }

    /// The newest other iteration here that can be gone on from, whichever stage wrote it.
    #[must_use]
    pub fn next(&self, world: &World, iteration: u64) -> Option<u64> {
        let stages = world.jobs.values().flat_map(|job| job.stages.iter().map(move |stage| (job, stage)));
        let newest = stages.filter_map(|(job, stage)| {
            let here = |at: &u64| Self::of(job, stage, *at).is_some_and(|files| self.meets(&files));
            complete_iterations(stage).filter(|at| *at != iteration).find(here)
        });
        newest.max()
    }

    /// Whether some node sees both as the same directory.
    fn meets(&self, other: &Self) -> bool {
        let seen = self.shared || other.shared || !self.nodes.is_disjoint(&other.nodes);
        seen && self.save_dir == other.save_dir
    }

    /// Every stage with a record of what lies here; `keeper`, whose files these are, comes first.
    pub(crate) fn keepers(&self, world: &World, keeper: &Keeper, iteration: u64) -> Vec<Keeper> {
        let mut all = vec![keeper.clone()];
        for job in world.jobs.values() {
            for (at, stage) in job.stages.iter().enumerate() {
                let other = (job.id.clone(), at);
                if other != *keeper && Self::of(job, stage, iteration).is_some_and(|files| self.meets(&files)) {
                    all.push(other);
                }
            }
        }
        all
    }

    /// A job that has not ended and may still need `iteration` here: as the newest of one of its
    /// stages, as what an attempt begins from, or as what one may be writing.
    pub(crate) fn needed_by(&self, world: &World, iteration: u64) -> Option<JobId> {
        let open = world.jobs.values().filter(|job| job.ended.is_none());
        let needs = |job: &&Job| {
            job.stages.iter().any(|stage| {
                let kept = || Self::of(job, stage, iteration).is_some_and(|files| self.meets(&files));
                (newest_complete(stage) == Some(iteration) && kept()) || self.is_used(job, stage, iteration)
            })
        };
        open.map(|job| (job, needs(&job))).find(|(_, needs)| *needs).map(|(job, _)| job.id.clone())
    }

    /// Whether a training that runs goes on from `iteration` here, or may be writing it.
    fn is_used(&self, job: &Job, stage: &Stage, iteration: u64) -> bool {
        let training = |task: &&Task| matches!(task.body, Body::Train(_));
        stage.tasks.iter().filter(training).filter_map(|task| task.state.attempt()).any(|attempt| {
            let nodes = attempt.seats.iter().map(|seat| seat.node.clone()).collect();
            let written =
                save_dir(job, stage).map(|save_dir| Self { save_dir, nodes, shared: job.runtime.shared_storage });
            written.is_some_and(|written| self.meets(&written)) && may_touch(stage, attempt, iteration)
        })
    }
}

/// When what lies there was completed last, by whichever stage; `None` if the stage has no complete record of it.
#[must_use]
pub fn written(world: &World, job: &JobId, stage: usize, iteration: u64) -> Option<Timestamp> {
    let keeper = (job.clone(), stage);
    let complete =
        |(job, stage): &Keeper| world.jobs.get(job)?.stages.get(*stage)?.checkpoints.get(&iteration)?.complete;
    let own = complete(&keeper)?;
    let job = world.jobs.get(job)?;
    let files = Files::of(job, job.stages.get(stage)?, iteration)?;
    files.keepers(world, &keeper, iteration).iter().filter_map(complete).max().or(Some(own))
}

/// A trainer only goes forward: it is done with what was completed since it began, and with all before that.
fn may_touch(stage: &Stage, attempt: &Attempt, iteration: u64) -> bool {
    let begins = match attempt.state {
        AttemptState::Preparing | AttemptState::Running => attempt.resume == Some(iteration),
        AttemptState::Draining(_) => false,
    };
    let mut newest = stage.checkpoints.iter().rev();
    let done = newest.find(|(_, seen)| seen.complete.is_some_and(|at| at >= attempt.placed));
    let reached = done.map(|(at, _)| *at).or(attempt.resume).unwrap_or(0);
    let last = done.is_some_and(|(at, seen)| *at == iteration && seen.is_usable());
    begins || last || iteration > reached
}

/// Where the stage's training is told to write.
fn save_dir(job: &Job, stage: &Stage) -> Option<PathBuf> {
    let told = stage.tasks.iter().find_map(|task| match &task.body {
        Body::Train(train) => Some(&train.save_dir),
        Body::Preflight(_) | Body::Engine(_) | Body::Run { .. } => None,
    });
    let told = told.filter(|told| !told.is_empty())?;
    Some(plain(&Path::new(&job.runtime.workdir).join(told)))
}

/// The directory that holds those of iterations, by the path of a shard.
fn holder(shard: &str, iteration: u64) -> Option<PathBuf> {
    let dir = Path::new(shard).parent()?.parent()?;
    let named = dir.file_name()? == format!("iter_{iteration:07}").as_str();
    named.then(|| dir.parent().map(plain)).flatten()
}

/// One spelling of a path: without `.` and doubled slashes.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}
