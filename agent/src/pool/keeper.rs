//! The task that keeps one pool: orders in, records out, reports on.

mod lost;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::AttemptId;
use proto::v1::{Assignment, Failure, Started, assignment::Body, report};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, Stage};
use super::environment::{self, Key};
use super::orphans::Orphan;
use super::place::Place;
use super::shim::PooledShim;
use super::{Ledger, Over, Wish};
use crate::host::Host;
use crate::launch::{self, rank_log};
use crate::refusal::Refusal;
use crate::seat::failure;
use crate::shim::pool::{ORDERS, Order, RECORDS, Reader, Record, Task, Writer, log_path};
use crate::shim::record::Exit;

/// Most wishes that one write of orders covers.
const BATCH: usize = 256;
/// A task that is over before this is reported once, with its end.
const BRISK: Duration = Duration::from_millis(100);
/// How often a pool with work is looked after.
const TICK: Duration = Duration::from_millis(100);
/// How long a pool without work is kept: the job's next task finds it warm.
const LINGER: Duration = Duration::from_secs(3);
/// Tasks of a job without slots that run at once, unless the controller says.
const AT_ONCE: u32 = 2;

/// Keeps one pool.
#[derive(Debug)]
pub(super) struct Keeper {
    host: Arc<Host>,
    place: Place,
    ledger: Ledger,
    inbox: mpsc::UnboundedReceiver<Wish>,
    orders: Writer<Order>,
    records: Reader<Record>,
    shim: PooledShim,
    shared: Vec<Option<Key>>,
    attempts: BTreeMap<AttemptId, Attempt>,
    orphans: BTreeMap<AttemptId, Orphan>,
    /// Forgotten attempts whose logs the controller does not hold yet.
    lingering: BTreeMap<AttemptId, u64>,
    taken: usize,
    over: Over,
    rested: Instant,
    /// Whether the shim was told that nothing follows.
    closing: bool,
    /// Whether nobody can wish for anything any more.
    drained: bool,
}

impl Keeper {
    /// Opens a pool, with whatever an earlier life of this agent left in it.
    pub(super) fn open(
        host: Arc<Host>,
        place: Place,
        ledger: Ledger,
        inbox: mpsc::UnboundedReceiver<Wish>,
    ) -> io::Result<Self> {
        if !place.is_whole() {
            // Nothing was ever ordered here.
            place.remove()?;
            place.create()?;
        }
        let (orders, known) = Writer::open(&place.path().join(ORDERS))?;
        let records = Reader::open(&place.path().join(RECORDS))?;
        let shim = PooledShim::of(place.path())?;
        let mut keeper = Self {
            host,
            place,
            ledger,
            inbox,
            orders,
            records,
            shim,
            shared: Vec::new(),
            attempts: BTreeMap::new(),
            orphans: BTreeMap::new(),
            lingering: BTreeMap::new(),
            taken: 0,
            over: Over::default(),
            rested: Instant::now(),
            closing: false,
            drained: false,
        };
        keeper.replay(known)?;
        keeper.say_again();
        Ok(keeper)
    }

    fn replay(&mut self, orders: Vec<Order>) -> io::Result<()> {
        let mut forgotten = Vec::new();
        let mut lost = Vec::new();
        for order in orders {
            match order {
                // Found out anew for what comes: the node may have changed.
                Order::Share(_) => self.shared.push(None),
                Order::Start(task) => {
                    self.taken += 1;
                    if let Ok(attempt) = task.attempt.parse() {
                        self.attempts.insert(attempt, Attempt::default());
                    }
                }
                Order::Stop { attempt, grace_ms } => {
                    if let Some(known) = self.attempt(&attempt) {
                        known.1.stop = Some(grace_ms);
                    }
                }
                Order::Told { attempt } => {
                    if let Some((_, known)) = self.attempt(&attempt) {
                        known.told = true;
                    }
                }
                Order::Forget { attempt } => forgotten.push(attempt),
                Order::Lost { attempt, exit } => lost.push((attempt, exit)),
                // What came of it is in the records.
                Order::Recall { .. } | Order::Close => {}
            }
        }
        for record in self.records.turn()? {
            // What has ended is told below, unless it was forgotten since.
            drop(self.note(record));
        }
        for (attempt, exit) in lost {
            self.note_end(&attempt, exit, None);
        }
        for attempt in forgotten.iter().filter_map(|a| a.parse().ok()) {
            self.forget(&attempt);
        }
        if !self.place.is_of_this_boot() {
            let failure = failure::rebooted(&self.host.node);
            let open: Vec<AttemptId> =
                self.attempts.iter().filter(|(_, a)| !a.is_over()).map(|(id, _)| id.clone()).collect();
            for id in open {
                if let Some(attempt) = self.attempts.get_mut(&id) {
                    attempt.stage = Stage::Refused(Box::new(failure.clone()));
                    self.over.add_one();
                }
            }
        }
        Ok(())
    }

