//! No fault: MindSpore itself over hosts with addresses of their own, by each launcher.

use std::process::Command;
use std::time::{Duration, Instant};

use stories::job::iterations;
use stories::program::{mindspore_python, run, workspace};

use crate::rounds::Turn;
use crate::site::{LONG, Site};

/// Iterations of the run; a converted checkpoint is the first.
const ITERATIONS: u64 = 4;

pub(crate) fn by_ranks(turn: &mut Turn) {
    trains(turn, "ranks");
}

pub(crate) fn by_msrun(turn: &mut Turn) {
    trains(turn, "msrun");
}

fn trains(turn: &mut Turn, launcher: &str) {
    let Some(python) = mindspore_python() else {
        turn.note("skipped: QCTL_TEST_PYTHON names no interpreter with mindspore");
        return;
    };
    let site = Site::alone(2);
    let work = site.lab.work();
    let make = workspace().join("examples/quickstart/make_input.py");
    let _ = run(Command::new(&python).arg(make).arg(&work), Duration::from_secs(180)).ok();
    let file = workspace().join("examples/quickstart/pipeline.yaml").to_string_lossy().into_owned();
    let values = [
        format!("workdir={}", work.display()),
        format!("runtime.python={python}"),
        format!("stages.train.script={}", workspace().join("examples/trainer/pretrain_gpt.py").display()),
        format!("stages.train.launcher={launcher}"),
        format!("stages.train.train_iters={ITERATIONS}"),
        "stages.train.save_interval=2".to_owned(),
    ];
    let mut words = vec!["submit", "-f", &file, "-o", "name"];
    words.extend(values.iter().flat_map(|value| ["--set", value]));
    let begun = Instant::now();
    let job = site.lab.qctl_for(LONG, words).ok().trim().to_owned();
    site.lab.succeeds(&job, Duration::from_secs(600));
    turn.measured("the whole pipeline", begun.elapsed(), Duration::from_secs(300));
    let log = site.lab.log(&job, "train", 3);
    assert_eq!(iterations(&log), (2..=ITERATIONS).collect::<Vec<_>>());
    assert!(site.lab.work_processes().is_empty());
}
