//! The seat's task: from one phase to the next.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use proto::v1::{Assignment, Ended, Failure, Output, Prepared, Warning, assignment::Body, report};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::dir::{Note, SeatDir, Wanted};
use super::watch::Watching;
use super::{failure, prepare, shimctl};
use crate::host::Host;
use crate::launch::{self, Ingredients, absolute, ports::Reserved};
use crate::preflight;
use crate::refusal::Refusal;
use crate::shim::{proc, record};
use crate::watch::checkpoints;

/// The seat's last word, kept until it is forgotten.
const RESULT: &str = "result.pb";
/// How often a forgotten seat looks whether its logs are pushed.
const PUSH_POLL: Duration = Duration::from_millis(500);

/// What the controller wants of a seat.
#[derive(Debug)]
pub enum Order {
    /// Prepare or start.
    Assign(Wanted, Box<Assignment>),
    /// Stop and confirm.
    Stop {
        /// Between SIGTERM and SIGKILL.
        grace: Duration,
    },
    /// Its results are saved: remove what is left of it.
    Forget,
}

/// How a seat's work ended.
#[derive(Debug, Default)]
pub(super) struct End {
    pub(super) ok: bool,
    pub(super) output: Output,
    pub(super) failure: Option<Failure>,
}

/// Where a seat goes next.
#[derive(Debug)]
pub(super) enum Next {
    /// Waits for orders, nothing of it runs.
    Idle,
    /// Checks what it needs.
    Prepare,
    /// Starts its processes.
    Start,
    /// Watches its processes.
    Watch,
    /// Says how it ended.
    Finish(Box<End>),
    /// Has ended, waits to be forgotten.
    Over,
    /// Is forgotten, waits for its logs to be pushed.
    Forgotten,
    /// The agent ends; the seat goes on without it.
    Leave,
}

/// One seat of an attempt.
#[derive(Debug)]
pub struct Seat {
    pub(super) host: Arc<Host>,
    pub(super) dir: SeatDir,
    pub(super) name: String,
    pub(super) note: Note,
    pub(super) marks: BTreeSet<String>,
    pub(super) assignment: Assignment,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) agent_stop: CancellationToken,
    reserved: Option<Reserved>,
}

impl Seat {
    /// Takes a new seat, or one that an earlier life of this agent had.
    ///
    /// # Errors
    ///
    /// Whatever the file system says about its directory.
    pub fn open(
        host: Arc<Host>,
        dir: SeatDir,
        orders: mpsc::UnboundedReceiver<Order>,
        agent_stop: CancellationToken,
    ) -> io::Result<Self> {
        dir.create()?;
        let mut note = dir.note()?;
        if note.boot_id.is_empty() {
            note.boot_id = proc::boot_id();
            dir.save_note(&note)?;
        }
        let name = dir.attempt().to_string();
        let assignment = dir.assignment()?.unwrap_or_default();
        host.logs.add(&name, dir.path());
        let marks = dir.marks();
        Ok(Self { host, dir, name, note, marks, assignment, orders, agent_stop, reserved: None })
    }

    /// Runs until the seat is forgotten and its logs are pushed, or the agent ends.
    pub async fn run(mut self) {
        let mut next = self.resume();
        loop {
            tracing::debug!(attempt = %self.name, ?next, "seat");
            next = match next {
                Next::Idle => self.idle().await,
                Next::Prepare => self.prepare().await,
                Next::Start => self.start().await,
                Next::Watch => Watching::new(&mut self).run().await,
                Next::Finish(end) => self.finish(*end).await,
                Next::Over => self.over().await,
                Next::Forgotten => return self.linger().await,
                Next::Leave => return,
            };
        }
    }

