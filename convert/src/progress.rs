//! How the engine tells its caller what it does.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Where progress and warnings go. Called from several threads.
pub trait Report: Sync {
    /// So many more bytes will be written.
    fn expect(&self, bytes: u64);
    /// So many bytes were written since the last call.
    fn advance(&self, bytes: u64);
    /// A thing that the user should know, while the work goes on.
    fn warn(&self, message: &str);
    /// A step that is done, as the reference tool's log words it.
    fn note(&self, line: &str);
}

/// A report that nobody reads.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Report for Silent {
    fn expect(&self, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn warn(&self, _message: &str) {}
    fn note(&self, _line: &str) {}
}

/// Lets the first failing thread stop the others.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Asks all threads to stop.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// # Errors
    ///
    /// [`Error::Stopped`] once another thread has asked for it.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }
}
