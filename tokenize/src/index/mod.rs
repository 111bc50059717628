//! Megatron's indexed dataset: a `.bin` of token ids and its `.idx`.
//!
//! Source of the format: Megatron-LM core_v0.12.1,
//! `megatron/core/datasets/indexed_dataset.py`. All numbers are little-endian:
//!
//! | offset | type | content |
//! |---|---|---|
//! | 0 | 9 bytes | `MMIDIDX\0\0` |
//! | 9 | u64 | version, 1 |
//! | 17 | u8 | type of an id, 4 = i32 |
//! | 18 | u64 | S, sequences |
//! | 26 | u64 | D, documents + 1 |
//! | 34 | i32 x S | length of each sequence, in ids |
//! | 34 + 4S | i64 x S | where each sequence begins in the `.bin`, in bytes |
//! | 34 + 12S | i64 x D | 0, then the sequences so far after each document |

mod diff;
mod reader;
#[cfg(test)]
mod shapes;
mod writer;

use std::path::{Path, PathBuf};

pub use diff::{Difference, diff};
pub use reader::{Index, Lengths};
pub(crate) use writer::{PairWriter, Sealed, Written};

pub(crate) const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
pub(crate) const VERSION: u64 = 1;
pub(crate) const INT32: u8 = 4;
/// Bytes before the lengths.
pub(crate) const HEADER: u64 = 34;
/// Bytes of one token id.
pub(crate) const ID_BYTES: u64 = 4;

/// The two paths of one dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub bin: PathBuf,
    pub idx: PathBuf,
}

impl Pair {
    /// The pair that `key` of `prefix` goes to: `<prefix>_<key>_document.*`.
    pub fn of_key(prefix: &Path, key: &str) -> Self {
        let mut stem = prefix.as_os_str().to_owned();
        stem.push(format!("_{key}_document"));
        Self::of_prefix(Path::new(&stem))
    }

    /// The pair that `--merge-group-keys` makes of a key: `<prefix>_<key>.*`.
    pub(crate) fn of_group(prefix: &Path, key: &str) -> Self {
        let mut stem = prefix.as_os_str().to_owned();
        stem.push(format!("_{key}"));
        Self::of_prefix(Path::new(&stem))
    }

    /// The pair `<stem>.bin`, `<stem>.idx`; either suffix may already be on.
    pub fn of_stem(stem: &Path) -> Self {
        let has_suffix = stem.extension().is_some_and(|suffix| suffix == "bin" || suffix == "idx");
        Self::of_prefix(&if has_suffix { stem.with_extension("") } else { stem.to_owned() })
    }

    /// The pair `<stem>.bin`, `<stem>.idx`, whatever the stem looks like.
    pub(crate) fn of_prefix(stem: &Path) -> Self {
        let with = |suffix: &str| {
            let mut path = stem.as_os_str().to_owned();
            path.push(suffix);
            PathBuf::from(path)
        };
        Self { bin: with(".bin"), idx: with(".idx") }
    }
}
