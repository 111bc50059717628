//! Stands in for the interpreter that another launcher starts its ranks with.
//!
//! msrun starts whatever `python` is in its PATH and keeps exit codes to
//! itself. There it finds this program: it starts the real interpreter, waits
//! for it, notes who it was and how it ended, and ends the same way. So the
//! launcher sees what it would have seen, and an exit is known to the code and
//! the microsecond, before the launcher can act on it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, Signal, kill_process, setrlimit};

use super::proc;
use super::record::{self, Child, Exit, Launch, Process};

/// First argument, before the seat's directory.
pub const FLAG: &str = "--within";
/// Directory below a seat's that comes first in the launcher's PATH.
pub const BIN: &str = "bin";

/// Runs `qctl-shim --within SEAT_DIRECTORY ARGUMENTS…`.
#[must_use]
pub(super) fn main(dir: &Path, words: &[OsString]) -> ExitCode {
    match run(dir, words) {
        Ok(status) => end_like(status),
        Err(error) => {
            // Stderr is the rank's log; whoever started it looks there.
            let _ = io::Write::write_all(&mut io::stderr(), format!("error: {error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn run(dir: &Path, words: &[OsString]) -> io::Result<ExitStatus> {
    let missing = |what: &str| io::Error::new(io::ErrorKind::NotFound, what.to_owned());
    let launch: Launch = record::read(&dir.join(record::LAUNCH))?.ok_or_else(|| missing("no launch file"))?;
    let nested = || launch.processes.iter().enumerate().filter(|(_, p)| p.nested);
    let interpreter =
        nested().find_map(|(_, p)| p.argv.first()).ok_or_else(|| missing("the seat has no such process"))?;
    let mut command = Command::new(interpreter);
    command.args(words);
    if let Some(path) = outer_path(dir, std::env::var_os("PATH").as_deref()) {
        command.env("PATH", path);
    }
    let known = record::nested(dir)?;
    let found = nested().find(|(_, process)| is_it(process, words));
    // What is none of the ranks, or comes a second time, is some program of
    // the launcher or of a rank: nobody's business here.
    let Some((index, _)) = found.filter(|(index, _)| known.iter().all(|c| c.index != *index)) else {
        return Err(command.exec());
    };
    // A stop is for the whole group; this process lives until it has told the end.
    for caught in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(caught, Arc::default())?;
    }
    let me = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let id = proc::identify(me).ok_or_else(|| io::Error::other("`/proc` does not show this process"))?;
    record::append_nested(dir, &Child { index, id })?;
    // A seat that is being stopped says so before it signals anybody.
    let now = || Exit { index, stopping: dir.join(record::STOP).exists(), ..Exit::at_present() };
    match command.spawn().and_then(|mut child| child.wait()) {
        Ok(status) => {
            record::append_exit(dir, &Exit { code: status.code(), signal: status.signal(), ..now() })?;
            Ok(status)
        }
        Err(error) => {
            let said = format!("`{interpreter}` could not be started: {error}");
            record::append_exit(dir, &Exit { error: Some(said.clone()), ..now() })?;
            Err(io::Error::new(error.kind(), said))
        }
    }
}

/// Whether `process` is the one that was started with `words` and this environment.
fn is_it(process: &Process, words: &[OsString]) -> bool {
    let same_words = process.argv.iter().skip(1).map(OsStr::new).eq(words.iter());
    same_words && process.env.iter().all(|(name, value)| std::env::var(name).is_ok_and(|set| set == *value))
}

/// PATH without the directory that leads here.
fn outer_path(dir: &Path, path: Option<&OsStr>) -> Option<OsString> {
    let own = dir.join(BIN);
    let rest: Vec<PathBuf> = std::env::split_paths(path?).filter(|entry| *entry != own).collect();
    std::env::join_paths(rest).ok()
}

/// Ends with the same code or by the same signal.
fn end_like(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        // The rank has left its core already, if it was to leave one.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        if signal == signal_hook::consts::SIGKILL {
            let _ = kill_process(rustix::process::getpid(), Signal::KILL);
        }
        let _ = signal_hook::low_level::emulate_default_handler(signal);
        return ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX));
    }
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_interpreter_gets_path_without_the_directory_that_leads_here() {
        let dir = Path::new("/s/attempt");
        let outer = |path: &str| outer_path(dir, Some(OsStr::new(path)));
        assert_eq!(outer("/s/attempt/bin:/usr/bin:/bin").as_deref(), Some(OsStr::new("/usr/bin:/bin")));
        assert_eq!(outer("/usr/bin").as_deref(), Some(OsStr::new("/usr/bin")));
        assert_eq!(outer_path(dir, None), None);
    }

    #[test]
    fn a_process_is_known_by_its_words_and_its_variables() {
        let argv = ["/usr/bin/python3", "/w/train.py", "--lr", "1"].map(str::to_owned).to_vec();
        let process = Process { argv, ..Process::default() };
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(is_it(&process, &words("/w/train.py --lr 1")));
        assert!(!is_it(&process, &words("/w/train.py --lr 2")) && !is_it(&process, &words("-c pass")));
        let role = [("QCTL_NO_SUCH_VARIABLE".to_owned(), "MS_WORKER".to_owned())];
        assert!(!is_it(&Process { env: role.into(), ..process }, &words("/w/train.py --lr 1")));
    }
}
