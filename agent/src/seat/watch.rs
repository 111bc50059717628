//! A seat whose processes run.

use std::time::{Duration, Instant};

use proto::v1::{Failure, Started as StartedReport, Warning, progress, report};

use super::changes::Changes;
use super::failure;
use super::judge::{self, Death, Verdict as Blame};
use super::readers::{Heard, Readers};
use super::run::{End, Next, Order, Seat};
use super::{shimctl, sights};
use crate::shim::record::{self, Ended, Exit, Launch, Shim, Started};
use crate::watch::checkpoints::{Sighting, Watch};
use crate::watch::evidence;
use crate::watch::hang::{self, Hang, Look, Verdict};

/// Between SIGTERM and SIGKILL for ranks whose gang has failed: they wait in a
/// collective and have nothing to save.
const FAILURE_GRACE: Duration = Duration::from_secs(1);
/// How often logs are read.
const TICK: Duration = Duration::from_millis(200);
/// Ticks from one look at checkpoints to the next.
const CHECKPOINT_TICKS: u32 = 2;
/// Ticks from one look for ranks that do not move to the next.
const HANG_TICKS: u32 = 2;
/// How long a shim may take to appear.
const SHIM_LIMIT: Duration = Duration::from_secs(20);
/// How long a scheduler may outlive ranks that have all returned 0.
const SCHEDULER_LIMIT: Duration = Duration::from_secs(10);
/// How long a rank may outlive one that returned 0, without any sign of progress: less than its scheduler waits for the
/// one that left, so that the blame does not fall on the scheduler.
const EARLY_LIMIT: Duration = Duration::from_secs(20);
/// The same where this node logs the iterations, and the last one that it logged is not the last one to run.
const EARLY_LIMIT_KNOWN: Duration = Duration::from_millis(500);

pub(super) struct Watching<'a> {
    pub(super) seat: &'a mut Seat,
    pub(super) launch: Launch,
    pub(super) shim: Option<Shim>,
    pub(super) started: Option<Started>,
    pub(super) exits: Vec<Exit>,
    pub(super) failure: Option<Failure>,
    pub(super) readers: Readers,
    pub(super) checkpoints: Option<Watch>,
    pub(super) began: Instant,
    pub(super) ticks: u32,
    /// Grace of the stop that was last asked for, not yet passed to a shim.
    pub(super) stop: Option<Duration>,
    pub(super) stop_passed: Option<Duration>,
    /// When the processes of a dead shim are killed.
    pub(super) orphan_deadline: Option<Instant>,
    /// Since when some ranks have returned 0 and others have not moved.
    pub(super) early: Option<(Instant, u64)>,
    pub(super) hang: Hang,
    /// Since when a process is gone whose end nobody has told.
    pub(super) lost: Option<Instant>,
    pub(super) ranks_done: Option<Instant>,
    pub(super) look_again: Option<Duration>,
}

impl<'a> Watching<'a> {
    pub(super) fn new(seat: &'a mut Seat) -> Self {
        let readers = Readers::of(&seat.assignment, seat.dir.path());
        let checkpoints = sights::checkpoint_watch(seat);
        let runtime = seat.assignment.runtime.as_ref();
        let limit = runtime.and_then(|r| hang::limit(r.env.iter()).ok().flatten());
        let hang = Hang::new(limit);
        Self {
            seat,
            launch: Launch::default(),
            shim: None,
            started: None,
            exits: Vec::new(),
            failure: None,
            readers,
            checkpoints,
            began: Instant::now(),
            ticks: 0,
            stop: None,
            stop_passed: None,
            orphan_deadline: None,
            early: None,
            hang,
            lost: None,
            ranks_done: None,
            look_again: None,
        }
    }

