//! Time that failures cost.

use proto::v1;

/// Milliseconds of a stage's attempts that came to nothing, by `now_ms`: from the last checkpoint
/// whole within an attempt that failed, or its beginning, to the beginning of the next.
pub(super) fn lost_ms(stage: &v1::StageView, checkpoints: &[v1::CheckpointView], now_ms: u64) -> u64 {
    stage.task_views.iter().map(|task| of_task(task, checkpoints, now_ms)).sum()
}

fn of_task(task: &v1::TaskView, checkpoints: &[v1::CheckpointView], now_ms: u64) -> u64 {
    let mut past: Vec<&v1::AttemptView> = task.history.iter().collect();
    past.sort_by_key(|attempt| attempt.number);
    let newest = past.last().map_or(0, |attempt| attempt.number);
    let goes_on = !matches!(task.phase.as_str(), "succeeded" | "failed" | "cancelled" | "skipped");
    let failed = past.iter().enumerate().filter(|(_, attempt)| attempt.outcome == "failed");
    failed
        .map(|(at, attempt)| {
            let within = |ms: &u64| (attempt.placed_ms..=attempt.ended_ms).contains(ms);
            let saved = checkpoints.iter().filter(|one| one.complete).map(|one| one.completed_ms).filter(within).max();
            let next = past.get(at + 1).map(|next| next.placed_ms);
            // The present attempt is not among the past ones, nor does it say when it began.
            let waits = attempt.number == newest && goes_on && task.phase == "waiting";
            let until = next.unwrap_or(if waits { now_ms } else { attempt.ended_ms });
            until.saturating_sub(saved.unwrap_or(attempt.placed_ms))
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(number: u32, outcome: &str, placed_ms: u64, ended_ms: u64) -> v1::AttemptView {
        v1::AttemptView { number, outcome: outcome.into(), placed_ms, ended_ms, ..v1::AttemptView::default() }
    }

    fn lost(phase: &str, history: Vec<v1::AttemptView>, saved: &[u64]) -> u64 {
        let task = v1::TaskView { phase: phase.into(), history, ..v1::TaskView::default() };
        let stage = v1::StageView { task_views: vec![task], ..v1::StageView::default() };
        let checkpoint =
            |at: &u64| v1::CheckpointView { complete: true, completed_ms: *at, ..v1::CheckpointView::default() };
        lost_ms(&stage, &saved.iter().map(checkpoint).collect::<Vec<_>>(), 1000)
    }

    #[test]
    fn what_was_saved_is_not_lost() {
        let twice = || vec![attempt(1, "failed", 100, 200), attempt(2, "succeeded", 230, 400)];
        assert_eq!(lost("succeeded", twice(), &[]), 130);
        assert_eq!(lost("succeeded", twice(), &[150, 180, 300]), 50);
        assert_eq!(lost("succeeded", vec![attempt(1, "succeeded", 100, 200)], &[]), 0);
        assert_eq!(lost("cancelled", vec![attempt(1, "cancelled", 100, 200)], &[]), 0);
    }

    #[test]
    fn the_last_failure_counts_to_its_end_or_while_it_waits() {
        assert_eq!(lost("failed", vec![attempt(1, "failed", 100, 200)], &[]), 100);
        assert_eq!(lost("waiting", vec![attempt(1, "failed", 100, 200)], &[]), 900);
        assert_eq!(lost("running", vec![attempt(1, "failed", 100, 200)], &[]), 100);
    }
}
