//! The programs under test, and others, run with a deadline.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// How a program ended and what it said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Command line, for messages.
    pub command: String,
    /// Exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Returns standard output of a program that ended well.
    ///
    /// # Panics
    ///
    /// If it did not.
    #[must_use]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout
    }

    /// Checks the exit code.
    ///
    /// # Panics
    ///
    /// If it is another one.
    #[must_use]
    pub fn code(self, wanted: i32) -> Self {
        assert_eq!(self.code, wanted, "{self}");
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.stdout, self.stderr
        )
    }
}

/// Where the built programs are: beside the running test's own directory.
///
/// # Panics
///
/// If a program is not built.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let path = target().join(name);
    assert!(path.is_file(), "{} is not there: run `cargo build --workspace --bins` first", path.display());
    path
}

/// Directory of this build: `target/debug` or its like.
#[must_use]
pub fn target() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().to_owned()
}

/// Root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The interpreter for stand-ins: the one behind `python3`, since a name on the PATH may be a slow shim.
#[must_use]
pub fn python() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut ask = Command::new("python3");
        ask.args(["-c", "import sys; print(sys.executable)"]);
        run(&mut ask, Duration::from_secs(30)).ok().trim().to_owned()
    })
}

/// An interpreter with MindSpore, if `QCTL_TEST_PYTHON` names one.
#[must_use]
pub fn mindspore_python() -> Option<String> {
    let find = "import importlib.util, sys; sys.exit(importlib.util.find_spec('mindspore') is None)";
    let has_mindspore =
        |python: &String| Command::new(python).args(["-c", find]).status().is_ok_and(|status| status.success());
    std::env::var("QCTL_TEST_PYTHON").ok().filter(has_mindspore)
}

/// Runs a command to its end.
///
/// Output goes through files: a daemon that kept a pipe would hold its reader.
///
/// # Panics
///
/// If it does not end within `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Outcome {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("`{line}` does not start: {error}"));
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("`{line}` did not end within {} s\n{}{}", limit.as_secs(), text(&mut out), text(&mut err));
        }
        thread::sleep(Duration::from_millis(3));
    };
    Outcome { command: line, code: status.code().unwrap_or(-1), stdout: text(&mut out), stderr: text(&mut err) }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