    /// Where an earlier life left the seat.
    fn resume(&mut self) -> Next {
        let has = |name: &str| self.dir.path().join(name).exists();
        if self.note.forgotten {
            return Next::Forgotten;
        }
        if has(RESULT) {
            return Next::Over;
        }
        let rebooted = self.note.boot_id != proc::boot_id();
        if rebooted && !has(record::ENDED) && self.note.wanted != Wanted::Nothing {
            return Next::Finish(Box::new(End { failure: Some(failure::rebooted(&self.host.node)), ..End::default() }));
        }
        if has(record::LAUNCH) {
            return Next::Watch;
        }
        match self.note.wanted {
            Wanted::Nothing => Next::Idle,
            Wanted::Prepare if self.marks.contains("prepared") => Next::Idle,
            Wanted::Prepare => Next::Prepare,
            Wanted::Start => Next::Start,
        }
    }

    async fn idle(&mut self) -> Next {
        loop {
            let order = tokio::select! {
                biased; // the agent's end wins: what is ordered now is ordered again in the next life
                () = self.agent_stop.cancelled() => return Next::Leave,
                order = self.orders.recv() => order,
            };
            match order {
                None => return Next::Leave,
                Some(Order::Assign(wanted, assignment)) => {
                    if let Some(next) = self.assigned(wanted, *assignment).await {
                        return next;
                    }
                }
                Some(Order::Stop { .. }) => return self.stop_unstarted(),
                Some(Order::Forget) => {}
            }
        }
    }

    async fn assigned(&mut self, wanted: Wanted, assignment: Assignment) -> Option<Next> {
        if wanted == Wanted::Prepare && self.marks.contains("prepared") {
            if !self.host.spool.holds(&self.name) {
                self.say_prepared().await;
            }
            return None;
        }
        self.assignment = assignment;
        self.note.wanted = wanted;
        let saved = self.dir.save_assignment(&self.assignment).and_then(|()| self.dir.save_note(&self.note));
        if let Err(error) = saved {
            return Some(self.refuse(&disk(&error)).await);
        }
        Some(if wanted == Wanted::Start { Next::Start } else { Next::Prepare })
    }

    fn stop_unstarted(&mut self) -> Next {
        self.note_stop();
        Next::Finish(Box::default())
    }

    /// Remembers that the controller wants the seat to end.
    pub(super) fn note_stop(&mut self) {
        if !self.note.stopped {
            self.note.stopped = true;
            if let Err(error) = self.dir.save_note(&self.note) {
                tracing::warn!(attempt = %self.name, %error, "a stop could not be noted");
            }
        }
    }

    async fn prepare(&mut self) -> Next {
        let host = Arc::clone(&self.host);
        let assignment = self.assignment.clone();
        let dir = self.dir.path().to_owned();
        let checks = prepare::prepare(&host, &assignment, &dir);
        tokio::pin!(checks);
        let mut start = None;
        let outcome = loop {
            let order = tokio::select! {
                biased; // an order first: a stop must not wait for a slow check
                () = self.agent_stop.cancelled() => return Next::Leave,
                order = self.orders.recv() => order,
                outcome = &mut checks => break outcome,
            };
            match order {
                None => return Next::Leave,
                Some(Order::Stop { .. }) => return self.stop_unstarted(),
                Some(Order::Assign(Wanted::Start, assignment)) => start = Some(assignment),
                Some(Order::Assign(..) | Order::Forget) => {}
            }
        };
        match outcome {
            Ok(reserved) => {
                self.reserved = reserved;
                self.say_prepared().await;
            }
            Err(refusal) => return self.refuse(&refusal).await,
        }
        match start {
            Some(assignment) => self.assigned(Wanted::Start, *assignment).await.unwrap_or(Next::Idle),
            None => Next::Idle,
        }
    }

    async fn say_prepared(&mut self) {
        let port = self.reserved.as_ref().map_or(0, |r| u32::from(r.port()));
        self.say("prepared", report::What::Prepared(Prepared { port })).await;
    }

