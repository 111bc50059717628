//! Why a file could not be turned into tokens.

use std::io;
use std::path::{Path, PathBuf};

/// Why the engine stopped.
///
/// Every variant but [`Error::Io`], [`Error::Panicked`] and
/// [`Error::Encode`] is the caller's to mend; [`Error::hint`] says how.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not {doing} `{}`", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("there is no input at `{}`", path.display())]
    NoInput { path: PathBuf },
    #[error("`{}` is neither a file nor a directory", path.display())]
    NotAFile { path: PathBuf },
    #[error("`{}` holds no data file", path.display())]
    NothingToRead { path: PathBuf },
    #[error("`{}` mixes {first} and {other} files", path.display())]
    MixedFormats { path: PathBuf, first: &'static str, other: &'static str },
    #[error("`{}` {what}, other than `{}`", path.display(), first.display())]
    Columns { path: PathBuf, what: String, first: PathBuf },
    #[error("`{}` has a format that is not supported: `{extension}`", path.display())]
    Format { path: PathBuf, extension: String },
    #[error("`{}` is an HTML page, not {wanted}", path.display())]
    HtmlPage { path: PathBuf, wanted: &'static str },
    #[error("`{}` is a Git LFS pointer, not the data itself", path.display())]
    LfsPointer { path: PathBuf },
    #[error("`{}` is not a parquet file: it does not {what} with `PAR1`", path.display())]
    NotParquet { path: PathBuf, what: &'static str },
    #[error("`{}` is a damaged parquet file: {what}", path.display())]
    Parquet { path: PathBuf, what: String },
    #[error("`{}` is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("`{}` has no column `{key}`; it has {have}", path.display())]
    NoColumn { path: PathBuf, key: String, have: String },
    #[error("no row of `{}` has a value in `{key}`", path.display())]
    NeverThere { path: PathBuf, key: String },
    #[error("column `{key}` of `{}` holds {found}, not text", path.display())]
    ColumnType { path: PathBuf, key: String, found: String },
    #[error("row {row} of `{}` has a null in `{key}`", path.display())]
    Null { path: PathBuf, row: u64, key: String },
    #[error("row {row} of `{}` has {size} bytes in `{key}`; the limit is {limit}", path.display())]
    LongRow { path: PathBuf, row: u64, key: String, size: usize, limit: usize },
    #[error("line {line} of `{}` is longer than {limit} bytes", path.display())]
    LongLine { path: PathBuf, line: u64, limit: usize },
    #[error("line {line} of `{}` is not a JSON object: {what}", path.display())]
    Json { path: PathBuf, line: u64, what: String },
    #[error("line {line} of `{}` {what}", path.display())]
    Field { path: PathBuf, line: u64, what: FieldFault },
    #[error("`{}` begins with a byte order mark", path.display())]
    ByteOrderMark { path: PathBuf },
    #[error("`{}` has no rows", path.display())]
    NoRows { path: PathBuf },
    #[error("`{}` changed while it was read", path.display())]
    Changed { path: PathBuf },
    #[error("{what}")]
    Slice { what: String },
    #[error("{what}")]
    Options { what: String },
    #[error("there is no fast tokenizer at `{}`", path.display())]
    NoTokenizer { path: PathBuf },
    #[error("the tokenizer at `{}` cannot be used: {what}", path.display())]
    Tokenizer { path: PathBuf, what: String },
    #[error("the tokenizer at `{}` has no end token: {what}", path.display())]
    NoEos { path: PathBuf, what: String },
    #[error("the tokenizer failed: {what}")]
    Encode { what: String },
    #[error("the fast encoder {what}")]
    Differs { what: String },
    #[error("the directory `{}` of the output prefix does not exist", path.display())]
    NoOutputDirectory { path: PathBuf },
    #[error("`{}` is not a sound index: {what}", path.display())]
    Index { path: PathBuf, what: String },
    #[error("the {who} broke down: {what}")]
    Panicked { who: &'static str, what: String },
}

/// What is wrong with one field of one JSON line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldFault {
    #[error("has no key `{0}`")]
    Missing(String),
    #[error("has the key `{0}` twice")]
    Twice(String),
    #[error("has a null in `{0}`")]
    Null(String),
    #[error("has {found} in `{key}`, not text")]
    NotText { key: String, found: &'static str },
    #[error("is not valid UTF-8 at byte {0}")]
    NotUtf8(usize),
    #[error("escapes half of a surrogate pair: {0}")]
    LoneSurrogate(String),
}

impl Error {
    /// Wraps an I/O error with what was being done to which path.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    /// Wraps a fault in reading `path`: the system's, or that of its content.
    pub(crate) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| match source.raw_os_error() {
            Some(_) => Self::Io { doing: "read", path, source },
            None => Self::Damaged { path, what: source.to_string() },
        }
    }

    /// Wraps what the index of `path` got wrong.
    pub(crate) fn index(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::Index { path: path.into(), what: what.into() }
    }
}
