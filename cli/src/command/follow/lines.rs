//! A job's progress as calm lines.

use std::collections::BTreeMap;

use proto::v1;

use crate::text::{bytes, count, duration, one_line, plural};

/// Least time between two lines about one stage's progress.
const PACE_MS: u64 = 10_000;

/// What was said about each stage.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    said: BTreeMap<String, Said>,
    waiting: String,
    /// Whether starts and progress are shown elsewhere.
    endings_only: bool,
}

#[derive(Debug, Default)]
struct Said {
    phase: String,
    at_ms: u64,
    done: u64,
    iteration: u64,
}

impl Lines {
    /// Without starts and progress.
    pub(super) fn endings_only() -> Self {
        Self { endings_only: true, ..Self::default() }
    }

    /// The lines that are new with this view, seen at `now_ms`.
    pub(super) fn of(&mut self, job: &v1::JobView, now_ms: u64) -> Vec<String> {
        let mut lines = Vec::new();
        let waits = job.phase == "pending" && !job.reason.is_empty();
        if waits && self.waiting != job.reason {
            lines.push(one_line(&format!("waiting: {}", job.reason)));
            self.waiting.clone_from(&job.reason);
        }
        for stage in &job.stages {
            let said = self.said.entry(stage.name.clone()).or_default();
            let began = said.phase != stage.phase;
            if began && stage.phase == "running" && !self.endings_only {
                said.at_ms = now_ms;
                lines.push(line(stage, &format!("started{}", many(stage))));
            }
            if !self.endings_only
                && let Some(text) = said.progress(stage, now_ms)
            {
                lines.push(line(stage, &text));
            }
            if began {
                lines.extend(ended(stage).map(|text| line(stage, &text)));
                said.phase.clone_from(&stage.phase);
            }
        }
        lines
    }
}

impl Said {
    fn progress(&mut self, stage: &v1::StageView, now_ms: u64) -> Option<String> {
        let due = now_ms.saturating_sub(self.at_ms) >= PACE_MS;
        if let Some(train) = stage.train {
            // A tenth of the way, the end, and the first word are said at once.
            let tenth = |iteration: u64| iteration.saturating_mul(10).checked_div(train.iterations).unwrap_or(0);
            let step = self.iteration == 0 || tenth(train.iteration) > tenth(self.iteration);
            if train.iteration > self.iteration && (due || step) {
                (self.iteration, self.at_ms) = (train.iteration, now_ms);
                // Below a second the next line says more.
                let left = remaining(&train).filter(|left| *left >= 1000);
                let left = left.map(|left| format!(", {} left", duration(left))).unwrap_or_default();
                return Some(format!("{}{left}", training(&train)));
            }
            return None;
        }
        let engine = stage.progress.as_ref().filter(|_| stage.phase == "running")?;
        if due && engine.done != self.done {
            (self.done, self.at_ms) = (engine.done, now_ms);
            return Some(format!("{}{}", working(engine), left(engine)));
        }
        None
    }
}

fn line(stage: &v1::StageView, text: &str) -> String {
    one_line(&format!("{}: {text}", stage.name))
}

fn many(stage: &v1::StageView) -> String {
    let tasks = usize::try_from(stage.tasks).unwrap_or(usize::MAX);
    if tasks > 1 { format!(", {}", plural(tasks, "task")) } else { String::new() }
}

/// How a stage ended; `None` while it has not.
fn ended(stage: &v1::StageView) -> Option<String> {
    let took = duration(stage.ended_ms.saturating_sub(stage.started_ms));
    let why = if stage.reason.is_empty() { String::new() } else { format!(": {}", stage.reason) };
    match stage.phase.as_str() {
        "succeeded" => Some(format!("finished in {took}")),
        "reused" if stage.reused_from.is_empty() => Some(format!("reused{why}")),
        // The controller's reason may say no more than that.
        "reused" if stage.reason.contains(&stage.reused_from) => Some(format!("reused{why}")),
        "reused" => Some(format!("reused from {}{why}", stage.reused_from)),
        "failed" => Some(format!("failed after {took}{why}")),
        "cancelled" => Some(format!("cancelled{why}")),
        "skipped" => Some(format!("skipped{why}")),
        _ => None,
    }
}

