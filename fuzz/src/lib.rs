//! Whatever bytes come in, every reader answers: it neither panics nor runs away with time or memory.
//!
//! The program, which `scripts/fuzz.sh` builds and runs, adds what libFuzzer thinks up. Without it the crate's test
//! gives each reader the inputs that are kept in `corpus/` and `artifacts/`.

mod targets;

use std::cell::RefCell;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// A reader, and what must hold for its answers.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also the name of its directory in `corpus/`.
    pub name: &'static str,
    run: fn(&[u8]),
}

impl Target {
    /// All of them, by name.
    pub fn all() -> impl Iterator<Item = Self> {
        targets::ALL.into_iter().map(|(name, run)| Self { name, run })
    }

    /// Gives it one input.
    ///
    /// # Errors
    ///
    /// What a panic said that the reader did not turn into a refusal.
    pub fn feed(&self, bytes: &[u8]) -> Result<(), String> {
        LAST.set(String::new());
        catch_unwind(|| (self.run)(bytes)).map_err(|_| LAST.take())
    }
}

thread_local! {
    /// What the last panic said.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics are kept to be told at the end: a reader may guard against those of a library.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|panic| LAST.set(panic.to_string())));
}

/// A directory of this process below TMPDIR; the caller of the readers removes it.
#[must_use]
pub fn directory() -> PathBuf {
    std::env::temp_dir().join(format!("qctl-fuzz-{}", std::process::id()))
}

/// A directory in it for the files of one reader.
pub(crate) fn home(name: &str) -> PathBuf {
    let home = directory().join(name);
    std::fs::create_dir_all(&home).unwrap_or_else(|error| panic!("{}: {error}", home.display()));
    home
}

/// Writes a file anew, or removes it.
pub(crate) fn put(path: &Path, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => std::fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        None => drop(std::fs::remove_file(path)),
    }
}

/// The files that an input stands for, parted by lines of `---`.
pub(crate) fn parts(bytes: &[u8]) -> Vec<&[u8]> {
    const MARK: &[u8] = b"\n---\n";
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) {
        parts.push(&rest[..at]);
        rest = &rest[at + MARK.len()..];
    }
    parts.push(rest);
    parts
}

/// Panics if a text would move the cursor of whoever reads it.
pub(crate) fn assert_printable(text: &str) {
    let raw = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    assert!(raw.is_none(), "{raw:?} would reach the terminal: {text:?}");
}