    async fn start(&mut self) -> Next {
        if let Some(Body::Preflight(body)) = self.assignment.body.clone() {
            return self.preflight(&body).await;
        }
        if self.note.started_ms == 0 {
            self.note.started_ms = runtime::clock::now_ms();
        }
        if let Err(error) = self.dir.save_note(&self.note) {
            return self.refuse(&disk(&error)).await;
        }
        match self.launch().await {
            Ok(()) => Next::Watch,
            Err(refusal) => self.refuse(&refusal).await,
        }
    }

    /// Writes the launch file: from here on the seat counts as started.
    async fn launch(&mut self) -> Result<(), Refusal> {
        let runtime = self.assignment.runtime.clone().unwrap_or_default();
        let environment = launch::gather(&runtime).await?;
        let from = Ingredients {
            assignment: &self.assignment,
            seat_dir: self.dir.path(),
            bin_dir: &self.host.bin_dir,
            environment: &environment,
        };
        let launch = launch::build(&from)?;
        if let Some(Body::Train(body)) = &self.assignment.body
            && self.assignment.number > 1
            && self.assignment.seat == 0
            && !body.save_dir.is_empty()
        {
            let save_dir = absolute(&from.workdir()?, &body.save_dir);
            if let Some(message) = self.set_aside(&save_dir)? {
                self.say("superseded", report::What::Warning(Warning { message })).await;
            }
        }
        record::write(&self.dir.path().join(record::LAUNCH), &launch).map_err(|error| disk(&error))?;
        if let Some(reserved) = self.reserved.take() {
            reserved.release();
        }
        shimctl::start(&self.host.bin_dir, self.dir.path()).await
    }

    /// Moves iterations away that the attempt does not go on from; says which.
    fn set_aside(&self, save_dir: &std::path::Path) -> Result<Option<String>, Refusal> {
        let keep = self.assignment.resume_iteration.or_else(|| checkpoints::read_tracker(save_dir)).unwrap_or(0);
        let moved = checkpoints::set_aside(save_dir, keep, &self.name).map_err(|error| {
            Refusal::new(
                format!("superseded iterations in `{}` could not be moved aside: {error}", save_dir.display()),
                "move the iterations newer than the tracker's away by hand",
            )
        })?;
        if moved.is_empty() {
            return Ok(None);
        }
        tracing::info!(attempt = %self.name, ?moved, "superseded iterations were moved aside");
        let passed_over: Vec<String> = moved.iter().map(u64::to_string).collect();
        let from = match self.assignment.resume_iteration {
            Some(iteration) => format!("goes on from iteration {iteration}"),
            None => "begins afresh".to_owned(),
        };
        Ok(Some(format!(
            "what lay in `{}` of iteration {} is incomplete or superseded and was moved to `superseded` there: \
             this attempt {from}",
            save_dir.display(),
            passed_over.join(", ")
        )))
    }

    async fn preflight(&mut self, body: &proto::v1::PreflightBody) -> Next {
        let log = launch::log_path(self.dir.path(), "preflight");
        self.say("started", report::What::Started(proto::v1::Started {})).await;
        let host = Arc::clone(&self.host);
        let (assignment, name) = (self.assignment.clone(), self.name.clone());
        let checks = preflight::run(&host, &name, &assignment, body, &log);
        tokio::pin!(checks);
        loop {
            let order = tokio::select! {
                biased; // an order first: a stop must not wait for a slow check
                () = self.agent_stop.cancelled() => return Next::Leave,
                order = self.orders.recv() => order,
                outcome = &mut checks => return Next::Finish(Box::new(match outcome {
                    Ok(summary) => End { ok: true, output: Output { summary, ..Output::default() }, failure: None },
                    Err(failure) => End { failure: Some(*failure), ..End::default() },
                })),
            };
            match order {
                None => return Next::Leave,
                Some(Order::Stop { .. }) => return self.stop_unstarted(),
                Some(Order::Assign(..) | Order::Forget) => {}
            }
        }
    }

