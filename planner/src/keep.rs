//! Checkpoints that somebody pins, removes, or has verified.

use std::collections::BTreeMap;

use model::event::{Kind, Level};
use model::{AttemptState, Checkpoint, JobId, NodeId, StageName, TaskState};

use crate::checkpoint::{complete_iterations, newest_complete};
use crate::input::{AboutCheckpoint, CheckpointRefusal, Keep, Reply, Write};
use crate::step::Work;
use crate::text;
use crate::world::World;

/// Most shards of pinned checkpoints of one stage: its record must stay far below the store's 64 KiB.
const MOST_PINNED: usize = 128;

/// A stage that keeps a checkpoint, by its job and position.
type Keeper = (JobId, usize);

impl Work<'_> {
    pub(crate) fn about_checkpoint(&mut self, about: &AboutCheckpoint) {
        let Some((at, checkpoint)) = find(self.world, &about.job, &about.stage, about.iteration) else {
            let what = self.world.jobs.get(&about.job).and_then(|job| {
                let stage = job.stages.iter().find(|stage| stage.name == about.stage)?;
                Some(complete_iterations(stage).collect())
            });
            let refusal = CheckpointRefusal::NoSuch { complete: what.unwrap_or_default() };
            return self.reply(Reply::CheckpointRefused(refusal));
        };
        let keeper = (about.job.clone(), at);
        let outcome = match &about.what {
            Keep::Pin if checkpoint.pinned => Ok(false),
            Keep::Unpin if !checkpoint.pinned => Ok(false),
            Keep::Pin => self.pin(&keeper, about),
            Keep::Unpin => {
                self.change(&keeper, about, |checkpoint| checkpoint.pinned = false);
                self.tell(&keeper, Kind::CheckpointUnpinned, Level::Info, about, "unpinned {}");
                Ok(true)
            }
            Keep::Remove { force } => self.remove(&keeper, about, *force),
            Keep::Removed => {
                self.removed(&keeper, about);
                Ok(true)
            }
            Keep::Verified { faults } => {
                self.verified(&keeper, about, faults);
                Ok(true)
            }
        };
        self.reply(match outcome {
            Ok(true) => Reply::CheckpointChanged,
            Ok(false) => Reply::CheckpointUnchanged,
            Err(refusal) => Reply::CheckpointRefused(refusal),
        });
    }

    fn pin(&mut self, keeper: &Keeper, about: &AboutCheckpoint) -> Result<bool, CheckpointRefusal> {
        let Some(stage) = self.world.jobs.get(&keeper.0).and_then(|job| job.stages.get(keeper.1)) else {
            return Ok(false);
        };
        let Some(checkpoint) = stage.checkpoints.get(&about.iteration) else { return Ok(false) };
        if !checkpoint.is_usable() {
            return Err(CheckpointRefusal::Unusable);
        }
        let pinned = stage.checkpoints.values().filter(|other| other.pinned).map(|other| other.shards.len());
        if pinned.sum::<usize>() + checkpoint.shards.len() > MOST_PINNED {
            return Err(CheckpointRefusal::TooManyPinned { shards: MOST_PINNED });
        }
        self.change(keeper, about, |checkpoint| checkpoint.pinned = true);
        self.tell(keeper, Kind::CheckpointPinned, Level::Info, about, "pinned {}: it is not removed");
        Ok(true)
    }

    /// Takes it out of use, so that nothing goes on from it while its files go.
    fn remove(&mut self, keeper: &Keeper, about: &AboutCheckpoint, force: bool) -> Result<bool, CheckpointRefusal> {
        let keepers = keepers(self.world, keeper, about.iteration);
        let pinned = |(job, stage): &&Keeper| {
            let stage = self.world.jobs.get(job).and_then(|job| job.stages.get(*stage));
            stage.and_then(|stage| stage.checkpoints.get(&about.iteration)).is_some_and(|checkpoint| checkpoint.pinned)
        };
        if let Some((job, _)) = keepers.iter().find(pinned) {
            return Err(CheckpointRefusal::Pinned { job: job.clone() });
        }
        let needed = |(job, stage): &&Keeper| is_needed(self.world, job, *stage, about.iteration);
        if let Some((job, _)) = keepers.iter().find(needed).filter(|_| !force) {
            return Err(CheckpointRefusal::Needed { job: job.clone() });
        }
        for keeper in &keepers {
            self.change(keeper, about, |checkpoint| (checkpoint.superseded, checkpoint.removing) = (true, true));
        }
        Ok(true)
    }

    fn removed(&mut self, keeper: &Keeper, about: &AboutCheckpoint) {
        for (job, stage) in keepers(self.world, keeper, about.iteration) {
            let Some(held) = self.world.jobs.get_mut(&job).and_then(|job| job.stages.get_mut(stage)) else { continue };
            // What a trainer has written anew meanwhile stays.
            if held.checkpoints.get(&about.iteration).is_some_and(|checkpoint| checkpoint.removing) {
                held.checkpoints.remove(&about.iteration);
                self.out.writes.insert(Write::Checkpoints { job: job.clone(), stage });
                self.tell(&(job, stage), Kind::CheckpointRemoved, Level::Info, about, "removed {}");
            }
        }
    }

    /// A broken one is not gone on from, until it is found whole again or written anew.
    fn verified(&mut self, keeper: &Keeper, about: &AboutCheckpoint, faults: &[(NodeId, String)]) {
        let broken = !faults.is_empty();
        self.change(keeper, about, |checkpoint| {
            if broken || checkpoint.broken {
                (checkpoint.superseded, checkpoint.broken) = (broken, broken);
            }
        });
        let Some((node, first)) = faults.first() else {
            return self.tell(keeper, Kind::CheckpointVerified, Level::Info, about, "had {} read: it is whole");
        };
        let what = format!("had {{}} read: it is broken, and nothing goes on from it: {}", text::cut(first));
        let evidence: Vec<String> =
            faults.iter().take(20).map(|(node, fault)| text::cut(&format!("{node}: {fault}"))).collect();
        let node = node.clone();
        let message = sentence(about, &what);
        let Some(stage) = self.stage_name(keeper) else { return };
        if let Some(event) = self.event(&keeper.0, Kind::CheckpointBroken, Level::Error, message) {
            (event.stage, event.node, event.evidence) = (Some(stage), Some(node), evidence);
        }
    }

    fn change(&mut self, (job, stage): &Keeper, about: &AboutCheckpoint, change: impl FnOnce(&mut Checkpoint)) {
        let held = self.world.jobs.get_mut(job).and_then(|job| job.stages.get_mut(*stage));
        if let Some(checkpoint) = held.and_then(|stage| stage.checkpoints.get_mut(&about.iteration)) {
            change(checkpoint);
            self.out.writes.insert(Write::Checkpoints { job: job.clone(), stage: *stage });
        }
    }

    fn tell(&mut self, keeper: &Keeper, kind: Kind, level: Level, about: &AboutCheckpoint, what: &str) {
        let Some(stage) = self.stage_name(keeper) else { return };
        if let Some(event) = self.event(&keeper.0, kind, level, sentence(about, what)) {
            event.stage = Some(stage);
        }
    }

    fn stage_name(&self, (job, stage): &Keeper) -> Option<StageName> {
        Some(self.world.jobs.get(job)?.stages.get(*stage)?.name.clone())
    }
}

