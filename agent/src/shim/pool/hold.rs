//! The pooled shim's life.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use super::running::{Logs, Running};
use super::{LOCK, NEWS, ORDERS, Order, RECORDS, Reader, Record, Shared, Task, WAKE, Writer, strays};
use crate::shim::descend::signal;
use crate::shim::hold::{drain, pipe_for};
use crate::shim::proc;
use crate::shim::record::{self, Exit, Shim};

/// How soon a task's first words are noticed.
const WORDS: Duration = Duration::from_millis(50);
/// Between two looks at what an ended task has left behind.
const STRAYS: Duration = Duration::from_millis(5);
/// How long a shim without work waits for more. An agent starts another when there is some.
const IDLE: Duration = Duration::from_secs(60);
/// Most tasks that are begun in one turn, so that records come in time.
const BATCH: usize = 16;

/// Runs `qctl-shim --hold-pool DIRECTORY`.
///
/// # Errors
///
/// Whatever the system says; tasks that run go on without it.
pub fn hold(dir: &Path) -> io::Result<()> {
    match Pool::take(dir)? {
        Some(mut pool) => pool.run(),
        None => Ok(()),
    }
}

struct Pool {
    dir: PathBuf,
    orders: Reader<Order>,
    records: Writer<Record>,
    wake: File,
    news: File,
    null: File,
    ended: UnixStream,
    shared: Vec<Shared>,
    queue: VecDeque<Task>,
    /// Begun by this shim or an earlier one.
    begun: BTreeSet<String>,
    running: Vec<Running>,
    logs: Logs,
    closing: bool,
    /// Whether something is left of tasks that have ended.
    strays: bool,
    _lock: File,
}

