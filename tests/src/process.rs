//! What `/proc` says about a laboratory's processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

/// A living process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The process that started it, or the one that took it over.
    pub parent: u32,
    /// Clock ticks from boot to its start; with the id it names one process for ever.
    pub start: u64,
    /// Command line.
    pub argv: Vec<String>,
    /// Environment it was started with.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: PathBuf,
}

impl Process {
    /// Reads one process; a zombie is none.
    #[must_use]
    pub fn read(pid: u32) -> Option<Self> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let start = start_of_living(pid)?;
        let parent = fields_of_living(pid)?.get(1)?.parse().ok()?;
        let words = |name: &str| {
            let bytes = fs::read(directory.join(name)).ok()?;
            let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
            Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>())
        };
        let pairs = words("environ")?.into_iter().filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        Some(Self {
            pid,
            parent,
            start,
            argv: words("cmdline")?,
            env: pairs.collect(),
            cwd: fs::read_link(directory.join("cwd")).ok()?,
        })
    }

    /// Whether this very process still lives.
    #[must_use]
    pub fn lives(&self) -> bool {
        start_of_living(self.pid) == Some(self.start)
    }

    /// File name of the program.
    #[must_use]
    pub fn program(&self) -> &str {
        self.argv.first().and_then(|word| word.rsplit('/').next()).unwrap_or_default()
    }

    /// Its rank, if it is a rank of a training run.
    #[must_use]
    pub fn rank(&self) -> Option<u32> {
        let worker = self.env.get("MS_ROLE").is_some_and(|role| role == "MS_WORKER");
        if !worker || self.program() == "qctl-shim" {
            return None;
        }
        self.env.get("MS_NODE_ID")?.parse().ok()
    }

    /// The file that its standard output goes to.
    #[must_use]
    pub fn stdout(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/fd/1", self.pid)).unwrap()
    }

    /// SIGKILL, if this very process still lives.
    pub fn kill9(&self) {
        self.send(Signal::KILL);
    }

    /// SIGSTOP, if this very process still lives.
    pub fn stop(&self) {
        self.send(Signal::STOP);
    }

    /// SIGCONT, if this very process still lives.
    pub fn go_on(&self) {
        self.send(Signal::CONT);
    }

    fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).unwrap();
        if self.lives() {
            // It may end between the look and the signal.
            let _ = kill_process(pid, signal);
        }
    }

    fn belongs_to(&self, root: &Path) -> bool {
        let root_text = root.to_string_lossy();
        self.cwd.starts_with(root)
            || self.argv.iter().any(|word| word.contains(&*root_text))
            || self.env.values().any(|value| value.contains(&*root_text))
    }
}

/// Living processes whose working directory, command line or environment lies in `root`.
#[must_use]
pub fn of_root(root: &Path) -> Vec<Process> {
    let own = std::process::id();
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let others = pids.filter(|pid| *pid != own).filter_map(Process::read);
    others.filter(|process| process.belongs_to(root)).collect()
}

/// Field 22 of `/proc/<pid>/stat`; none for what has ended, even if nobody has collected it yet.
fn start_of_living(pid: u32) -> Option<u64> {
    fields_of_living(pid)?.get(19)?.parse().ok()
}

/// `/proc/<pid>/stat` from field 3 on.
fn fields_of_living(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<String> = stat.get(stat.rfind(')')? + 2..)?.split(' ').map(str::to_owned).collect();
    let ended = fields.first().is_none_or(|state| matches!(state.as_str(), "Z" | "X"));
    (!ended).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_where_it_works_and_is_gone_once_killed() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").current_dir(directory.path()).spawn().unwrap();
        let root = directory.path().canonicalize().unwrap();
        // The kernel lets `spawn` return a moment before the new program's command line can be read.
        while of_root(&root).iter().any(|one| one.argv.is_empty()) {
            std::thread::yield_now();
        }
        let found = of_root(&root);
        assert_eq!(found.iter().map(|one| one.pid).collect::<Vec<_>>(), [child.id()]);
        assert!(found[0].lives() && found[0].program() == "sleep" && found[0].rank().is_none());
        found[0].kill9();
        while found[0].lives() {
            std::thread::yield_now();
        }
        assert!(Process::read(child.id()).is_none(), "a zombie does not live");
        child.wait().unwrap();
    }
}
