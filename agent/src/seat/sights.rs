//! Which checkpoints a seat watches for.

use std::path::Path;

use model::Parallel;
use proto::v1::assignment::Body;

use super::run::Seat;
use crate::launch::absolute;
use crate::watch::checkpoints::{Scope, Watch};

/// The watch of a training seat, with what an earlier life has told already.
pub(super) fn checkpoint_watch(seat: &Seat) -> Option<Watch> {
    let assignment = &seat.assignment;
    let Some(Body::Train(body)) = &assignment.body else { return None };
    if body.save_dir.is_empty() {
        return None;
    }
    let parallel = Parallel::new(body.tp, body.pp).ok()?;
    let dp = parallel.dp(assignment.world_size).ok()?;
    let workdir = &assignment.runtime.as_ref()?.workdir;
    let ranks = assignment.first_rank..assignment.first_rank.saturating_add(assignment.ranks);
    let shards = ranks.map(|r| parallel.coordinates(r, dp)).filter(|c| c.dp == 0).map(|c| (c.tp, c.pp)).collect();
    let mut watch = Watch::new(Scope {
        save_dir: absolute(Path::new(workdir), &body.save_dir),
        shards,
        parallel,
        tracker: assignment.first_rank == 0,
        since_ms: seat.note.started_ms,
    });
    let mut newest = None;
    for mark in &seat.marks {
        let numbers: Vec<u64> = mark.split(' ').skip(1).filter_map(|n| n.parse().ok()).collect();
        match (mark.split(' ').next(), numbers.as_slice()) {
            (Some("shard"), [iteration, tp, pp]) => {
                if let (Ok(tp), Ok(pp)) = (u32::try_from(*tp), u32::try_from(*pp)) {
                    watch.know_shard(*iteration, tp, pp);
                }
            }
            (Some("tracker"), [iteration]) => newest = newest.max(Some(*iteration)),
            _ => {}
        }
    }
    if let Some(iteration) = newest {
        watch.know_tracker(iteration);
    }
    Some(watch)
}
