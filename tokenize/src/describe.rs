//! What an input or a finished pair holds.

use std::path::Path;

use crate::encode::Tokenizer;
use crate::error::Error;
use crate::index::{Index, Pair};
use crate::input::{Format, ParquetFile, Slice, Source, SourceFile};

/// Below it the whole input is hashed, in bytes.
const FULL_DIGEST: u64 = 2 << 30;
/// From the end of each parquet file: room for most footers.
const FOOTER: u64 = 64 << 10;
/// A row group list in an answer stays within this.
const MAX_GROUPS: usize = 100_000;

/// What an input holds.
#[derive(Clone, Debug)]
pub struct InputInfo {
    pub format: Format,
    pub files: Vec<std::path::PathBuf>,
    /// `None` but for parquet, unless counting was asked for.
    pub rows: Option<u64>,
    /// Parquet only, over all files.
    pub row_groups: Vec<RowGroup>,
    pub columns: Vec<ColumnInfo>,
    pub bytes: u64,
    /// Whether it can be cut by bytes.
    pub byte_slices: bool,
    pub digest: Digest,
}

/// One row group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowGroup {
    pub rows: u64,
    /// Uncompressed, all columns.
    pub bytes: u64,
}

/// One column; its type of parquet only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnInfo {
    pub name: String,
    pub kind: String,
}

/// What stands for the input's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digest {
    /// All bytes of all files.
    Full(String),
    /// The tail (a parquet footer), size and modification time of each file.
    Footer(String),
}

/// What a tokenizer directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerInfo {
    pub vocab_size: usize,
    pub eos_token: Option<String>,
    pub eos_id: Option<u32>,
    pub digest: String,
    pub encoder: &'static str,
    pub warnings: Vec<String>,
}

/// What a checked pair holds.
#[derive(Clone, Debug, PartialEq)]
pub struct PairInfo {
    pub sequences: u64,
    pub documents: u64,
    pub tokens: u64,
    /// In ids; zero without sequences.
    pub shortest: u64,
    pub longest: u64,
    pub mean: f64,
    /// How many sequences have 0, 1, 2..=3, 4..=7, ... ids; no zeros at the end.
    pub histogram: Vec<u64>,
}

/// Looks at `source`; jsonl rows are counted only if `count`.
///
/// # Errors
///
/// If a file cannot be read or is damaged.
pub fn describe_input(source: &Source, count: bool, max_row: usize) -> Result<InputInfo, Error> {
    source.check_columns()?;
    let mut info = InputInfo {
        format: source.format(),
        files: source.paths().map(Path::to_owned).collect(),
        rows: source.known_rows(&Slice::All)?,
        row_groups: Vec::new(),
        columns: Vec::new(),
        bytes: source.size(),
        byte_slices: source.has_byte_slices(),
        digest: digest(source)?,
    };
    match source.format() {
        Format::Parquet => {
            for file in source.files() {
                let file = ParquetFile::open(&file.path)?;
                let groups = file.group_rows().zip(file.group_bytes());
                info.row_groups.extend(groups.map(|(rows, bytes)| RowGroup { rows, bytes }));
                info.row_groups.truncate(MAX_GROUPS);
                if info.columns.is_empty() {
                    let columns = file.columns();
                    info.columns = columns
                        .map(|(name, kind)| ColumnInfo { name: name.to_owned(), kind: kind.to_string() })
                        .collect();
                }
            }
        }
        Format::Jsonl | Format::Csv | Format::Text | Format::Arrow => {
            let columns = source.files().first().map(SourceFile::columns).transpose()?.unwrap_or_default();
            info.columns = columns.into_iter().map(|name| ColumnInfo { name, kind: String::new() }).collect();
            if count {
                info.rows = Some(source.count_rows(max_row)?);
            }
        }
    }
    Ok(info)
}

/// Loads a tokenizer and says what matters about it.
///
/// # Errors
///
/// As [`Tokenizer::load`].
pub fn describe_tokenizer(tokenizer: &Tokenizer) -> TokenizerInfo {
    TokenizerInfo {
        vocab_size: tokenizer.vocab_size(),
        eos_token: tokenizer.eos_token().map(str::to_owned),
        eos_id: tokenizer.eos_id().ok(),
        digest: tokenizer.digest().to_owned(),
        encoder: tokenizer.encoder().name(),
        warnings: tokenizer.warnings().to_vec(),
    }
}

/// Checks the pair `prefix.bin/.idx` and adds it up.
///
/// # Errors
///
/// [`Error::Index`] if it is not consistent.
pub fn describe_pair(prefix: &Path) -> Result<PairInfo, Error> {
    let index = Index::open(&Pair::of_stem(prefix))?;
    let lengths = index.lengths();
    // Exact up to 2^53 ids, far beyond any disk.
    #[allow(clippy::cast_precision_loss)]
    let mean = if index.sequences() == 0 { 0.0 } else { lengths.total as f64 / index.sequences() as f64 };
    let mut histogram = Vec::new();
    index.each_length(&mut |length| {
        let bucket = (u64::BITS - length.leading_zeros()) as usize;
        if histogram.len() <= bucket {
            histogram.resize(bucket + 1, 0);
        }
        histogram[bucket] += 1;
    })?;
    Ok(PairInfo {
        histogram,
        sequences: index.sequences(),
        documents: index.documents(),
        tokens: lengths.total,
        shortest: lengths.shortest,
        longest: lengths.longest,
        mean,
    })
}

fn digest(source: &Source) -> Result<Digest, Error> {
    let mut hasher = blake3::Hasher::new();
    let full = source.size() < FULL_DIGEST;
    for file in source.files() {
        // One file's digest is what `b3sum` prints; lists need their bounds.
        if !full || source.files().len() > 1 {
            hasher.update(&file.size.to_le_bytes());
        }
        if full {
            file.feed(0, &mut hasher)?;
        } else {
            hasher.update(&file.modified_nanos().to_le_bytes());
            file.feed(file.size.saturating_sub(FOOTER), &mut hasher)?;
        }
    }
    let digest = format!("blake3:{}", hasher.finalize().to_hex());
    Ok(if full { Digest::Full(digest) } else { Digest::Footer(digest) })
}