/// `iteration 5/20, loss 10.81, 230 ms a step`.
pub(crate) fn training(train: &v1::TrainProgress) -> String {
    let mut text = format!("iteration {}/{}", train.iteration, train.iterations);
    if train.loss != 0.0 {
        text.push_str(&format!(", loss {:.4}", train.loss));
    }
    if train.step_ms > 0.0 {
        text.push_str(&format!(", {:.0} ms a step", train.step_ms));
    }
    text
}

/// Milliseconds to the last iteration, at the present speed; `None` while that is unknown or when it is done.
pub(crate) fn remaining(train: &v1::TrainProgress) -> Option<u64> {
    let steps = train.iterations.checked_sub(train.iteration).filter(|steps| *steps > 0)?;
    // Saturates where it makes no sense.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an estimate"
    )]
    (train.step_ms > 0.0).then_some((steps as f64 * train.step_ms) as u64)
}

/// `45 %, 1.20 GiB of 2.67 GiB`, with tokens if they are counted.
pub(crate) fn working(engine: &v1::EngineProgress) -> String {
    let (amount, unit): (fn(u64) -> String, _) = match engine.unit.as_str() {
        "bytes" => (bytes, String::new()),
        unit => (count, format!(" {unit}")),
    };
    let mut text = match engine.total {
        0 => format!("{}{unit}", amount(engine.done)),
        total => {
            let percent = engine.done.saturating_mul(100) / total;
            format!("{percent} %, {} of {}{unit}", amount(engine.done), amount(total))
        }
    };
    if engine.tokens > 0 {
        text.push_str(&format!(", {} tokens", count(engine.tokens)));
    }
    let mut speeds = Vec::new();
    if engine.per_second > 0.0 {
        speeds.push(format!("{}{unit}/s", amount(whole(engine.per_second))));
    }
    if engine.tokens_per_second > 0.0 {
        speeds.push(format!("{} tokens/s", count(whole(engine.tokens_per_second))));
    }
    if engine.text_bytes_per_second > 0.0 {
        speeds.push(format!("{} of text/s", bytes(whole(engine.text_bytes_per_second))));
    }
    if !speeds.is_empty() {
        text.push_str(&format!(" ({})", speeds.join(", ")));
    }
    text
}

