//! The memory: what a controller must not forget.
//!
//! Knows keys and bytes, and how model records become bytes; not what they mean.

pub mod backup;
pub mod embedded;
pub mod etcd;
pub mod memory;
pub mod record;

use std::future::Future;

use model::Epoch;

pub use backup::Backup;
pub use embedded::Embedded;
pub use etcd::Etcd;
pub use memory::Memory;

/// Writes that become durable together, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Sequence number within the epoch's leadership, from 1.
    pub seq: u64,
    /// Keys and their new values.
    pub puts: Vec<(String, Vec<u8>)>,
    /// Keys to remove.
    pub deletes: Vec<String>,
}

/// Small, slow truth: records of jobs and nodes. No logs, no beats.
///
/// All makes pass the same contract tests (`store/tests/contract.rs`).
pub trait Store: Send + 'static {
    /// Becomes the leader: the returned epoch is larger than any before it, and
    /// every commit under an older one fails from now on.
    ///
    /// # Errors
    ///
    /// [`Error`] if the store cannot be written.
    fn campaign(&mut self) -> impl Future<Output = Result<Epoch, Error>> + Send;

    /// Becomes the leader of a later incarnation: a store whose content was put back, or came from another.
    ///
    /// # Errors
    ///
    /// [`Error`] if the store cannot be written.
    fn begin(&mut self, incarnation: u64) -> impl Future<Output = Result<Epoch, Error>> + Send;

    /// All entries whose key starts with `prefix`, in key order.
    ///
    /// # Errors
    ///
    /// [`Error`] if the store cannot be read.
    fn load(&mut self, prefix: &str) -> impl Future<Output = Result<Vec<(String, Vec<u8>)>, Error>> + Send;

    /// Makes `batch` durable if `epoch` still leads.
    ///
    /// # Errors
    ///
    /// [`Kind::Fenced`] if another leads, [`Kind::Unknown`] if nobody can say
    /// whether it happened: read [`Store::last_batch`] back.
    fn commit(&mut self, epoch: Epoch, batch: Batch) -> impl Future<Output = Result<(), Error>> + Send;

    /// Epoch and sequence number of the newest durable batch.
    ///
    /// # Errors
    ///
    /// [`Error`] if the store cannot be read.
    fn last_batch(&mut self) -> impl Future<Output = Result<Option<(Epoch, u64)>, Error>> + Send;

    /// Whether the lead may still be believed in; by this process's own clock, so that one that was paused knows.
    fn still_leads(&self) -> bool {
        true
    }

    /// Resolves once it may not. Never where nobody can take the lead.
    fn lead_over(&self) -> impl Future<Output = ()> + Send + 'static {
        std::future::pending()
    }

    /// Gives the lead up, so that another may have it at once.
    fn resign(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// What kind of trouble a store is in; decides what its user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Another leads: step down.
    Fenced,
    /// The outcome is not known: read back.
    Unknown,
    /// The stored bytes are damaged: restore a backup.
    Corrupt,
    /// Written by a later version: run that one.
    Newer,
    /// No room: make some, then retry.
    Full,
    /// In use by another process.
    InUse,
    /// Its content was taken over elsewhere: lead that.
    Moved,
    /// Anything else of the operating system.
    Io,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with one sentence.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    pub(crate) fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn caused(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// What kind of trouble this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The next thing to try.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

pub(crate) fn fenced(held: Epoch, leads: Epoch) -> Error {
    Error::new(Kind::Fenced, format!("epoch {held} does not lead any more; {leads} does"))
}
