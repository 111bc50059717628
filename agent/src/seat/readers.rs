//! What a seat's processes say in their logs while they run.

use std::path::Path;

use proto::v1::{Assignment, EngineProgress, Output, TrainProgress, assignment::Body};

use super::judge::Course;
use crate::launch::{log_path, rank_log};
use crate::watch::engine::{self, Line};
use crate::watch::tail::Tail;
use crate::watch::trainlog;

/// Something worth passing on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    /// How far an engine is.
    Engine(EngineProgress),
    /// How far the training is.
    Train(TrainProgress),
    /// Something looks wrong. The key keeps it from being told twice.
    Warning {
        /// The same for the same warning.
        key: String,
        /// One sentence.
        message: String,
    },
}

/// Reads the logs that matter for a seat's kind of work.
#[derive(Debug)]
pub(super) enum Readers {
    /// An engine's stdout.
    Engine(EngineReader),
    /// Logs of the first and the last rank.
    Train(TrainReader),
    /// Nobody knows what a free command prints.
    Silent,
}

/// Reads an engine.
#[derive(Debug)]
pub(super) struct EngineReader {
    tail: Tail,
    warnings: usize,
    /// What it made.
    pub(super) result: Option<Output>,
    /// Why it gave up, and what to try.
    pub(super) error: Option<(String, String)>,
}

/// Reads a trainer.
#[derive(Debug)]
pub(super) struct TrainReader {
    tails: Vec<Tail>,
    vocab_size: u64,
    first_seen: bool,
    /// How far it came.
    pub(super) course: Course,
    /// The last logged step.
    pub(super) last: Option<TrainProgress>,
}

impl Readers {
    /// The readers of a seat whose logs lie in `seat_dir`.
    #[must_use]
    pub(super) fn of(assignment: &Assignment, seat_dir: &Path) -> Self {
        match &assignment.body {
            Some(Body::Engine(_)) => Self::Engine(EngineReader {
                tail: Tail::new(&log_path(seat_dir, "stdout")),
                warnings: 0,
                result: None,
                error: None,
            }),
            Some(Body::Train(body)) => {
                let here = assignment.first_rank..assignment.first_rank.saturating_add(assignment.ranks);
                // Rank 0 says when all is done, the last rank logs the iterations.
                let mut ranks = vec![assignment.world_size.saturating_sub(1)];
                if ranks[0] != 0 {
                    ranks.push(0);
                }
                let tails = ranks.into_iter().filter(|r| here.contains(r));
                Self::Train(TrainReader {
                    tails: tails.map(|r| Tail::new(&log_path(seat_dir, &rank_log(r)))).collect(),
                    vocab_size: body.vocab_size,
                    first_seen: false,
                    course: Course { goal: body.train_iters, ..Course::default() },
                    last: None,
                })
            }
            Some(Body::Run(_) | Body::Preflight(_)) | None => Self::Silent,
        }
    }

    /// Reads what was added since the last turn.
    pub(super) fn turn(&mut self) -> Vec<Heard> {
        match self {
            Self::Engine(reader) => reader.turn(),
            Self::Train(reader) => reader.turn(),
            Self::Silent => Vec::new(),
        }
    }

    /// Whether the logs prove that the work was done.
    #[must_use]
    pub(super) fn proves_done(&self) -> bool {
        match self {
            Self::Engine(reader) => reader.result.is_some(),
            Self::Train(reader) => {
                let course = &reader.course;
                course.done || (course.goal > 0 && course.last >= course.goal)
            }
            Self::Silent => false,
        }
    }
}

impl EngineReader {
    fn turn(&mut self) -> Vec<Heard> {
        let mut lines = Vec::new();
        read(&mut self.tail, |line| lines.extend(engine::parse(line)));
        let mut heard = Vec::new();
        let mut newest = None;
        for line in lines {
            match line {
                Line::Progress(progress) => newest = Some(progress),
                Line::Warning(message) => {
                    self.warnings += 1;
                    heard.push(Heard::Warning { key: format!("warning {}", self.warnings), message });
                }
                Line::Result(output) => self.result = Some(output),
                Line::Error { message, hint } => self.error = Some((message, hint)),
            }
        }
        heard.extend(newest.map(Heard::Engine));
        heard
    }
}

