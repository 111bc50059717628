//! A seat whose processes run.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use model::Parallel;
use proto::v1::{Failure, Output, Started as StartedReport, Warning, assignment::Body, progress, report};
use rustix::time::{ClockId, clock_gettime};

use super::changes::Changes;
use super::failure;
use super::judge::{self, Death, Verdict};
use super::readers::{Heard, Readers};
use super::run::{End, Next, Order, Seat};
use super::shimctl;
use crate::launch::absolute;
use crate::shim::proc;
use crate::shim::record::{self, Child, Ended, Exit, Launch, Process, Shim, Started};
use crate::watch::checkpoints::{Scope, Sighting, Watch};
use crate::watch::evidence;

/// Between SIGTERM and SIGKILL for ranks whose gang has failed: they wait in a
/// collective and have nothing to save.
const FAILURE_GRACE: Duration = Duration::from_secs(1);
/// How often logs are read.
const TICK: Duration = Duration::from_millis(200);
/// Ticks from one look at checkpoints to the next.
const CHECKPOINT_TICKS: u32 = 2;
/// How long a shim may take to appear.
const SHIM_LIMIT: Duration = Duration::from_secs(20);
/// How long a scheduler may outlive ranks that have all returned 0.
const SCHEDULER_LIMIT: Duration = Duration::from_secs(10);
/// How long a rank may outlive one that returned 0, without any sign of progress.
const EARLY_LIMIT: Duration = Duration::from_secs(30);
/// How long the remains of a seat without a shim are hunted.
const ORPHAN_LIMIT: Duration = Duration::from_secs(10);

pub(super) struct Watching<'a> {
    seat: &'a mut Seat,
    launch: Launch,
    shim: Option<Shim>,
    started: Option<Started>,
    exits: Vec<Exit>,
    failure: Option<Failure>,
    readers: Readers,
    checkpoints: Option<Watch>,
    began: Instant,
    ticks: u32,
    /// Grace of the stop that was last asked for, not yet passed to a shim.
    stop: Option<Duration>,
    stop_passed: Option<Duration>,
    /// When the processes of a dead shim are killed.
    orphan_deadline: Option<Instant>,
    /// Since when some ranks have returned 0 and others have not moved.
    early: Option<(Instant, u64)>,
    ranks_done: Option<Instant>,
    look_again: Option<Duration>,
}

