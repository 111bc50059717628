//! What there is to read, and which part of it.

mod array;
mod arrow;
mod batch;
mod csv;
mod json;
mod lines;
mod locate;
mod parquet;
mod sequence;
mod source;

use std::ops::Range;

pub(crate) use batch::Batch;
pub(crate) use parquet::ParquetFile;
pub use source::Source;
pub(crate) use source::SourceFile;

use crate::error::Error;

/// How the input is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Parquet,
    /// One JSON object a line, or one array of objects.
    Jsonl,
    /// With a header line.
    Csv,
    /// Each line is a text, of the key `text`.
    Text,
    /// Arrow's stream or file format.
    Arrow,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Text => "txt",
            Self::Arrow => "arrow",
        }
    }
}

/// How the bytes of a file are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// The part of the input that one run takes.
///
/// Consecutive slices, merged in order, equal one run over all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slice {
    All,
    /// Rows of all files together, from 0, the end excluded.
    Rows(Range<u64>),
    /// Bytes of all files together: the lines that *begin* in the range.
    Bytes(Range<u64>),
}

/// What a row without a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// A fault, be it a null or a missing column.
    Refused,
    /// A null; the column must exist where a file lists its columns.
    Null,
    /// A null, even where the column does not exist.
    Anything,
}

/// Limits and names that every reader needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'run> {
    pub(crate) keys: &'run [String],
    /// In bytes, of one text or one line.
    pub(crate) max_row: usize,
    pub(crate) absent: Absent,
}

/// One file's batches in order.
pub(crate) trait Batches {
    /// The next batch; `None` at the end.
    fn next_batch(&mut self) -> Result<Option<Batch>, Error>;
}