    pub(super) async fn run(mut self) -> Next {
        match record::read(&self.seat.dir.path().join(record::LAUNCH)) {
            Ok(Some(launch)) => self.launch = launch,
            Ok(None) => return self.give_up("its launch file is gone"),
            Err(error) => return self.give_up(&format!("its launch file cannot be read: {error}")),
        }
        let mut changes = Changes::of(self.seat.dir.path());
        let mut tick = tokio::time::interval(TICK);
        // An earlier life may have ended between the launch file and the shim.
        let none_yet = !self.seat.dir.path().join(record::SHIM).exists();
        if none_yet && let Err(refusal) = shimctl::start(&self.seat.host.bin_dir, self.seat.dir.path()).await {
            return self.give_up(&refusal.message);
        }
        if self.seat.note.stopped {
            self.stop = Some(FAILURE_GRACE);
        }
        loop {
            if let Some(next) = self.turn().await {
                return next;
            }
            let again = self.look_again.take().unwrap_or(Duration::from_secs(3600));
            let order = tokio::select! {
                biased; // orders first: a loud seat must not delay a stop
                () = self.seat.agent_stop.cancelled() => return Next::Leave,
                order = self.seat.orders.recv() => order,
                () = changes.wait() => continue,
                () = tokio::time::sleep(again) => continue,
                _ = tick.tick() => {
                    self.tick().await;
                    continue;
                }
            };
            match order {
                None => return Next::Leave,
                Some(Order::Stop { grace }) => {
                    self.seat.note_stop();
                    self.stop = Some(grace);
                }
                // What is asked for runs; what runs is not forgotten.
                Some(Order::Assign(..) | Order::Forget) => {}
            }
        }
    }

    /// One look at what the shim has written.
    async fn turn(&mut self) -> Option<Next> {
        let dir = self.seat.dir.path().to_owned();
        if self.shim.is_none() {
            self.shim = record::read(&dir.join(record::SHIM)).ok().flatten();
        }
        if !self.all_started() {
            self.started = record::read(&dir.join(record::STARTED)).ok().flatten();
            if let (Some(started), Ok(nested)) = (&mut self.started, record::nested(&dir)) {
                started.children.extend(nested);
            }
            if self.all_started() && !self.seat.marks.contains("started") {
                self.seat.say("started", report::What::Started(StartedReport {})).await;
            }
        }
        self.pass_stop();
        // Before the exits, so that those are complete if it is there.
        let ended: Option<Ended> = record::read(&dir.join(record::ENDED)).ok().flatten();
        if let Ok(exits) = record::exits(&dir) {
            self.exits = exits;
        }
        self.judge().await;
        match ended {
            Some(ended) => Some(self.conclude(&ended).await),
            None => self.check_scheduler(),
        }
    }

    fn all_started(&self) -> bool {
        self.started.as_ref().is_some_and(|s| s.children.len() >= self.launch.processes.len())
    }

    fn pass_stop(&mut self) {
        let Some(grace) = self.stop else { return };
        if self.shim.is_none() {
            return;
        }
        self.stop = None;
        if self.stop_passed.is_some_and(|passed| passed <= grace) {
            return;
        }
        self.stop_passed = Some(grace);
        if let Err(error) = shimctl::stop(self.seat.dir.path(), self.shim.as_ref(), grace) {
            tracing::error!(attempt = %self.seat.name, %error, "a stop could not be written; stopping with the default grace");
        }
        if self.is_orphaned() {
            self.terminate_orphans(grace);
        }
    }

    /// Looks for the first failure and acts on it.
    pub(super) async fn judge(&mut self) {
        if self.failure.is_some() || self.launch.processes.len() < 2 {
            return;
        }
        let victims: Vec<bool> = self.exits.iter().map(|exit| self.is_victim(exit)).collect();
        // A scheduler may complain at the end of ranks that all did their work.
        let all_ranks_clean = self.ranks_clean();
        let deaths: Vec<Death<'_>> = self
            .exits
            .iter()
            .zip(&victims)
            .map(|(exit, is_victim)| Death { exit, is_rank: self.is_rank(exit.index), is_victim: *is_victim })
            .filter(|death| death.is_rank || !all_ranks_clean)
            .collect();
        match judge::first_failure(&deaths, Exit::at_present().mono_us) {
            Blame::Nothing => {}
            Blame::Unsure(micros) => self.look_again = Some(Duration::from_micros(micros)),
            Blame::First(index) => {
                if let Some(failure) = self.failure_of(index, &victims) {
                    self.fail(failure).await;
                }
            }
        }
    }

