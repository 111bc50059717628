//! From an assignment to the processes that a shim starts.

mod engine;
mod environment;
mod msrun;
pub mod ports;
mod ranks;
mod run;

use std::path::{Path, PathBuf};

use proto::v1::{Assignment, Runtime, TrainBody, assignment::Body};

pub use self::environment::{Environment, find_program, gather};
pub use self::msrun::worker_failure;
pub use self::ranks::{log_of as rank_log, python_name};
pub use self::run::{command, variables};
use crate::refusal::Refusal;
use crate::shim::record::{Launch, Process};

/// What a seat's processes are made from.
#[derive(Debug)]
pub struct Ingredients<'a> {
    /// What the controller asked for.
    pub assignment: &'a Assignment,
    /// The seat's directory, absolute.
    pub seat_dir: &'a Path,
    /// Where the engines' programs are.
    pub bin_dir: &'a Path,
    /// The environment that all processes of the job share.
    pub environment: &'a Environment,
}

impl Ingredients<'_> {
    /// What all processes of the job share.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if the assignment has none.
    pub fn runtime(&self) -> Result<&Runtime, Refusal> {
        self.assignment.runtime.as_ref().ok_or_else(|| Refusal::new("the assignment has no runtime", ""))
    }

    /// Working directory of the processes.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if it is not absolute or not there.
    pub fn workdir(&self) -> Result<PathBuf, Refusal> {
        let workdir = PathBuf::from(&self.runtime()?.workdir);
        if !workdir.is_absolute() {
            return Err(Refusal::new(
                format!("workdir `{}` is not absolute", workdir.display()),
                "give it as seen from the root, the same on every node",
            ));
        }
        if !workdir.is_dir() {
            return Err(Refusal::new(
                format!("workdir `{}` is no directory on this node", workdir.display()),
                "create it on every node, or correct `workdir` in the spec",
            ));
        }
        Ok(workdir)
    }

    /// The log file of a source.
    #[must_use]
    pub fn log(&self, source: &str) -> PathBuf {
        log_path(self.seat_dir, source)
    }
}

/// Where a source's log lies in a seat's directory.
#[must_use]
pub fn log_path(seat_dir: &Path, source: &str) -> PathBuf {
    seat_dir.join("logs").join(format!("{source}.log"))
}

/// Who starts the ranks of a training.
#[derive(Clone, Copy, Debug)]
enum Launcher {
    /// The shim.
    Ranks,
    /// MindSpore's msrun, which the shim starts.
    Msrun,
}

impl Launcher {
    fn of(body: &TrainBody) -> Result<Self, Refusal> {
        match body.launcher.as_str() {
            "ranks" => Ok(Self::Ranks),
            "msrun" => Ok(Self::Msrun),
            other => Err(Refusal::new(
                format!("launcher `{other}` is not known"),
                "use `launcher: ranks` or `launcher: msrun`",
            )),
        }
    }

    fn processes(self, from: &Ingredients<'_>, body: &TrainBody) -> Result<Vec<Process>, Refusal> {
        match self {
            Self::Ranks => ranks::processes(from, body),
            Self::Msrun => msrun::processes(from, body),
        }
    }

    fn check(self, from: &Ingredients<'_>, body: &TrainBody) -> Result<(), Refusal> {
        match self {
            Self::Ranks => ranks::check(from, body).map(drop),
            Self::Msrun => msrun::check(from, body).map(drop),
        }
    }
}

/// Builds the processes of a seat; a preflight has none.
///
/// # Errors
///
/// [`Refusal`] if something that the processes need is missing.
pub fn build(from: &Ingredients<'_>) -> Result<Launch, Refusal> {
    let processes = match &from.assignment.body {
        Some(Body::Engine(body)) => vec![engine::process(from, body)?],
        Some(Body::Run(body)) => run::processes(from, body)?,
        Some(Body::Train(body)) => Launcher::of(body)?.processes(from, body)?,
        Some(Body::Preflight(_)) | None => {
            return Err(Refusal::new("the assignment has nothing to start", "update this node's agent"));
        }
    };
    Ok(Launch { attempt: from.assignment.attempt.clone(), processes })
}

/// Checks what the processes of a gang need, before its scheduler has a port.
///
/// # Errors
///
/// [`Refusal`] if something is missing.
pub fn check(from: &Ingredients<'_>) -> Result<(), Refusal> {
    match &from.assignment.body {
        Some(Body::Train(body)) => Launcher::of(body)?.check(from, body),
        Some(Body::Preflight(_)) => Ok(()),
        Some(Body::Engine(_) | Body::Run(_)) | None => build(from).map(drop),
    }
}

/// `path` as seen from `base`.
#[must_use]
pub fn absolute(base: &Path, path: &str) -> PathBuf {
    base.join(path)
}
