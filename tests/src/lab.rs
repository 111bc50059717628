//! A laboratory: one controller and two agents of its own in a directory of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::poll::until;
use crate::process::{self, Process};
use crate::program::{Outcome, built, run, target};

/// The machine is small: stories go one after the other.
static TURN: Mutex<()> = Mutex::new(());

/// How long a command that only asks may take.
const ASK: Duration = Duration::from_secs(30);

/// A running installation, stopped and removed at its end.
///
/// After a failed story its directory stays, for whoever looks into it.
#[derive(Debug)]
pub struct Lab {
    directory: Option<TempDir>,
    root: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Lab {
    /// Starts a controller and two agents of two processor slots each.
    #[must_use]
    pub fn start() -> Self {
        let lab = Self::idle();
        lab.dev();
        lab
    }

    /// Makes the directories alone.
    #[must_use]
    pub fn idle() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let base = target().parent().unwrap().join("tmp");
        fs::create_dir_all(&base).unwrap();
        let directory = tempfile::Builder::new().prefix("lab-").tempdir_in(&base).unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir(root.join("work")).unwrap();
        Self { directory: Some(directory), root, _turn: turn }
    }

    /// `qctl dev`, in the background.
    pub fn dev(&self) {
        for name in ["qctl-controller", "qctl-agent", "qctl-shim", "qctl-convert", "qctl-tokenize"] {
            let _ = built(name);
        }
        let mut dev = self.command(["dev", "--agents", "2", "--slots", "2", "--device", "cpu", "--detach"]);
        let _ = run(&mut dev, Duration::from_secs(60)).ok();
    }

    /// Where everything of this laboratory lies.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where jobs work.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// The state directory of `qctl dev`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Runs a short `qctl` command.
    pub fn qctl<I: AsRef<str>>(&self, words: impl IntoIterator<Item = I>) -> Outcome {
        self.qctl_for(ASK, words)
    }

    /// Runs a `qctl` command that may take as long as `limit`.
    pub fn qctl_for<I: AsRef<str>>(&self, limit: Duration, words: impl IntoIterator<Item = I>) -> Outcome {
        run(&mut self.command(words), limit)
    }

    /// A `qctl` command on this laboratory.
    pub fn command<I: AsRef<str>>(&self, words: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(built("qctl"));
        command.arg("--state-dir").arg(self.state()).current_dir(&self.root);
        for (name, _) in std::env::vars_os() {
            // A user's own settings must not lead a story elsewhere.
            if name.to_string_lossy().starts_with("QCTL_") {
                command.env_remove(name);
            }
        }
        command.args(words.into_iter().map(|word| word.as_ref().to_owned()));
        command
    }

    /// All its living processes but short-lived commands of this test.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        process::of_root(&self.root)
    }

    /// The agents.
    #[must_use]
    pub fn agents(&self) -> Vec<Process> {
        self.called("qctl-agent")
    }

    /// The controller, if it is up.
    #[must_use]
    pub fn controller(&self) -> Option<Process> {
        self.called("qctl-controller").into_iter().next()
    }

    /// Training ranks by number.
    #[must_use]
    pub fn ranks(&self) -> Vec<Process> {
        let mut ranks: Vec<Process> = self.processes();
        ranks.retain(|process| process.rank().is_some());
        ranks.sort_by_key(Process::rank);
        ranks
    }

    /// Every process that belongs to an attempt: ranks, scheduler, engines, commands.
    #[must_use]
    pub fn work_processes(&self) -> Vec<Process> {
        let mut all = self.processes();
        all.retain(|process| process.env.contains_key("QCTL_ATTEMPT"));
        all
    }

    /// Its processes of one program.
    #[must_use]
    pub fn called(&self, program: &str) -> Vec<Process> {
        let mut found = self.processes();
        found.retain(|process| process.program() == program);
        found
    }

    /// `qctl dev stop`, if anything is up.
    pub fn stop(&self) {
        let outcome = self.qctl_for(Duration::from_secs(60), ["dev", "stop"]);
        assert_eq!(outcome.code, 0, "{outcome}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if built("qctl").is_file() && !self.called("qctl-controller").is_empty() {
            // Whatever it says, what is left is ended below.
            let _ = self.command(["dev", "stop"]).output();
        }
        until("everything of the laboratory has ended", Duration::from_secs(30), || {
            let left = self.processes();
            left.iter().for_each(Process::kill9);
            left.is_empty().then_some(())
        });
        if std::thread::panicking() {
            let kept = self.directory.take().map(TempDir::keep);
            eprintln!("the laboratory is kept: {}", kept.unwrap_or_default().display());
        }
    }
}