    /// Describes the failure of one process, or what made a victim of it.
    fn failure_of(&self, index: usize, victims: &[bool]) -> Option<Failure> {
        let at = self.exits.iter().position(|e| e.index == index)?;
        let exit = &self.exits[at];
        let node = &self.seat.host.node;
        // A victim's peer may have left with code 0 in the middle of the work.
        let left = self.exits.iter().find(|e| self.is_rank(e.index) && e.clean() && e.mono_us < exit.mono_us);
        if victims[at]
            && let (Some(left), Readers::Train(reader)) = (left, &self.readers)
            && !self.readers.proves_done()
        {
            let process = self.launch.processes.get(left.index)?;
            return Some(failure::stopped_short(node, process, left, reader.course.next()));
        }
        Some(failure::of_process(node, self.launch.processes.get(index)?, exit))
    }

    async fn fail(&mut self, failure: Failure) {
        self.failure = Some(failure.clone());
        if !self.seat.marks.contains("failed") {
            tracing::warn!(attempt = %self.seat.name, rank = ?failure.rank, "{}", failure.message);
            self.seat.say("failed", report::What::Failed(failure)).await;
        }
        self.stop = Some(self.stop.map_or(FAILURE_GRACE, |g| g.min(FAILURE_GRACE)));
        self.pass_stop();
    }

    pub(super) fn is_rank(&self, index: usize) -> bool {
        self.launch.processes.get(index).is_some_and(|p| p.rank.is_some())
    }

    fn is_victim(&self, exit: &Exit) -> bool {
        let process = self.launch.processes.get(exit.index);
        // A launcher that fails after one of its processes only repeats it.
        let nested = |e: &Exit| self.launch.processes.get(e.index).is_some_and(|p| p.nested);
        if !nested(exit) && self.exits.iter().any(|e| nested(e) && !e.clean() && e.mono_us < exit.mono_us) {
            return true;
        }
        !exit.clean() && process.is_some_and(|p| evidence::is_victims(&evidence::choose(&failure::last_lines(p))))
    }

    fn ranks_clean(&self) -> bool {
        let clean = |i: usize| self.exits.iter().any(|e| e.index == i && e.clean());
        (0..self.launch.processes.len()).filter(|i| self.is_rank(*i)).all(clean)
    }

    /// Ends a scheduler that stays behind when its ranks are done.
    fn check_scheduler(&mut self) -> Option<Next> {
        if self.ranks_clean() && self.exits.len() < self.launch.processes.len() {
            let since = *self.ranks_done.get_or_insert_with(Instant::now);
            if since.elapsed() > SCHEDULER_LIMIT {
                self.stop = Some(FAILURE_GRACE);
                self.pass_stop();
            }
        }
        if self.shim.is_none() && self.began.elapsed() > SHIM_LIMIT {
            return Some(self.give_up("its shim did not start"));
        }
        None
    }