    /// Says that the seat cannot run. A gang is told at once: others wait for it.
    async fn refuse(&mut self, refusal: &Refusal) -> Next {
        let failure = failure::refused(&self.host.node, refusal);
        if self.assignment.nodes > 1 || self.assignment.world_size > 1 {
            self.say("failed", report::What::Failed(failure.clone())).await;
        }
        Next::Finish(Box::new(End { failure: Some(failure), ..End::default() }))
    }

    async fn finish(&mut self, end: End) -> Next {
        self.reserved = None;
        // After a stop that was asked for, an unfinished seat is no failure.
        let logs = self.host.logs.ends(&self.name);
        let ended = Ended { ok: end.ok, output: Some(end.output), failure: end.failure, logs, ran_ms: None };
        let path = self.dir.path().join(RESULT);
        while let Err(error) = runtime::files::write_durably(&path, &ended.encode_to_vec()) {
            tracing::error!(attempt = %self.name, %error, "a result cannot be saved; trying again");
            tokio::select! {
                () = self.agent_stop.cancelled() => return Next::Leave,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
        Next::Over
    }

    async fn over(&mut self) -> Next {
        self.host.logs.end(&self.name);
        if !self.marks.contains("ended") {
            self.say_ended().await;
        }
        loop {
            let order = tokio::select! {
                biased; // the agent's end wins: what is ordered now is ordered again in the next life
                () = self.agent_stop.cancelled() => return Next::Leave,
                order = self.orders.recv() => order,
            };
            match order {
                None => return Next::Leave,
                Some(Order::Forget) => return self.forget(),
                Some(Order::Stop { .. } | Order::Assign(..)) => {
                    if !self.host.spool.holds_end(&self.name) {
                        self.say_ended().await;
                    }
                }
            }
        }
    }

    async fn say_ended(&mut self) {
        let bytes = std::fs::read(self.dir.path().join(RESULT)).unwrap_or_default();
        let ended = Ended::decode(bytes.as_slice()).unwrap_or_else(|_| Ended {
            failure: Some(failure::refused(
                &self.host.node,
                &Refusal::new("the seat's result was damaged on disk", "check this node's disk"),
            )),
            ..Ended::default()
        });
        self.say("ended", report::What::Ended(ended)).await;
    }

    fn forget(&mut self) -> Next {
        self.note.forgotten = true;
        if let Err(error) = self.dir.save_note(&self.note) {
            tracing::warn!(attempt = %self.name, %error, "a forgotten seat could not be noted");
            return Next::Over;
        }
        Next::Forgotten
    }

    /// Keeps the logs until the controller has them.
    async fn linger(mut self) {
        self.orders.close();
        let _ = std::fs::remove_file(self.dir.path().join(RESULT));
        self.dir.clear_control();
        self.host.logs.end(&self.name);
        while !self.host.logs.is_pushed(&self.name) {
            tokio::select! {
                biased; // the agent's end wins: the next life goes on pushing
                () = self.agent_stop.cancelled() => return,
                () = tokio::time::sleep(PUSH_POLL) => {}
            }
        }
        self.host.logs.remove(&self.name);
        if let Err(error) = self.dir.remove() {
            tracing::warn!(attempt = %self.name, %error, "a forgotten seat's directory could not be removed");
        }
    }

    /// Puts a report into the spool and remembers that it is there.
    pub(super) async fn say(&mut self, mark: &str, what: report::What) {
        if self.host.spool.add(&self.name, what).await.is_none() {
            // Only when the agent ends: the next life says it.
            return;
        }
        self.marks.insert(mark.to_owned());
        if let Err(error) = self.dir.mark(mark) {
            tracing::warn!(attempt = %self.name, %error, "a report could not be marked as spooled");
        }
    }
}

fn disk(error: &io::Error) -> Refusal {
    Refusal::new(
        format!("the agent's state directory cannot be written: {error}"),
        "check space and permissions of `--state-dir` on this node",
    )
}
