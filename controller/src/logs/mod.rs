//! Log files: what agents push, and what people read.
//!
//! A source is one file, `<job>/<attempt>/<node>/<source>.log`, whose length is
//! what is held; an agent writes below its own name only.

mod append;
mod ends;
mod files;
pub(crate) mod push;
pub(crate) mod read;
mod select;
mod sweep;
mod tail;
mod times;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use dashmap::DashMap;

pub use append::Chunk;
pub use files::{Source, SourceName};
pub use select::{Selected, Unselectable, Which, select};

use crate::changes::Changes;

/// Log files below one directory.
#[derive(Debug)]
pub struct Logs {
    root: PathBuf,
    /// One writer a source: two streams of one agent may overlap.
    writers: DashMap<Source, Arc<Mutex<()>>>,
    grown: Changes,
    ends: ends::Ends,
}

impl Logs {
    /// Keeps files below `root`, which is made when the first one is.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, writers: DashMap::new(), grown: Changes::default(), ends: ends::Ends::default() }
    }
}
