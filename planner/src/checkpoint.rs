//! Checkpoints, assembled from what the nodes report.

use model::event::{Kind, Level};
use model::{AttemptState, Body, Checkpoint, Drain, NodeId, Parallel, ShardRecord, Stage, Timestamp};

use crate::index::Place;
use crate::input::Write;
use crate::step::Work;

/// Most shards remembered of one stage: the record must stay far below the
/// store's 64 KiB. The newest complete iteration, later ones and pinned ones are always kept.
const MOST_SHARDS: usize = 256;
/// Most iterations remembered of one stage.
const MOST_ITERATIONS: usize = 64;
/// Longest path remembered, in bytes.
const LONGEST_PATH: usize = 1_024;

impl Work<'_> {
    pub(crate) fn shard(
        &mut self,
        place: &Place,
        node: &NodeId,
        iteration: u64,
        (tp, pp): (u32, u32),
        path: &str,
        size: u64,
    ) {
        let Some(parallel) = self.trains(place, iteration) else { return };
        if tp >= parallel.tp() || pp >= parallel.pp() || path.len() > LONGEST_PATH {
            return;
        }
        let now = self.now;
        let record = ShardRecord { node: node.clone(), path: path.to_owned(), size };
        let Some(stage) = self.stage_mut(place) else { return };
        let same = |seen: &Checkpoint| !seen.superseded && seen.shards.get(&(tp, pp)) == Some(&record);
        if stage.checkpoints.get(&iteration).is_some_and(same) {
            return;
        }
        // The tracker names the newest iteration, so it stands for earlier ones too.
        let tracked = stage.checkpoints.range(iteration..).any(|(_, later)| later.tracked && !later.superseded);
        let checkpoint = stage.checkpoints.entry(iteration).or_default();
        if checkpoint.superseded {
            // Written anew, shard by shard.
            *checkpoint = Checkpoint { pinned: checkpoint.pinned, ..Checkpoint::default() };
        }
        checkpoint.shards.insert((tp, pp), record);
        checkpoint.tracked |= tracked;
        // Another shard than it was completed with: it is another writing.
        checkpoint.complete = checkpoint.complete.map(|_| now);
        self.assembled(place, parallel);
    }

    pub(crate) fn tracker(&mut self, place: &Place, iteration: u64) {
        let Some(parallel) = self.trains(place, iteration) else { return };
        let Some(stage) = self.stage_mut(place) else { return };
        if stage.checkpoints.get(&iteration).is_some_and(|seen| seen.tracked && !seen.superseded) {
            return;
        }
        let checkpoint = stage.checkpoints.entry(iteration).or_default();
        if checkpoint.superseded && !checkpoint.removing {
            // Written anew: a tracker may be told before the shards that it stands for.
            *checkpoint = Checkpoint { pinned: checkpoint.pinned, ..Checkpoint::default() };
        }
        let present = stage.checkpoints.range_mut(..=iteration).filter(|(_, seen)| !seen.superseded);
        present.for_each(|(_, seen)| seen.tracked = true);
        self.assembled(place, parallel);
    }

    /// Forgets iterations that a failed attempt left unfinished: the next one
    /// writes them anew.
    pub(crate) fn drop_incomplete_checkpoints(&mut self, place: &Place) {
        let Some(stage) = self.stage_mut(place) else { return };
        let before = stage.checkpoints.len();
        stage.checkpoints.retain(|_, checkpoint| checkpoint.complete.is_some());
        if stage.checkpoints.len() != before {
            self.out.writes.insert(Write::Checkpoints { job: place.job.clone(), stage: place.stage });
        }
    }

    /// Layout of the training that may have written `iteration`.
    ///
    /// What is stopped because its stage begins again, perhaps further back, says
    /// nothing about the stage any more.
    fn trains(&self, place: &Place, iteration: u64) -> Option<Parallel> {
        match self.attempt(place)?.state {
            AttemptState::Draining(Drain::Restarted { .. }) => return None,
            AttemptState::Preparing
            | AttemptState::Running
            | AttemptState::Draining(Drain::Failed | Drain::Cancelled | Drain::NodeLost | Drain::Moved { .. }) => {}
        }
        match &self.task(place)?.body {
            Body::Train(train) if train.train_iters == 0 || iteration <= train.train_iters => Some(train.parallel),
            Body::Train(_) | Body::Preflight(_) | Body::Engine(_) | Body::Run { .. } => None,
        }
    }

    fn assembled(&mut self, place: &Place, parallel: Parallel) {
        let now = self.now;
        let Some(stage) = self.stage_mut(place) else { return };
        let newly = complete(stage, parallel, now);
        trim(stage);
        self.out.writes.insert(Write::Checkpoints { job: place.job.clone(), stage: place.stage });
        for iteration in newly {
            let message = format!("checkpoint of iteration {iteration} is complete ({} shards)", parallel.shards());
            self.stage_event(place, Kind::CheckpointCompleted, Level::Info, message);
        }
    }

    fn stage_mut(&mut self, place: &Place) -> Option<&mut Stage> {
        self.world.jobs.get_mut(&place.job)?.stages.get_mut(place.stage)
    }
}

/// Marks what has become complete, and returns those iterations.
fn complete(stage: &mut Stage, parallel: Parallel, now: Timestamp) -> Vec<u64> {
    let whole = |checkpoint: &Checkpoint| checkpoint.tracked && checkpoint.shards.len() as u64 == parallel.shards();
    let mut newly = Vec::new();
    for (iteration, checkpoint) in &mut stage.checkpoints {
        if checkpoint.complete.is_none() && !checkpoint.superseded && whole(checkpoint) {
            checkpoint.complete = Some(now);
            newly.push(*iteration);
        }
    }
    newly
}

fn trim(stage: &mut Stage) {
    let newest = newest_complete(stage);
    loop {
        let shards: usize = stage.checkpoints.values().map(|checkpoint| checkpoint.shards.len()).sum();
        let unpinned = stage.checkpoints.iter().find(|(_, checkpoint)| !checkpoint.pinned);
        let Some(oldest) = unpinned.map(|(at, _)| *at) else { return };
        let needed = newest.is_some_and(|newest| oldest >= newest);
        let fits = shards <= MOST_SHARDS && stage.checkpoints.len() <= MOST_ITERATIONS;
        if fits || needed || stage.checkpoints.len() == 1 {
            return;
        }
        stage.checkpoints.remove(&oldest);
    }
}

/// The iteration to resume from, if any is complete.
pub(crate) fn newest_complete(stage: &Stage) -> Option<u64> {
    complete_iterations(stage).next()
}

/// Iterations that can be resumed from, newest first.
pub(crate) fn complete_iterations(stage: &Stage) -> impl Iterator<Item = u64> {
    let present = stage.checkpoints.iter().rev().filter(|(_, seen)| seen.is_usable());
    present.map(|(at, _)| *at)
}
