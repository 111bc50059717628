//! A growing log: lines, and what trainers and engines say in them of their progress.
//!
//! The first byte says where the file is cut between two looks at it.

use std::path::PathBuf;
use std::sync::LazyLock;

use agent::watch::engine::{self, Line};
use agent::watch::tail::Tail;
use agent::watch::trainlog;

static DIR: LazyLock<PathBuf> = LazyLock::new(|| crate::home("log_lines"));

/// Longest line in characters: 64 KiB of bytes.
const LONGEST: usize = 64 << 10;

pub(crate) fn run(bytes: &[u8]) {
    let Some((cut, text)) = bytes.split_first() else { return };
    let log = DIR.join("worker_0.log");
    let mut tail = Tail::new(&log);
    let mut seen = Vec::new();
    let mut look = |text: &[u8]| {
        crate::put(&log, Some(text));
        while tail.turn(|line| seen.push(line.to_owned())).unwrap_or_else(|error| panic!("{error}")) {}
    };
    let half = text.len() * usize::from(*cut) / 256;
    look(&text[..half]);
    look(text);
    tail.flush(|line| seen.push(line.to_owned()));
    let feeds = text.iter().filter(|byte| **byte == b'\n').count();
    assert!(seen.len() == feeds || seen.len() == feeds + 1, "{} lines of {feeds} line feeds", seen.len());
    for line in &seen {
        assert!(line.chars().count() <= LONGEST && !line.contains('\n'), "{line:?}");
        if let Some(step) = trainlog::parse(line) {
            assert!(step.step_ms.is_finite() && step.step_ms >= 0.0, "{step:?}");
            assert!(step.iteration.checked_add(step.iterations).is_some(), "{step:?}");
            crate::assert_printable(&trainlog::random_warning(step.loss, step.iteration));
            let _ = trainlog::looks_random(step.loss, step.iteration);
        }
        let _ = trainlog::is_done_mark(line);
        match engine::parse(line) {
            Some(Line::Progress(progress)) => crate::assert_printable(&progress.unit),
            Some(Line::Warning(message)) => crate::assert_printable(&message),
            Some(Line::Result(output)) => crate::assert_printable(&output.summary),
            Some(Line::Error { message, hint }) => {
                crate::assert_printable(&message);
                crate::assert_printable(&hint);
            }
            None => {}
        }
    }
}