    /// Reports the ends that are in no spool: an earlier life may not have come to it.
    fn say_again(&self) {
        let spooled = self.host.spool.ends();
        let over = self.attempts.iter().filter(|(_, attempt)| attempt.is_over());
        over.filter(|(id, _)| !spooled.contains(&id.to_string())).for_each(|(id, _)| self.say_ended(id));
    }

    /// What it holds.
    pub(super) fn held(&self) -> Vec<AttemptId> {
        self.attempts.keys().cloned().collect()
    }

    /// How much it has taken.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// How much of that is over.
    pub(super) fn over(&self) -> Over {
        self.over.clone()
    }

    /// Keeps the pool until nothing is left of it, or the agent ends.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut wishes = Vec::new();
        loop {
            tokio::select! {
                biased; // stop wins: the tasks go on without the agent; wishes before records, so that a stop does not wait
                () = stop.cancelled() => return,
                taken = self.inbox.recv_many(&mut wishes, BATCH), if !self.drained => match taken {
                    0 => self.drained = true,
                    _ => self.take(&mut wishes).await,
                },
                () = self.shim.news() => self.read(),
                _ = tick.tick() => if self.tick().await { return },
            }
        }
    }

    async fn take(&mut self, wishes: &mut Vec<Wish>) {
        let mut ordered = Vec::new();
        for wish in wishes.drain(..) {
            match wish {
                Wish::Start(assignment) => ordered.extend(self.order(&assignment).await),
                Wish::Stop { attempt, grace } => self.stop(&attempt, grace),
                Wish::Recall(attempt) => self.recall(&attempt),
                Wish::Forget(attempt) => {
                    let over = self.attempts.get(&attempt).is_some_and(Attempt::is_over);
                    if over && self.stage(&Order::Forget { attempt: attempt.to_string() }) {
                        self.forget(&attempt);
                    }
                }
            }
        }
        if !self.orders.is_dirty() {
            return;
        }
        if let Err(error) = self.orders.commit() {
            self.orders.discard();
            let refusal = Refusal::new(
                format!("the agent's state directory cannot be written: {error}"),
                "check space and permissions of `--state-dir` on this node",
            );
            for attempt in ordered {
                self.refuse(&attempt, failure::refused(&self.host.node, &refusal));
            }
            return;
        }
        {
            let mut ledger = self.ledger.lock();
            for attempt in &ordered {
                ledger.insert(attempt.clone(), true);
            }
        }
        self.shim.wake();
        if !ordered.is_empty() {
            self.rested = Instant::now();
            self.look_after_shim().await;
        }
    }

    /// Stages the order of a new attempt.
    async fn order(&mut self, assignment: &Assignment) -> Option<AttemptId> {
        let attempt: AttemptId = assignment.attempt.parse().ok()?;
        if let Some(known) = self.attempts.get(&attempt) {
            // Asked again about one that has ended: perhaps the report went astray.
            if known.is_over() && !self.host.spool.holds_end(&assignment.attempt) {
                self.say_ended(&attempt);
            }
            return None;
        }
        self.attempts.insert(attempt.clone(), Attempt::default());
        self.taken += 1;
        match self.task(assignment).await {
            Ok(task) => self.stage(&Order::Start(task)).then_some(attempt),
            Err(refusal) => {
                self.ledger.lock().insert(attempt.clone(), true);
                self.refuse(&attempt, failure::refused(&self.host.node, &refusal));
                None
            }
        }
    }

    async fn task(&mut self, assignment: &Assignment) -> Result<Task, Refusal> {
        let Some(Body::Run(body)) = &assignment.body else {
            return Err(Refusal::new("the assignment has no command", "update this node's agent"));
        };
        let key = Key::of(assignment, body);
        let known = self.shared.iter().position(|shared| shared.as_ref() == Some(&key));
        let shared = match known {
            Some(known) => known,
            None => {
                let shared = environment::shared(assignment, body, &self.host.bin_dir).await?;
                if !self.stage(&Order::Share(shared)) {
                    return Err(Refusal::new("the command's environment is too large", "shorten `runtime.env`"));
                }
                self.shared.push(Some(key));
                self.shared.len() - 1
            }
        };
        let at_once = if assignment.slots.is_empty() { AT_ONCE } else { 0 };
        let env = launch::variables(assignment, assignment.first_rank, 0);
        Ok(Task { attempt: assignment.attempt.clone(), shared, env, at_once })
    }

    fn stop(&mut self, attempt: &AttemptId, grace: Duration) {
        let Some(known) = self.attempts.get_mut(attempt) else { return };
        if known.is_over() {
            if !self.host.spool.holds_end(&attempt.to_string()) {
                self.say_ended(attempt);
            }
            return;
        }
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        // A later stop may shorten the grace, never lengthen it.
        if known.stop.is_some_and(|asked| asked <= grace_ms) {
            return;
        }
        known.stop = Some(grace_ms);
        self.stage(&Order::Stop { attempt: attempt.to_string(), grace_ms });
    }

    /// Asks the shim, who alone knows whether it has begun.
    fn recall(&mut self, attempt: &AttemptId) {
        let Some(known) = self.attempts.get(attempt) else { return };
        match known.stage {
            Stage::Ordered => _ = self.stage(&Order::Recall { attempt: attempt.to_string() }),
            Stage::Returned if !self.host.spool.holds_end(&attempt.to_string()) => self.say_ended(attempt),
            Stage::Returned | Stage::Begun | Stage::Running { .. } | Stage::Over(_) | Stage::Refused(_) => {}
        }
    }

    fn stage(&mut self, order: &Order) -> bool {
        let staged = self.orders.stage(order);
        if let Err(error) = &staged {
            tracing::error!(%error, "an order could not be written");
        }
        staged.is_ok()
    }

    fn attempt(&mut self, name: &str) -> Option<(AttemptId, &mut Attempt)> {
        let id: AttemptId = name.parse().ok()?;
        let attempt = self.attempts.get_mut(&id)?;
        Some((id, attempt))
    }

    /// Takes what the shim has written.
    fn read(&mut self) {
        match self.records.turn() {
            Ok(records) => {
                let ended: Vec<AttemptId> = records.into_iter().filter_map(|record| self.note(record)).collect();
                ended.iter().for_each(|id| self.say_ended(id));
            }
            Err(error) => tracing::error!(pool = %self.place.path().display(), %error, "records cannot be read"),
        }
    }

    /// Notes a record; returns the attempt that has ended by it.
    fn note(&mut self, record: Record) -> Option<AttemptId> {
        match record {
            Record::Took(_) => self.disown(),
            Record::Begun(attempts) => {
                for name in attempts {
                    if let Some((_, attempt)) = self.attempt(&name) {
                        attempt.stage = Stage::Begun;
                    }
                }
            }
            Record::Started { attempt, id, log } => {
                if let Some((_, attempt)) = self.attempt(&attempt) {
                    attempt.stage = Stage::Running { id, since: Instant::now(), given: Some(log) };
                }
            }
            Record::Spoke { attempt } => self.spoke(&attempt),
            Record::Returned { attempt } => {
                let (id, attempt) = self.attempt(&attempt).filter(|(_, attempt)| !attempt.is_over())?;
                attempt.stage = Stage::Returned;
                self.over.add_one();
                return Some(id);
            }
            Record::Exited { attempt, exit, log, ran_ms } => {
                if let Some((_, attempt)) = self.attempt(&attempt) {
                    attempt.ran_ms = ran_ms;
                }
                return self.note_end(&attempt, exit, log);
            }
        }
        None
    }

    fn spoke(&mut self, name: &str) {
        let Some((id, attempt)) = self.attempt(name) else { return };
        if let Stage::Running { given: Some(given), .. } = attempt.stage {
            attempt.log = Some(given);
            self.push_log(&id, given);
        }
    }

    fn push_log(&self, id: &AttemptId, log: u64) {
        self.host.logs.add_file(&id.to_string(), &rank_log(0), &log_path(self.place.path(), log));
    }

    fn note_end(&mut self, name: &str, exit: Exit, log: Option<u64>) -> Option<AttemptId> {
        let (id, attempt) = self.attempt(name)?;
        if attempt.is_over() {
            return None;
        }
        attempt.stage = Stage::Over(exit);
        attempt.log = log.or(attempt.log);
        let log = attempt.log;
        if let Some(log) = log {
            self.push_log(&id, log);
            self.host.logs.end(name);
        }
        self.orphans.remove(&id);
        self.over.add_one();
        Some(id)
    }

    fn refuse(&mut self, attempt: &AttemptId, failure: Failure) {
        if let Some(known) = self.attempts.get_mut(attempt) {
            known.stage = Stage::Refused(Box::new(failure));
            self.over.add_one();
            self.say_ended(attempt);
        }
    }

    fn say_ended(&self, attempt: &AttemptId) {
        let Some(known) = self.attempts.get(attempt) else { return };
        let Some(mut word) = known.last_word(&self.host.node, self.place.path()) else { return };
        let name = attempt.to_string();
        if let report::What::Ended(ended) = &mut word {
            ended.logs = known.log.and_then(|_| self.host.logs.ends(&name));
        }
        self.host.spool.post(&name, word);
    }

    fn forget(&mut self, attempt: &AttemptId) {
        if let Some(known) = self.attempts.remove(attempt)
            && let Some(log) = known.log
        {
            self.lingering.insert(attempt.clone(), log);
        }
        self.ledger.lock().remove(attempt);
    }

    /// What is done a few times a second; whether nothing is left to do.
    async fn tick(&mut self) -> bool {
        self.tell_started();
        self.let_go();
        let open = self.attempts.values().any(|attempt| !attempt.is_over());
        if open {
            self.look_after_shim().await;
        }
        if !self.attempts.is_empty() || !self.lingering.is_empty() {
            self.rested = Instant::now();
        }
        self.rested.elapsed() >= LINGER && self.close()
    }

    /// Reports the starts of what has run for a while. Losing the note of it
    /// costs a repeated report.
    fn tell_started(&mut self) {
        let due = |attempt: &Attempt| match attempt.stage {
            Stage::Running { since, .. } => !attempt.told && since.elapsed() >= BRISK,
            Stage::Ordered | Stage::Begun | Stage::Over(_) | Stage::Returned | Stage::Refused(_) => false,
        };
        let started: Vec<AttemptId> = self.attempts.iter().filter(|(_, a)| due(a)).map(|(id, _)| id.clone()).collect();
        for id in started {
            let attempt = id.to_string();
            self.host.spool.post(&attempt, report::What::Started(Started {}));
            self.attempts.entry(id).and_modify(|known| known.told = true);
            self.stage(&Order::Told { attempt });
        }
        if self.orders.is_dirty() && self.orders.commit().is_err() {
            self.orders.discard();
        }
    }

    /// Removes logs that the controller holds.
    fn let_go(&mut self) {
        let (host, place) = (&self.host, &self.place);
        self.lingering.retain(|attempt, log| {
            let name = attempt.to_string();
            if !host.logs.is_pushed(&name) {
                return true;
            }
            host.logs.remove(&name);
            // The directory goes in the end, with whatever is left in it.
            let _ = std::fs::remove_file(log_path(place.path(), *log));
            false
        });
    }

    async fn look_after_shim(&mut self) {
        let lives = self.shim.lives(self.place.path());
        if !lives {
            // What it said before it died; the rest is without a shim.
            self.read();
            self.disown();
        }
        if !self.orphans.is_empty() {
            self.tend_orphans().await;
        }
        if lives {
            return;
        }
        let waits = self.attempts.values().any(|attempt| matches!(attempt.stage, Stage::Ordered));
        if waits && let Err(refusal) = self.shim.start(&self.host.bin_dir, self.place.path()).await {
            tracing::error!(pool = %self.place.path().display(), "{refusal}");
            let open: Vec<AttemptId> = self
                .attempts
                .iter()
                .filter(|(_, attempt)| matches!(attempt.stage, Stage::Ordered))
                .map(|(id, _)| id.clone())
                .collect();
            for id in open {
                self.lose(&id, Exit { error: Some(refusal.message.clone()), ..Exit::at_present() });
            }
        }
    }

    /// Ends the shim and removes the pool; whether that is done.
    fn close(&mut self) -> bool {
        self.inbox.close();
        if self.shim.lives(self.place.path()) {
            if !self.closing && self.stage(&Order::Close) && self.orders.commit().is_ok() {
                self.closing = true;
                self.shim.wake();
            }
            return false;
        }
        if !self.drained {
            return false;
        }
        if let Err(error) = self.place.remove() {
            tracing::warn!(pool = %self.place.path().display(), %error, "a pool's directory could not be removed");
        }
        true
    }
}
