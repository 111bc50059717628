//! How a seat ended, once all its processes are gone.

use std::path::Path;

use proto::v1::{Failure, Output, assignment::Body};

use super::failure;
use super::readers::Readers;
use super::run::{End, Seat};
use super::watch::Watching;
use crate::launch::absolute;
use crate::refusal::Refusal;
use crate::shim::record::{Ended, Process};

impl Watching<'_> {
    /// Sums up what the shim and the logs say.
    pub(super) fn end(&mut self, ended: &Ended) -> End {
        let failed = |failure| End { failure: Some(failure), ..End::default() };
        if let Some(failure) = self.failure.take() {
            return failed(failure);
        }
        if let Some(error) = &ended.error {
            let refusal = Refusal::new(
                format!("the shim gave up: {error}"),
                "look at `shim.log` in the attempt's directory on the node",
            );
            return failed(failure::refused(&self.seat.host.node, &refusal));
        }
        let unclean = self.launch.processes.iter().enumerate().filter(|(i, p)| p.rank.is_some() && !self.clean(*i));
        let unclean: Vec<(usize, Process)> = unclean.map(|(i, p)| (i, p.clone())).collect();
        let stopped = self.seat.note.stopped;
        if let Some((index, process)) = unclean.first() {
            if stopped {
                // Those that waited for it on other nodes may have been heard first.
                return self.early_leaver().map_or_else(End::default, failed);
            }
            let exit = self.exits.iter().find(|e| e.index == *index).cloned().unwrap_or_default();
            let mut failure = failure::of_process(&self.seat.host.node, process, &exit);
            if let Readers::Engine(reader) = &mut self.readers
                && let Some((message, hint)) = reader.error.take()
            {
                failure.message = message;
                failure.hint = hint;
            }
            return failed(failure);
        }
        self.end_of_clean(stopped)
    }

    /// A rank that returned 0 by itself although the work was not done.
    fn early_leaver(&self) -> Option<Failure> {
        let Readers::Train(reader) = &self.readers else { return None };
        let left = self.exits.iter().find(|e| e.clean() && !e.stopping && self.is_rank(e.index))?;
        let process = self.launch.processes.get(left.index).filter(|_| !self.readers.proves_done())?;
        Some(failure::stopped_short(&self.seat.host.node, process, left, reader.course.next()))
    }

    fn clean(&self, index: usize) -> bool {
        self.exits.iter().any(|e| e.index == index && e.clean())
    }

    /// Every rank has returned 0: whether they had done their work.
    fn end_of_clean(&mut self, stopped: bool) -> End {
        let node = &self.seat.host.node;
        // Ranks that left because they were told to may be far from done, and
        // only the last rank's node can tell.
        let told = stopped && self.exits.iter().any(|e| e.stopping && self.is_rank(e.index));
        let short = told && !self.readers.proves_done();
        match &mut self.readers {
            Readers::Engine(reader) => match reader.result.take() {
                Some(mut output) => {
                    if output.path.is_empty() {
                        output.path = out_path(self.seat);
                    }
                    End { ok: true, output, failure: None }
                }
                None if stopped => End::default(),
                None => {
                    let process = self.launch.processes.first().cloned();
                    let exit = self.exits.first().cloned().unwrap_or_default();
                    let mut failure = process.map(|p| failure::of_process(node, &p, &exit)).unwrap_or_default();
                    failure.message = "the engine ended without a result".into();
                    failure.hint = "is the installed engine of the agent's version?".into();
                    End { failure: Some(failure), ..End::default() }
                }
            },
            Readers::Train(reader) => {
                let summary = reader
                    .last
                    .map(|s| format!("iteration {} of {}, lm loss {:.4}", s.iteration, s.iterations, s.loss));
                let output = Output { summary: summary.unwrap_or_default(), ..Output::default() };
                match reader.course.stopped_short() {
                    None if !short => End { ok: true, output, failure: None },
                    None => End { output, ..End::default() },
                    Some(_) if stopped => End { output, ..End::default() },
                    Some(iteration) => {
                        let last = self.launch.processes.iter().rposition(|p| p.rank.is_some()).unwrap_or_default();
                        let exit = self.exits.iter().find(|e| e.index == last).cloned().unwrap_or_default();
                        let failure = self
                            .launch
                            .processes
                            .get(last)
                            .map(|p| failure::stopped_short(node, p, &exit, Some(iteration)));
                        End { ok: false, output, failure }
                    }
                }
            }
            Readers::Silent => End { ok: !short, ..End::default() },
        }
    }
}

/// The attempt-named path that an engine was given.
fn out_path(seat: &Seat) -> String {
    match &seat.assignment.body {
        Some(Body::Engine(body)) if !body.out_prefix.is_empty() => {
            let workdir = seat.assignment.runtime.as_ref().map(|r| r.workdir.clone()).unwrap_or_default();
            let path = format!("{}.{}", body.out_prefix, seat.name);
            absolute(Path::new(&workdir), &path).to_string_lossy().into_owned()
        }
        Some(_) | None => String::new(),
    }
}