impl<'a> Watching<'a> {
    pub(super) fn new(seat: &'a mut Seat) -> Self {
        let readers = Readers::of(&seat.assignment, seat.dir.path());
        let checkpoints = checkpoint_watch(seat);
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
        if self.started.is_none() {
            self.started = record::read(&dir.join(record::STARTED)).ok().flatten();
            let whole = self.started.as_ref().is_some_and(|s| s.children.len() == self.launch.processes.len());
            if whole && !self.seat.marks.contains("started") {
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
            shimctl::terminate_orphans(&self.children());
            self.orphan_deadline = Some(Instant::now() + grace);
        }
    }

    /// Looks for the first failure and acts on it.
    async fn judge(&mut self) {
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
        match judge::first_failure(&deaths, now_us()) {
            Verdict::Nothing => {}
            Verdict::Unsure(micros) => self.look_again = Some(Duration::from_micros(micros)),
            Verdict::First(index) => {
                let exit = self.exits.iter().find(|e| e.index == index).cloned();
                if let (Some(exit), Some(process)) = (exit, self.launch.processes.get(index)) {
                    let failure = failure::of_process(&self.seat.host.node, process, &exit);
                    self.fail(failure).await;
                }
            }
        }
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

    fn is_rank(&self, index: usize) -> bool {
        self.launch.processes.get(index).is_some_and(|p| p.rank.is_some())
    }

    fn is_victim(&self, exit: &Exit) -> bool {
        let process = self.launch.processes.get(exit.index);
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
        if self.is_orphaned() {
            self.tend_orphans().await;
        }
    }

    async fn listen(&mut self) {
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
        // Logs of any kind are a sign of life: a save at the end takes its time.
        let life = last + self.launch.processes.iter().map(|p| file_size(&p.stdout)).sum::<u64>();
        match self.early {
            Some((since, seen)) if seen == life => {
                if since.elapsed() > EARLY_LIMIT && !done && (goal == 0 || last < goal) {
                    let Some(process) = self.launch.processes.get(left.index) else { return };
                    let node = &self.seat.host.node;
                    self.fail(failure::stopped_short(node, process, &left, last + 1)).await;
                }
            }
            _ => self.early = Some((Instant::now(), life)),
        }
    }

    /// Whether the shim is gone without a last word.
    fn is_orphaned(&self) -> bool {
        self.orphan_deadline.is_some()
            || self.shim.as_ref().is_some_and(|s| !proc::lives(s.id) && !self.ended_file().exists())
    }

    fn ended_file(&self) -> PathBuf {
        self.seat.dir.path().join(record::ENDED)
    }

    fn children(&self) -> Vec<Child> {
        self.started.as_ref().map(|s| s.children.clone()).unwrap_or_default()
    }

    /// Does the work of a shim that was killed: notes ends, kills after the
    /// grace, and writes the last word.
    async fn tend_orphans(&mut self) {
        let Some(shim) = self.shim.clone() else { return };
        let children = self.children();
        if let (Some(grace), None) = (self.stop_passed, self.orphan_deadline) {
            // It died while it was stopping them.
            shimctl::terminate_orphans(&children);
            self.orphan_deadline = Some(Instant::now() + grace);
        }
        let known: BTreeSet<usize> = self.exits.iter().map(|e| e.index).collect();
        let gone: Vec<usize> =
            children.iter().filter(|c| !known.contains(&c.index) && !proc::lives(c.id)).map(|c| c.index).collect();
        // Read once more: what has ended before this moment has said so by it.
        self.listen().await;
        for index in gone {
            let code = self.readers.proves_done().then_some(0);
            let stopping = self.stop_passed.is_some();
            let exit =
                Exit { index, code, stopping, mono_us: now_us(), wall_ms: runtime::clock::now_ms(), ..Exit::default() };
            tracing::warn!(attempt = %self.seat.name, index, "a process ended whose shim was killed");
            if let Err(error) = record::append_exit(self.seat.dir.path(), &exit) {
                tracing::error!(attempt = %self.seat.name, %error, "an end cannot be noted; trying again");
                return;
            }
            self.exits.push(exit);
        }
        self.judge().await;
        let all_gone = children.iter().all(|c| self.exits.iter().any(|e| e.index == c.index));
        let overdue = self.orphan_deadline.is_some_and(|d| Instant::now() >= d);
        if !all_gone && !overdue {
            return;
        }
        let stopped = self.stop_passed.is_some();
        let clear = tokio::task::spawn_blocking(move || shimctl::kill_orphans(&shim, &children, ORPHAN_LIMIT)).await;
        if all_gone && clear.unwrap_or(false) {
            let ended = Ended { wall_ms: runtime::clock::now_ms(), stopped, ..Ended::default() };
            if let Err(error) = record::write(&self.ended_file(), &ended) {
                tracing::error!(attempt = %self.seat.name, %error, "the end of a seat cannot be noted; trying again");
            }
        }
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

    fn end(&mut self, ended: &Ended) -> End {
        let failed = |failure| End { failure: Some(failure), ..End::default() };
        if let Some(failure) = self.failure.take() {
            return failed(failure);
        }
        if let Some(error) = &ended.error {
            let refusal = crate::refusal::Refusal::new(
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
                return End::default();
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

    fn clean(&self, index: usize) -> bool {
        self.exits.iter().any(|e| e.index == index && e.clean())
    }

    /// Every rank has returned 0: whether they had done their work.
    fn end_of_clean(&mut self, stopped: bool) -> End {
        let node = &self.seat.host.node;
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
                    None => End { ok: true, output, failure: None },
                    Some(_) if stopped => End { output, ..End::default() },
                    Some(iteration) => {
                        let last = self.launch.processes.iter().rposition(|p| p.rank.is_some()).unwrap_or_default();
                        let exit = self.exits.iter().find(|e| e.index == last).cloned().unwrap_or_default();
                        let failure =
                            self.launch.processes.get(last).map(|p| failure::stopped_short(node, p, &exit, iteration));
                        End { ok: false, output, failure }
                    }
                }
            }
            Readers::Silent => End { ok: true, ..End::default() },
        }
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

/// The attempt-named path that an engine was given.
fn out_path(seat: &Seat) -> String {
    match &seat.assignment.body {
        Some(Body::Engine(body)) if !body.out_prefix.is_empty() => {
            let workdir = seat.assignment.runtime.as_ref().map(|r| r.workdir.clone()).unwrap_or_default();
            let path = format!("{}.{}", body.out_prefix, seat.name);
            absolute(std::path::Path::new(&workdir), &path).to_string_lossy().into_owned()
        }
        Some(_) | None => String::new(),
    }
}

fn checkpoint_watch(seat: &Seat) -> Option<Watch> {
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
        save_dir: absolute(std::path::Path::new(workdir), &body.save_dir),
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

fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}

fn file_size(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}
