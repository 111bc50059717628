//! The shim's life: take the seat, start, wait, stop, say so.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitOptions, WaitStatus};

use super::cgroup::Cgroup;
use super::descend::{Family, signal_group};
use super::proc;
use super::record::{self, Child, Ended, Exit, Launch, ProcId, Process, Shim, Started, Stop};
use super::{pool, within};

/// First argument of the process that stays.
const HOLD: &str = "--hold";
/// Grace of a stop whose record cannot be read.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// What a scheduler gets after its ranks have ended.
const SCHEDULER_GRACE: Duration = Duration::from_secs(2);
/// How often processes that others started are looked at during a stop.
const NESTED_POLL: Duration = Duration::from_millis(20);
/// How long the last descendants are hunted before the shim says that it failed.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// Runs `qctl-shim SEAT_DIRECTORY`.
///
/// It starts itself again and returns, so that the process that stays is
/// nobody's child but init's and no agent has to reap it.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let outcome = match words.as_slice() {
        [dir] if dir != HOLD => detach(Path::new(dir)),
        [flag, dir] if flag == HOLD => hold(Path::new(dir)),
        [flag, dir] if flag == pool::FLAG => detach_as(pool::HOLD, Path::new(dir)),
        [flag, dir] if flag == pool::HOLD => pool::hold(Path::new(dir)),
        [flag, dir, words @ ..] if flag == within::FLAG => return within::main(Path::new(dir), words),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "expected one argument: a seat's directory")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Stderr is the seat's shim.log; nobody else can be told.
            let _ = io::Write::write_all(&mut io::stderr(), format!("error: {error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn detach(dir: &Path) -> io::Result<()> {
    detach_as(HOLD, dir)
}

fn detach_as(flag: &str, dir: &Path) -> io::Result<()> {
    Command::new(std::env::current_exe()?).arg(flag).arg(dir).stdin(Stdio::null()).spawn().map(drop)
}

fn hold(dir: &Path) -> io::Result<()> {
    let held = Holder::take(dir);
    match held {
        Ok(Some(mut holder)) => holder.run(),
        Ok(None) => Ok(()),
        Err(error) => {
            let ended = Ended { wall_ms: runtime::clock::now_ms(), error: Some(error.to_string()), ..Ended::default() };
            record::write(&dir.join(record::ENDED), &ended)?;
            Err(error)
        }
    }
}

struct Holder {
    dir: PathBuf,
    launch: Launch,
    me: ProcId,
    cgroup: Option<Cgroup>,
    children: Vec<Child>,
    /// Those of them that have not ended.
    living: Vec<Child>,
    stopping: bool,
    ended_signal: UnixStream,
    stop_signal: UnixStream,
}

impl Holder {
    /// Takes the seat, or `None` if another shim has it or had it.
    fn take(dir: &Path) -> io::Result<Option<Self>> {
        // Signals are caught before anyone can know this process's number.
        let ended_signal = pipe_for(signal_hook::consts::SIGCHLD)?;
        let stop_signal = pipe_for(signal_hook::consts::SIGTERM)?;
        for ignored in [signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(ignored, std::sync::Arc::default())?;
        }
        rustix::process::setsid()?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let launch: Launch = record::read(&dir.join(record::LAUNCH))?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no launch file"))?;
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let me = proc::identify(pid).ok_or_else(|| io::Error::other("`/proc` does not show this process"))?;
        let cgroup = Cgroup::enter(&format!("qctl-{}-{pid}", launch.attempt));
        let path = cgroup.as_ref().map(|c| c.path().to_owned());
        let shim = Shim { id: me, boot_id: proc::boot_id(), cgroup: path };
        if !record::write_new(&dir.join(record::SHIM), &shim)? {
            if let Some(cgroup) = cgroup {
                cgroup.leave();
                cgroup.remove();
            }
            return Ok(None);
        }
        let dir = dir.to_owned();
        let (children, living, stopping) = (Vec::new(), Vec::new(), false);
        Ok(Some(Self { dir, launch, me, cgroup, children, living, stopping, ended_signal, stop_signal }))
    }

    fn run(&mut self) -> io::Result<()> {
        self.start_all()?;
        while !self.living.is_empty() {
            self.wait_for_signal(None)?;
            self.reap()?;
            if self.told_to_stop() {
                return self.stop();
            }
        }
        // What the children left behind must not outlive the seat.
        self.finish(false)
    }

    fn start_all(&mut self) -> io::Result<()> {
        for index in 0..self.launch.processes.len() {
            let process = &self.launch.processes[index];
            if process.nested {
                continue;
            }
            match start(process) {
                Ok(id) => {
                    self.children.push(Child { index, id });
                    self.living.push(Child { index, id });
                }
                Err(error) => {
                    let error = Some(format!("`{}` could not be started: {error}", program(process)));
                    record::append_exit(&self.dir, &Exit { index, error, ..self.exit() })?;
                    break;
                }
            }
        }
        if let Some(cgroup) = &self.cgroup
            && !cgroup.leave()
        {
            self.cgroup = None;
        }
        record::write(&self.dir.join(record::STARTED), &Started { children: self.children.clone() })
    }

    fn stop(&mut self) -> io::Result<()> {
        let asked: Option<Stop> = record::read(&self.dir.join(record::STOP)).ok().flatten();
        let grace = asked.map_or(DEFAULT_GRACE, |s| Duration::from_millis(s.grace_ms));
        self.stopping = true;
        // A scheduler goes last: without it the ranks could not save together.
        self.terminate(|process| process.rank.is_some());
        self.wait_for(grace, |process| process.rank.is_some())?;
        self.terminate(|process| process.rank.is_none());
        self.wait_for(SCHEDULER_GRACE.min(grace), |_| true)?;
        self.finish(true)
    }

    fn terminate(&self, which: impl Fn(&Process) -> bool) {
        let nested = self.nested();
        for child in self.living.iter().chain(&nested).filter(|c| which(&self.launch.processes[c.index])) {
            signal_group(child.id.pid, Signal::TERM);
        }
    }

    /// Living processes that another one of the seat has started.
    fn nested(&self) -> Vec<Child> {
        let mut found = record::nested(&self.dir).unwrap_or_default();
        found.retain(|c| c.index < self.launch.processes.len() && proc::lives(c.id));
        found
    }

    /// Waits until the processes in question have ended, at most `grace`.
    fn wait_for(&mut self, grace: Duration, which: impl Fn(&Process) -> bool) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            let waited_for = |c: &Child| which(&self.launch.processes[c.index]);
            // Another's child ends without a signal to this process.
            let nested = self.nested().iter().any(waited_for);
            if !nested && !self.living.iter().any(waited_for) {
                break;
            }
            let Some(left) = grace.checked_sub(begun.elapsed()) else { break };
            self.wait_for_signal(Some(if nested { left.min(NESTED_POLL) } else { left }))?;
            self.reap()?;
            if self.told_to_stop() {
                // A second stop may shorten the grace, never lengthen it.
                let again: Option<Stop> = record::read(&self.dir.join(record::STOP)).ok().flatten();
                if again.is_some_and(|s| Duration::from_millis(s.grace_ms) < grace) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Kills whatever is left, and writes the last word.
    fn finish(&mut self, stopped: bool) -> io::Result<()> {
        self.stopping = true;
        let cgroup = self.cgroup.as_ref().map(|c| c.path().to_owned());
        let roots: Vec<ProcId> = self.children.iter().map(|c| c.id).collect();
        let family = Family { session: Some(self.me), roots: &roots, cgroup: cgroup.as_deref(), except: self.me.pid };
        let mut failed = None;
        let (killed, clear) = family.kill(KILL_LIMIT, || failed = self.reap().err());
        if let Some(error) = failed {
            return Err(error);
        }
        self.reap()?;
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
        let error = (!clear).then(|| "some processes could not be killed".to_owned());
        let ended = Ended { wall_ms: runtime::clock::now_ms(), stopped, killed, error };
        record::write(&self.dir.join(record::ENDED), &ended)
    }

    /// Collects all children that have ended, known ones and adopted ones.
    fn reap(&mut self) -> io::Result<()> {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            if let Some(at) = self.living.iter().position(|c| c.id.pid == pid) {
                let index = self.living.remove(at).index;
                record::append_exit(&self.dir, &Exit { index, ..self.exit_of(status) })?;
            }
        }
        Ok(())
    }

    fn exit_of(&self, status: WaitStatus) -> Exit {
        Exit { code: status.exit_status(), signal: status.terminating_signal(), ..self.exit() }
    }

    fn exit(&self) -> Exit {
        Exit { stopping: self.stopping, ..Exit::at_present() }
    }

    fn wait_for_signal(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let timeout = limit.map(|l| Timespec {
            tv_sec: i64::try_from(l.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(l.subsec_nanos()),
        });
        let mut fds = [PollFd::new(&self.ended_signal, PollFlags::IN), PollFd::new(&self.stop_signal, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        drain(&mut self.ended_signal);
        Ok(())
    }

    fn told_to_stop(&mut self) -> bool {
        drain(&mut self.stop_signal)
    }
}

fn start(process: &Process) -> io::Result<ProcId> {
    let mut argv = process.argv.iter();
    let program = argv.next().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program given"))?;
    let stdout = log(&process.stdout)?;
    let stderr = if process.stderr == process.stdout { stdout.try_clone()? } else { log(&process.stderr)? };
    let child = Command::new(program)
        .args(argv)
        .env_clear()
        .envs(&process.env)
        .current_dir(&process.cwd)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    // It is not reaped before this returns, so `/proc` still has it.
    proc::identify(pid).ok_or_else(|| io::Error::other("`/proc` does not show the child"))
}

fn log(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

fn program(process: &Process) -> &str {
    process.argv.first().map_or("", String::as_str)
}

pub(super) fn pipe_for(signal: i32) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, write)?;
    Ok(read)
}

/// Empties a signal pipe; whether a signal had come.
pub(super) fn drain(pipe: &mut UnixStream) -> bool {
    let mut any = false;
    let mut buffer = [0_u8; 64];
    while matches!(pipe.read(&mut buffer), Ok(n) if n > 0) {
        any = true;
    }
    any
}
