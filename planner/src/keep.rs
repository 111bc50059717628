//! Checkpoints that somebody pins, removes, or has verified.

use model::event::{Kind, Level};
use model::{Checkpoint, JobId, NodeId, StageName, Timestamp};

use crate::checkpoint::complete_iterations;
use crate::files::{self, Files, Keeper};
use crate::input::{AboutCheckpoint, CheckpointRefusal, Keep, Reply, Write};
use crate::step::Work;
use crate::text;
use crate::world::World;

/// Most shards of pinned checkpoints of one stage: its record must stay far below the store's 64 KiB.
const MOST_PINNED: usize = 128;

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
            Keep::Verified { written, faults } => Ok(self.verified(&keeper, about, *written, faults)),
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
        let files = self.files(keeper, about.iteration);
        let keepers = self.keepers(keeper, about.iteration);
        let pinned = |keeper: &&Keeper| self.held(keeper, about.iteration).is_some_and(|checkpoint| checkpoint.pinned);
        if let Some((job, _)) = keepers.iter().find(pinned) {
            return Err(CheckpointRefusal::Pinned { job: job.clone() });
        }
        let needed = files.filter(|_| !force).and_then(|files| files.needed_by(self.world, about.iteration));
        if let Some(job) = needed {
            return Err(CheckpointRefusal::Needed { job });
        }
        for keeper in &keepers {
            self.change(keeper, about, |checkpoint| (checkpoint.superseded, checkpoint.removing) = (true, true));
        }
        Ok(true)
    }

    fn removed(&mut self, keeper: &Keeper, about: &AboutCheckpoint) {
        for (job, stage) in self.keepers(keeper, about.iteration) {
            let Some(held) = self.world.jobs.get_mut(&job).and_then(|job| job.stages.get_mut(stage)) else { continue };
            // What a trainer has written anew meanwhile stays.
            if held.checkpoints.get(&about.iteration).is_some_and(|checkpoint| checkpoint.removing) {
                held.checkpoints.remove(&about.iteration);
                self.out.writes.insert(Write::Checkpoints { job: job.clone(), stage });
                self.tell(&(job, stage), Kind::CheckpointRemoved, Level::Info, about, "removed {}");
            }
        }
    }

    /// A broken one is not gone on from, until it is found whole again or written anew; whether it
    /// is still what was read.
    fn verified(
        &mut self,
        keeper: &Keeper,
        about: &AboutCheckpoint,
        written: Timestamp,
        faults: &[(NodeId, String)],
    ) -> bool {
        if files::written(self.world, &keeper.0, keeper.1, about.iteration) != Some(written) {
            return false;
        }
        let shards = |keeper: &Keeper| self.held(keeper, about.iteration).map(|checkpoint| &checkpoint.shards);
        let own = shards(keeper);
        // Who has other shards on record has them from another writing.
        let mut keepers = self.keepers(keeper, about.iteration);
        keepers.retain(|other| shards(other) == own);
        let broken = !faults.is_empty();
        for keeper in &keepers {
            self.change(keeper, about, |checkpoint| {
                if broken || checkpoint.broken {
                    (checkpoint.superseded, checkpoint.broken) = (broken, broken);
                }
            });
            self.tell_verified(keeper, about, faults);
        }
        true
    }

    fn tell_verified(&mut self, keeper: &Keeper, about: &AboutCheckpoint, faults: &[(NodeId, String)]) {
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

    fn held(&self, (job, stage): &Keeper, iteration: u64) -> Option<&Checkpoint> {
        self.world.jobs.get(job)?.stages.get(*stage)?.checkpoints.get(&iteration)
    }

    fn files(&self, (job, stage): &Keeper, iteration: u64) -> Option<Files> {
        let job = self.world.jobs.get(job)?;
        Files::of(job, job.stages.get(*stage)?, iteration)
    }

    /// The stage itself, and others with a record of the same files: one that was taken over, or
    /// one that trained into the same directory.
    fn keepers(&self, keeper: &Keeper, iteration: u64) -> Vec<Keeper> {
        let files = self.files(keeper, iteration);
        files.map_or_else(|| vec![keeper.clone()], |files| files.keepers(self.world, keeper, iteration))
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