/// `, 2 m 5 s left`, where that is known and not over.
pub(crate) fn left(engine: &v1::EngineProgress) -> String {
    let seconds = engine.seconds_left.filter(|seconds| *seconds > 0);
    seconds.map(|seconds| format!(", {} left", duration(seconds.saturating_mul(1000)))).unwrap_or_default()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rounded rate, which saturates")]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(stages: Vec<v1::StageView>) -> v1::JobView {
        v1::JobView { phase: "running".into(), stages, ..v1::JobView::default() }
    }

    fn stage(name: &str, phase: &str) -> v1::StageView {
        v1::StageView { name: name.into(), phase: phase.into(), tasks: 1, ..v1::StageView::default() }
    }

    fn training_at(iteration: u64) -> v1::StageView {
        let train = v1::TrainProgress { iteration, iterations: 20, loss: 2.5, ..v1::TrainProgress::default() };
        v1::StageView { train: Some(train), ..stage("train", "running") }
    }

    #[test]
    fn a_stage_is_said_to_start_and_end_once() {
        let mut lines = Lines::default();
        assert_eq!(lines.of(&job(vec![stage("a", "pending")]), 0), [""; 0]);
        let four = v1::StageView { tasks: 4, started_ms: 1000, ..stage("a", "running") };
        assert_eq!(lines.of(&job(vec![four.clone()]), 0), ["a: started, 4 tasks"]);
        assert_eq!(lines.of(&job(vec![four.clone()]), 60_000), [""; 0]);
        let over = v1::StageView { phase: "succeeded".into(), ended_ms: 13_000, ..four };
        assert_eq!(lines.of(&job(vec![over.clone()]), 60_000), ["a: finished in 12 s"]);
        assert_eq!(lines.of(&job(vec![over]), 60_000), [""; 0]);
    }

    #[test]
    fn beside_bars_only_endings_are_said() {
        let mut lines = Lines::endings_only();
        assert_eq!(lines.of(&job(vec![training_at(2)]), 0), [""; 0]);
        let over = v1::StageView { phase: "failed".into(), reason: "50 %, it said".into(), ..training_at(3) };
        assert_eq!(lines.of(&job(vec![over]), 1), ["train: failed after 0.0 s: 50 %, it said"]);
    }

    #[test]
    fn reused_stages_say_why() {
        let reused =
            v1::StageView { reused_from: "j7".into(), reason: "nothing\nchanged".into(), ..stage("a", "reused") };
        assert_eq!(Lines::default().of(&job(vec![reused.clone()]), 0), ["a: reused from j7: nothing\\nchanged"]);
        let same = v1::StageView { reason: "taken over from job j7".into(), ..reused };
        assert_eq!(Lines::default().of(&job(vec![same]), 0), ["a: reused: taken over from job j7"]);
    }

    #[test]
    fn losses_are_said_at_tenths_of_the_way_and_after_ten_seconds() {
        let mut lines = Lines::default();
        let mut at = |iteration, now| lines.of(&job(vec![training_at(iteration)]), now);
        assert_eq!(at(2, 0), ["train: started", "train: iteration 2/20, loss 2.5000"]);
        assert_eq!(at(3, 100), [""; 0]);
        assert_eq!(at(4, 200), ["train: iteration 4/20, loss 2.5000"]);
        assert_eq!(at(5, 10_100), [""; 0]);
        assert_eq!(at(5, 10_200), ["train: iteration 5/20, loss 2.5000"]);
        assert_eq!(at(5, 99_000), [""; 0]);
    }

    #[test]
    fn what_is_left_is_told_where_the_speed_is_known() {
        let at = |iteration, step_ms| v1::TrainProgress { iteration, iterations: 20, step_ms, ..Default::default() };
        assert_eq!(
            [remaining(&at(5, 200.0)), remaining(&at(5, 0.0)), remaining(&at(20, 200.0))],
            [Some(3000), None, None]
        );
        let stage = v1::StageView { train: Some(at(5, 200.0)), ..stage("train", "running") };
        let said = Lines::default().of(&job(vec![stage]), 0);
        assert_eq!(said[1], "train: iteration 5/20, 200 ms a step, 3.0 s left");
    }

    #[test]
    fn engines_are_heard_every_ten_seconds_if_they_move() {
        let mut lines = Lines::default();
        let progress =
            |done| Some(v1::EngineProgress { done, total: 4096, unit: "bytes".into(), ..Default::default() });
        let mut at =
            |done, now| lines.of(&job(vec![v1::StageView { progress: progress(done), ..stage("c", "running") }]), now);
        assert_eq!(at(1024, 0), ["c: started"]);
        assert_eq!(at(2048, 9_999), [""; 0]);
        assert_eq!(at(2048, 10_000), ["c: 50 %, 2.00 KiB of 4.00 KiB"]);
        assert_eq!(at(2048, 30_000), [""; 0]);
        let rows = v1::EngineProgress { done: 1, total: 2, unit: "rows".into(), tokens: 1500, ..Default::default() };
        assert_eq!(working(&rows), "50 %, 1 of 2 rows, 1.50 k tokens");
        let fast = v1::EngineProgress {
            per_second: 1234.0,
            tokens_per_second: 5e6,
            text_bytes_per_second: 3.0 * 1024.0 * 1024.0,
            seconds_left: Some(125),
            ..rows
        };
        let said = "50 %, 1 of 2 rows, 1.50 k tokens (1.23 k rows/s, 5.00 M tokens/s, 3.00 MiB of text/s)";
        assert_eq!([working(&fast), left(&fast)], [said, ", 2 m 5 s left"]);
        let bytes = v1::EngineProgress { done: 1024, unit: "bytes".into(), per_second: 2048.0, ..Default::default() };
        assert_eq!([working(&bytes), left(&bytes)], ["1.00 KiB (2.00 KiB/s)", ""]);
    }

    #[test]
    fn waiting_is_explained_once_for_each_reason() {
        let mut lines = Lines::default();
        let waiting = |reason: &str| v1::JobView { phase: "pending".into(), reason: reason.into(), ..job(vec![]) };
        assert_eq!(lines.of(&waiting("no node"), 0), ["waiting: no node"]);
        assert_eq!(lines.of(&waiting("no node"), 1), [""; 0]);
        assert_eq!(lines.of(&waiting("no slot"), 2), ["waiting: no slot"]);
    }
}