impl TrainReader {
    fn turn(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut newest = None;
        for tail in &mut self.tails {
            let (course, first_seen, vocab) = (&mut self.course, &mut self.first_seen, self.vocab_size);
            read(tail, |line| {
                course.done |= trainlog::is_done_mark(line);
                let Some(step) = trainlog::parse(line) else { return };
                course.reached(step.iteration);
                // Where the file does not tell, the trainer does.
                course.goal = if course.goal == 0 { step.iterations } else { course.goal };
                if !*first_seen && step.loss != 0.0 {
                    *first_seen = true;
                    if trainlog::looks_random(step.loss, vocab) {
                        let message = trainlog::random_warning(step.loss, vocab);
                        heard.push(Heard::Warning { key: "warning random".into(), message });
                    }
                }
                newest = Some(step);
            });
        }
        if let Some(step) = newest {
            self.last = Some(step);
            heard.push(Heard::Train(step));
        }
        heard
    }
}

fn read(tail: &mut Tail, mut line: impl FnMut(&str)) {
    loop {
        match tail.turn(&mut line) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "a log cannot be read");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use proto::v1::{EngineBody, TrainBody};

    #[test]
    fn an_engine_is_heard_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("logs")).unwrap();
        let assignment = Assignment { body: Some(Body::Engine(EngineBody::default())), ..Assignment::default() };
        let mut readers = Readers::of(&assignment, dir.path());
        assert!(readers.turn().is_empty());
        let log = log_path(dir.path(), "stdout");
        fs::write(&log, "{\"type\":\"progress\",\"done\":1,\"total\":2}\n{\"type\":\"progress\",\"done\":2,\"total\":2}\n{\"type\":\"warning\",\"message\":\"w\"}\n{\"type\":\"result\",\"files\":[]}\n").unwrap();
        let heard = readers.turn();
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(matches!(&heard[1], Heard::Engine(p) if p.done == 2));
        assert!(readers.turn().is_empty() && readers.proves_done());
    }

    #[test]
    fn what_the_file_does_not_tell_of_the_goal_the_log_does() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("logs")).unwrap();
        let assignment = Assignment {
            ranks: 1,
            world_size: 1,
            body: Some(Body::Train(TrainBody::default())),
            ..Assignment::default()
        };
        let mut readers = Readers::of(&assignment, dir.path());
        fs::write(log_path(dir.path(), "worker_0"), " iteration 1/ 3 | lm loss: 6.9E+00 |\n").unwrap();
        let _ = readers.turn();
        assert!(matches!(&readers, Readers::Train(reader) if reader.course.stopped_short() == Some(2)), "{readers:?}");
    }

    #[test]
    fn a_first_loss_like_random_weights_is_warned_of_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("logs")).unwrap();
        let body = TrainBody { train_iters: 3, vocab_size: 1000, ..TrainBody::default() };
        let assignment = Assignment { ranks: 2, world_size: 2, body: Some(Body::Train(body)), ..Assignment::default() };
        let mut readers = Readers::of(&assignment, dir.path());
        let log = log_path(dir.path(), "worker_1");
        fs::write(&log, " iteration 1/ 3 | lm loss: 6.9E+00 |\n iteration 2/ 3 | lm loss: 6.8E+00 |\n").unwrap();
        let heard = readers.turn();
        assert!(matches!(&heard[..], [Heard::Warning { .. }, Heard::Train(step)] if step.iteration == 2), "{heard:?}");
        assert!(!readers.proves_done());
        fs::write(log_path(dir.path(), "worker_0"), "[after training is done] datetime: x\n").unwrap();
        assert!(readers.turn().is_empty() && readers.proves_done());
    }
}
