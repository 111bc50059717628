//! A job's progress as bars, one for each stage.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use proto::v1;

use super::lines::{Lines, left, training, working};
use crate::text::one_line;

/// Bars of a job's stages on stderr.
#[derive(Debug)]
pub(crate) struct Bars {
    all: MultiProgress,
    running: BTreeMap<String, ProgressBar>,
    lines: Lines,
}

impl Bars {
    pub(super) fn new() -> Self {
        // indicatif draws to stderr and honours NO_COLOR.
        Self { all: MultiProgress::new(), running: BTreeMap::new(), lines: Lines::endings_only() }
    }

    pub(super) fn show(&mut self, job: &v1::JobView) {
        for stage in &job.stages {
            if stage.phase == "running" {
                let all = &self.all;
                let bar = self.running.entry(stage.name.clone()).or_insert_with(|| begin(all, &stage.name));
                advance(bar, stage);
            } else if let Some(bar) = self.running.remove(&stage.name) {
                bar.finish_and_clear();
            }
        }
        // Starts and progress are the bars'; ends stay on the screen as lines.
        let now = runtime::clock::now_ms();
        for line in self.lines.of(job, now) {
            self.tell(&line);
        }
    }

    pub(super) fn tell(&self, line: &str) {
        // A terminal that cannot be written to has nobody to be told.
        let _ = self.all.println(line);
    }

    pub(super) fn end(&mut self) {
        for bar in std::mem::take(&mut self.running).into_values() {
            bar.finish_and_clear();
        }
    }
}

fn begin(all: &MultiProgress, name: &str) -> ProgressBar {
    let look = style("{prefix} {spinner} {msg} {elapsed}");
    let bar = ProgressBar::hidden().with_style(look).with_prefix(format!("{:<12}", one_line(name)));
    let bar = all.add(bar);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn advance(bar: &ProgressBar, stage: &v1::StageView) {
    let (done, total, message) = match (&stage.train, &stage.progress) {
        (Some(train), _) => (train.iteration, train.iterations, training(train)),
        (None, Some(engine)) => (engine.done, engine.total, format!("{}{}", working(engine), left(engine))),
        (None, None) => (0, 0, one_line(&stage.reason)),
    };
    if total > 0 && bar.length() != Some(total) {
        // The controller's estimate knows of tasks that have yet to begin.
        let told = stage.train.is_none();
        bar.set_style(style(if told { "{prefix} [{bar:24}] {msg}" } else { "{prefix} [{bar:24}] {msg}, {eta} left" }));
        bar.set_length(total);
    }
    bar.set_position(done);
    bar.set_message(message);
}