    /// What is done a few times a second.
    async fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        self.listen().await;
        if self.ticks.is_multiple_of(CHECKPOINT_TICKS) {
            self.sight(false).await;
        }
        self.check_early().await;
        if self.ticks.is_multiple_of(HANG_TICKS) {
            self.check_hang().await;
        }
        if self.is_orphaned() {
            self.tend_orphans().await;
        } else {
            self.note_lost();
        }
    }

    pub(super) async fn listen(&mut self) {
        for heard in self.readers.turn() {
            match heard {
                Heard::Engine(p) => self.seat.host.progress.post(&self.seat.name, progress::What::Engine(p)),
                Heard::Train(p) => self.seat.host.progress.post(&self.seat.name, progress::What::Train(p)),
                Heard::Warning { key, message } => {
                    if !self.seat.marks.contains(&key) {
                        self.seat.say(&key, report::What::Warning(Warning { message })).await;
                    }
                }
            }
        }
    }

    async fn sight(&mut self, settled: bool) {
        let Some(watch) = &mut self.checkpoints else { return };
        for sighting in watch.look(settled) {
            let (mark, what) = match sighting {
                Sighting::Shard(s) => (format!("shard {} {} {}", s.iteration, s.tp, s.pp), report::What::Shard(s)),
                Sighting::Tracker(t) => (format!("tracker {}", t.iteration), report::What::Tracker(t)),
            };
            self.seat.say(&mark, what).await;
        }
    }

    /// A rank that returned 0 while the others wait for it in a collective.
    async fn check_early(&mut self) {
        let Readers::Train(reader) = &self.readers else { return };
        let left = self.exits.iter().find(|e| e.clean() && !e.stopping && self.is_rank(e.index)).cloned();
        let Some(left) = left.filter(|_| self.failure.is_none() && !self.ranks_clean()) else {
            self.early = None;
            return;
        };
        let (done, last, goal) = (reader.course.done, reader.course.last, reader.course.goal);
        let next = reader.course.next();
        let limit = if reader.course.stopped_short().is_some() { EARLY_LIMIT_KNOWN } else { EARLY_LIMIT };
        // Logs of any kind are a sign of life: a save at the end takes its time.
        let life = last + self.written();
        match self.early {
            Some((since, seen)) if seen == life => {
                if since.elapsed() > limit && !done && (goal == 0 || last < goal) {
                    let Some(process) = self.launch.processes.get(left.index) else { return };
                    let node = &self.seat.host.node;
                    self.fail(failure::stopped_short(node, process, &left, next)).await;
                }
            }
            _ => self.early = Some((Instant::now(), life)),
        }
    }

    /// Ranks that live and do not move.
    async fn check_hang(&mut self) {
        let Readers::Train(reader) = &self.readers else { return };
        if self.failure.is_some() || self.stop_passed.is_some() {
            return;
        }
        let living = |index: usize| self.is_rank(index) && self.exits.iter().all(|e| e.index != index);
        let children = self.started.iter().flat_map(|s| &s.children).filter(|c| living(c.index));
        let stopped = children.filter(|c| hang::is_stopped(c.id.pid));
        let stopped: Vec<u32> = stopped.filter_map(|c| self.launch.processes.get(c.index)?.rank).collect();
        let iteration = if reader.course.done { 0 } else { reader.course.last };
        let look = Look { now: Instant::now(), stopped: &stopped, iteration, written: self.written() };
        match self.hang.look(look) {
            Verdict::Moves => {}
            Verdict::Doubt(still) => {
                let key = format!("warning hang {:?}", still.rank);
                if !self.seat.marks.contains(&key) {
                    let message = format!("{}; {}", still.message, still.hint);
                    self.seat.say(&key, report::What::Warning(Warning { message })).await;
                }
            }
            Verdict::Hangs(still) => {
                let rank = still.rank.or(self.seat.assignment.world_size.checked_sub(1));
                let process = self.launch.processes.iter().find(|p| p.rank == rank);
                let lines = process.map(failure::last_lines).unwrap_or_default();
                let node = self.seat.host.node.clone();
                self.fail(failure::hangs(node, still, evidence::choose(&lines))).await;
            }
        }
    }

    /// Bytes in all logs of this seat.
    fn written(&self) -> u64 {
        self.launch.processes.iter().map(|p| file_size(&p.stdout)).sum()
    }

    /// All processes are gone: reads what is left to read, and sums up.
    async fn conclude(&mut self, ended: &Ended) -> Next {
        self.listen().await;
        self.sight(true).await;
        if self.failure.is_none() && self.launch.processes.len() > 1 {
            // Nobody will die any more, so a victim is as good as any.
            self.judge().await;
            if let Some(wait) = self.look_again.take() {
                tokio::time::sleep(wait).await;
                self.judge().await;
            }
        }
        let end = self.end(ended);
        Next::Finish(Box::new(end))
    }

    fn give_up(&mut self, why: &str) -> Next {
        let refusal = crate::refusal::Refusal::new(
            format!("the seat could not be started: {why}"),
            "look at `shim.log` in the attempt's directory on the node",
        );
        let failure = Some(failure::refused(&self.seat.host.node, &refusal));
        Next::Finish(Box::new(End { failure, ..End::default() }))
    }
}

fn file_size(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}