impl Pool {
    /// Takes the pool, or `None` if another shim has it.
    fn take(dir: &Path) -> io::Result<Option<Self>> {
        // Signals are caught before anyone can know this process's number.
        let ended = pipe_for(signal_hook::consts::SIGCHLD)?;
        for ignored in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(ignored, std::sync::Arc::default())?;
        }
        let lock = File::create(dir.join(LOCK))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        rustix::process::setsid()?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let me = proc::identify(pid).ok_or_else(|| io::Error::other("`/proc` does not show this process"))?;
        let (mut records, known) = Writer::open(&dir.join(RECORDS))?;
        let begun = known.into_iter().flat_map(begun_by).collect();
        record::write_plainly(&dir.join(record::SHIM), &Shim { id: me, boot_id: proc::boot_id(), cgroup: None })?;
        records.stage(&Record::Took(me))?;
        records.commit()?;
        Ok(Some(Self {
            dir: dir.to_owned(),
            orders: Reader::open(&dir.join(ORDERS))?,
            records,
            wake: fifo(&dir.join(WAKE))?,
            news: fifo(&dir.join(NEWS))?,
            null: File::open("/dev/null")?,
            ended,
            shared: Vec::new(),
            queue: VecDeque::new(),
            begun,
            running: Vec::new(),
            logs: Logs::open(dir)?,
            closing: false,
            strays: false,
            _lock: lock,
        }))
    }

    fn run(&mut self) -> io::Result<()> {
        let mut rested = Instant::now();
        loop {
            self.read_orders()?;
            self.collect()?;
            self.begin()?;
            self.press();
            self.listen()?;
            self.tell()?;
            let at_rest = self.running.is_empty() && self.queue.is_empty();
            if !at_rest {
                rested = Instant::now();
            } else if self.closing || rested.elapsed() >= IDLE {
                self.logs.clear();
                return Ok(());
            }
            self.wait()?;
        }
    }

    fn read_orders(&mut self) -> io::Result<()> {
        for order in self.orders.turn()? {
            match order {
                Order::Share(shared) => self.shared.push(shared),
                Order::Start(task) if !self.begun.contains(&task.attempt) => self.queue.push_back(task),
                Order::Stop { attempt, grace_ms } => self.stop(&attempt, grace_ms)?,
                Order::Recall { attempt } => self.give_back(attempt)?,
                Order::Lost { attempt, .. } => self.queue.retain(|task| task.attempt != attempt),
                Order::Close => self.closing = true,
                Order::Start(_) | Order::Told { .. } | Order::Forget { .. } => {}
            }
        }
        Ok(())
    }

    fn stop(&mut self, attempt: &str, grace_ms: u64) -> io::Result<()> {
        if let Some(at) = self.queue.iter().position(|task| task.attempt == attempt) {
            self.queue.remove(at);
            self.begun.insert(attempt.to_owned());
            let exit = Exit { stopping: true, ..Exit::at_present() };
            return self.records.stage(&Record::Exited { attempt: attempt.to_owned(), exit, log: None, ran_ms: None });
        }
        let deadline = Instant::now() + Duration::from_millis(grace_ms);
        if let Some(task) = self.running.iter_mut().find(|task| task.attempt == attempt) {
            task.stop(deadline);
        }
        Ok(())
    }

    fn give_back(&mut self, attempt: String) -> io::Result<()> {
        let Some(at) = self.queue.iter().position(|task| task.attempt == attempt) else { return Ok(()) };
        self.queue.remove(at);
        self.begun.insert(attempt.clone());
        self.records.stage(&Record::Returned { attempt })
    }

    /// Begins what there is room for. It is on record before it is started, so
    /// that whoever finds this shim dead does not start it again.
    fn begin(&mut self) -> io::Result<()> {
        let mut batch: Vec<Task> = Vec::new();
        let mut limited = self.limited();
        while batch.len() < BATCH
            && let Some(task) = first_with_room(&mut self.queue, limited)
        {
            limited += usize::from(task.at_once > 0);
            batch.push(task);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = batch.iter().map(|task| task.attempt.clone()).collect();
        self.records.stage(&Record::Begun(names.clone()))?;
        self.records.commit()?;
        self.begun.extend(names);
        for task in batch {
            self.start(&task)?;
        }
        Ok(())
    }

    fn limited(&self) -> usize {
        self.running.iter().filter(|task| task.at_once > 0 && task.exit.is_none()).count()
    }

    fn start(&mut self, task: &Task) -> io::Result<()> {
        let unknown = Shared::default();
        let shared = self.shared.get(task.shared).unwrap_or(&unknown);
        let attempt = task.attempt.clone();
        match Running::start(task, shared, &mut self.logs, &self.null) {
            Ok(running) => {
                self.records.stage(&Record::Started { attempt, id: running.id, log: running.log.number })?;
                self.running.push(running);
            }
            Err(error) => {
                let exit = Exit { error: Some(error.to_string()), ..Exit::at_present() };
                self.records.stage(&Record::Exited { attempt, exit, log: None, ran_ms: None })?;
            }
        }
        Ok(())
    }

    /// Takes the ends of processes, and sees to what they left behind.
    fn collect(&mut self) -> io::Result<()> {
        let mut ended = false;
        for task in &mut self.running {
            ended |= task.collect();
        }
        if !ended && !self.strays {
            return Ok(());
        }
        let (left, unmarked) = self.hunt();
        self.strays = unmarked || !left.is_empty();
        let (over, running) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|task: &Running| task.exit.is_some() && !left.contains(&task.attempt));
        self.running = running;
        for task in over {
            let log = self.logs.put_back(task.log, task.spoke, !self.strays);
            let exit = task.exit.unwrap_or_default();
            let ran_ms = u64::try_from(task.ran.as_millis()).ok();
            self.records.stage(&Record::Exited { attempt: task.attempt, exit, log, ran_ms })?;
        }
        Ok(())
    }

    /// Kills what tasks that have ended left behind: this process has adopted
    /// it. Returns the attempts that something is left of, and whether there
    /// is something of unknown origin.
    fn hunt(&self) -> (BTreeSet<String>, bool) {
        let mut left = BTreeSet::new();
        let mut unmarked = false;
        for pid in strays::children() {
            if self.running.iter().any(|task| task.id.pid == pid && task.exit.is_none()) {
                continue;
            }
            // Nobody else collects children of this process, so the number is still theirs.
            if !matches!(waitpid(Pid::from_raw(pid), WaitOptions::NOHANG), Ok(None)) {
                continue;
            }
            match strays::attempt_of(&self.dir, pid) {
                // A task that runs may have such children.
                Some(of) if self.running.iter().any(|task| task.attempt == of && task.exit.is_none()) => {}
                Some(of) => {
                    signal(pid, Signal::KILL);
                    left.insert(of);
                }
                None => {
                    unmarked = true;
                    if self.running.iter().all(|task| task.exit.is_some()) {
                        signal(pid, Signal::KILL);
                    }
                }
            }
        }
        (left, unmarked)
    }

    /// Kills what has had its grace.
    fn press(&mut self) {
        let now = Instant::now();
        for task in self.running.iter_mut().filter(|task| task.deadline.is_some_and(|at| at <= now)) {
            task.kill(&self.dir);
            // Once more if something got away.
            task.deadline = Some(now + Duration::from_millis(20));
        }
    }

    /// Notices who has written something.
    fn listen(&mut self) -> io::Result<()> {
        for task in self.running.iter_mut().filter(|task| !task.spoke && !task.log.is_empty()) {
            task.spoke = true;
            self.records.stage(&Record::Spoke { attempt: task.attempt.clone() })?;
        }
        Ok(())
    }

    fn tell(&mut self) -> io::Result<()> {
        if self.records.is_dirty() {
            self.records.commit()?;
            // A full pipe has told already.
            let _ = rustix::io::write(&self.news, b"n");
        }
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let deadline = self.running.iter().filter_map(|task| task.deadline).min();
        let words = self.running.iter().any(|task| !task.spoke).then_some(WORDS);
        let strays = self.strays.then_some(STRAYS);
        let due = deadline.map(|at| at.saturating_duration_since(now));
        let limit = [due, words, strays, Some(IDLE)].into_iter().flatten().min().unwrap_or(IDLE);
        let timeout = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&self.ended, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        drain(&mut self.ended);
        let mut buffer = [0_u8; 4096];
        while rustix::io::read(&self.wake, &mut buffer).is_ok_and(|read| read == buffer.len()) {}
        Ok(())
    }
}