/// What somebody did; `{}` stands for the checkpoint.
fn sentence(about: &AboutCheckpoint, what: &str) -> String {
    let which = format!("the checkpoint of iteration {}", about.iteration);
    format!("`{}` {}", about.by, what.replacen("{}", &which, 1))
}

fn find<'w>(world: &'w World, job: &JobId, stage: &StageName, iteration: u64) -> Option<(usize, &'w Checkpoint)> {
    let stages = &world.jobs.get(job)?.stages;
    let at = stages.iter().position(|one| one.name == *stage)?;
    Some((at, stages.get(at)?.checkpoints.get(&iteration)?))
}

/// The stage itself, and those of other jobs that hold the same files for theirs: a stage that was
/// taken over, or one that trained into the same directory.
fn keepers(world: &World, keeper: &Keeper, iteration: u64) -> Vec<Keeper> {
    let files = |checkpoint: &Checkpoint| -> BTreeMap<(NodeId, String), ()> {
        checkpoint.shards.values().map(|shard| ((shard.node.clone(), shard.path.clone()), ())).collect()
    };
    let held = world.jobs.get(&keeper.0).and_then(|job| job.stages.get(keeper.1)?.checkpoints.get(&iteration));
    let own = held.map(files).unwrap_or_default();
    let shares = |checkpoint: &Checkpoint| files(checkpoint).keys().any(|file| own.contains_key(file));
    let mut all = vec![keeper.clone()];
    for job in world.jobs.values() {
        for (at, stage) in job.stages.iter().enumerate() {
            let other = (job.id.clone(), at);
            if other != *keeper && stage.checkpoints.get(&iteration).is_some_and(shares) {
                all.push(other);
            }
        }
    }
    all
}

/// Whether a job that goes on may still need it: its newest, or one that an attempt begins from.
fn is_needed(world: &World, job: &JobId, stage: usize, iteration: u64) -> bool {
    let Some(job) = world.jobs.get(job).filter(|job| job.ended.is_none()) else { return false };
    let Some(stage) = job.stages.get(stage) else { return false };
    let begins = stage.tasks.iter().any(|task| match &task.state {
        TaskState::Active(attempt) => {
            attempt.resume == Some(iteration)
                && matches!(attempt.state, AttemptState::Preparing | AttemptState::Running)
        }
        TaskState::Waiting { .. }
        | TaskState::Done { .. }
        | TaskState::Failed { .. }
        | TaskState::Cancelled { .. }
        | TaskState::Skipped => false,
    });
    begins || newest_complete(stage) == Some(iteration)
}
