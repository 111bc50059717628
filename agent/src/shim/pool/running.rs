//! The tasks of a pool that run.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, waitid, waitpid};

use super::{MARK, Shared, Task, log_path, mark};
use crate::shim::descend::{signal, signal_group};
use crate::shim::proc;
use crate::shim::record::{Exit, ProcId};

/// A log file that is open.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) number: u64,
    file: File,
}

impl Log {
    pub(super) fn is_empty(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.len() == 0)
    }
}

/// Log files: one that stayed empty serves the next task too, so that a task
/// which writes nothing costs no file.
#[derive(Debug)]
pub(super) struct Logs {
    dir: PathBuf,
    next: u64,
    empty: Vec<Log>,
}

impl Logs {
    /// Takes the numbers up behind those of an earlier shim.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir.join(super::LOGS))?;
        let taken = fs::read_dir(dir.join(super::LOGS))?.flatten();
        let highest = taken.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok()).max();
        Ok(Self { dir: dir.to_owned(), next: highest.map_or(0, |n| n + 1), empty: Vec::new() })
    }

    fn take(&mut self) -> io::Result<Log> {
        if let Some(log) = self.empty.pop() {
            return Ok(log);
        }
        let number = self.next;
        let file = OpenOptions::new().create_new(true).append(true).open(log_path(&self.dir, number))?;
        self.next += 1;
        Ok(Log { number, file })
    }

    /// Takes a log back; returns its number if it has become its task's own.
    pub(super) fn put_back(&mut self, log: Log, spoke: bool, reusable: bool) -> Option<u64> {
        if spoke || !log.is_empty() {
            return Some(log.number);
        }
        if reusable {
            self.empty.push(log);
        } else {
            // Somebody may still hold it open.
            let _ = fs::remove_file(log_path(&self.dir, log.number));
        }
        None
    }

    /// Removes the files that nobody has used.
    pub(super) fn clear(&mut self) {
        for log in self.empty.drain(..) {
            let _ = fs::remove_file(log_path(&self.dir, log.number));
        }
    }
}

/// A task whose process was started.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) attempt: String,
    pub(super) id: ProcId,
    pub(super) log: Log,
    pub(super) spoke: bool,
    pub(super) at_once: u32,
    pub(super) started: Instant,
    /// When it is killed, once it was told to stop.
    pub(super) deadline: Option<Instant>,
    /// How it ended, while others that it started are still there.
    pub(super) exit: Option<Exit>,
    /// For how long its process ran.
    pub(super) ran: Duration,
}

impl Running {
    /// Starts a task's process.
    pub(super) fn start(task: &Task, shared: &Shared, logs: &mut Logs, null: &File) -> io::Result<Self> {
        let (program, args) =
            shared.argv.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program given"))?;
        let log = logs.take()?;
        let mark = mark(&logs.dir, &task.attempt);
        let started = Instant::now();
        let spawn = || {
            Command::new(program)
                .args(args)
                .env_clear()
                .envs(&shared.env)
                .envs(&task.env)
                .env(MARK, &mark)
                .current_dir(&shared.cwd)
                .stdin(Stdio::from(null.try_clone()?))
                .stdout(log.file.try_clone()?)
                .stderr(log.file.try_clone()?)
                .process_group(0)
                .spawn()
        };
        let child = match spawn() {
            Ok(child) => child,
            Err(error) => {
                logs.put_back(log, false, true);
                let message = format!("`{program}` could not be started: {error}");
                return Err(io::Error::new(error.kind(), message));
            }
        };
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        // It is not collected before this returns, so `/proc` still has it.
        let id = proc::identify(pid).ok_or_else(|| io::Error::other("`/proc` does not show the child"))?;
        let attempt = task.attempt.clone();
        Ok(Self {
            attempt,
            id,
            log,
            spoke: false,
            at_once: task.at_once,
            started,
            deadline: None,
            exit: None,
            ran: Duration::ZERO,
        })
    }

    /// SIGTERM, or an earlier deadline than before.
    pub(super) fn stop(&mut self, deadline: Instant) {
        if self.deadline.is_none_or(|known| deadline < known) {
            self.deadline = Some(deadline);
        }
        if self.exit.is_none() {
            signal_group(self.id.pid, Signal::TERM);
        }
    }

    /// SIGKILL to all that it has started.
    pub(super) fn kill(&self, dir: &Path) {
        if self.exit.is_some() {
            return;
        }
        for member in super::strays::family(dir, &self.attempt, Some(self.id)) {
            // A descendant may have ended since; then its number is not reused within this moment.
            if proc::lives(member) {
                signal(member.pid, Signal::KILL);
            }
        }
        signal_group(self.id.pid, Signal::KILL);
    }

    /// Whether the process has ended. What is left of its group is killed
    /// before its number is given back to the kernel.
    pub(super) fn collect(&mut self) -> bool {
        let Some(pid) = Pid::from_raw(self.id.pid).filter(|_| self.exit.is_none()) else { return false };
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if !matches!(waitid(WaitId::Pid(pid), look), Ok(Some(_))) {
            return false;
        }
        signal_group(self.id.pid, Signal::KILL);
        let status = waitpid(Some(pid), WaitOptions::NOHANG).ok().flatten().map(|(_, status)| status);
        self.exit = Some(exit(status, self.deadline.is_some()));
        self.ran = self.started.elapsed();
        true
    }
}

fn exit(status: Option<WaitStatus>, stopping: bool) -> Exit {
    let code = status.and_then(|s| s.exit_status());
    let signal = status.and_then(|s| s.terminating_signal());
    Exit { code, signal, stopping, ..Exit::at_present() }
}