/// Takes the first task that may run beside so many limited ones: one with a slot of its own does not
/// wait behind those without.
fn first_with_room(queue: &mut VecDeque<Task>, limited: usize) -> Option<Task> {
    let room = |task: &Task| task.at_once == 0 || limited < usize::try_from(task.at_once).unwrap_or(usize::MAX);
    queue.iter().position(room).and_then(|at| queue.remove(at))
}

fn begun_by(record: Record) -> Vec<String> {
    match record {
        Record::Begun(attempts) => attempts,
        // One that was stopped or given back before it began must not begin either.
        Record::Exited { attempt, .. } | Record::Returned { attempt } => vec![attempt],
        Record::Took(_) | Record::Started { .. } | Record::Spoke { .. } => Vec::new(),
    }
}

/// Opens a named pipe so that neither end has to wait for the other.
fn fifo(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(open(path, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_task_with_a_slot_does_not_wait_behind_limited_ones() {
        let tasks = [("a", 2), ("b", 2), ("slot", 0), ("c", 2)];
        let task =
            |(name, at_once): (&str, u32)| Task { attempt: name.into(), shared: 0, env: BTreeMap::new(), at_once };
        let mut queue: VecDeque<Task> = tasks.into_iter().map(task).collect();
        let mut taken = |limited| first_with_room(&mut queue, limited).map(|task| task.attempt);
        assert_eq!(taken(1).as_deref(), Some("a"));
        assert_eq!(taken(2).as_deref(), Some("slot"));
        assert_eq!(taken(2), None, "the rest waits for one of those that run");
        assert_eq!((taken(1).as_deref(), taken(1).as_deref(), taken(0)), (Some("b"), Some("c"), None));
    }
}
