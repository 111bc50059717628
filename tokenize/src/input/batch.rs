//! Some consecutive rows on their way to a worker.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, StringArray};

use super::source::TEXT;
use super::{Reading, json};
use crate::error::{Error, FieldFault};

/// Rows that one worker encodes in one go.
pub(crate) enum Batch {
    /// Text columns in the order of the keys, checked for nulls and length;
    /// `None` for a column that the file does not have.
    Columns { columns: Vec<Option<StringArray>>, rows: usize, size: usize },
    /// Whole lines of JSON, not yet parsed: the workers do that in parallel.
    Lines { path: Arc<Path>, bytes: Vec<u8>, first_line: u64 },
    /// Elements of a JSON array: where each is in `bytes`, and its line.
    Items { path: Arc<Path>, bytes: Vec<u8>, items: Vec<(Range<usize>, u64)> },
    /// Whole lines, each of them a text.
    Plain { path: Arc<Path>, bytes: Vec<u8>, first_line: u64 },
}

impl Batch {
    /// About how much memory it holds, in bytes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Columns { size, .. } => *size,
            Self::Lines { bytes, .. } | Self::Items { bytes, .. } | Self::Plain { bytes, .. } => bytes.len(),
        }
    }

    /// Whether there is nothing to visit.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Columns { rows, .. } => *rows == 0,
            Self::Lines { bytes, .. } | Self::Plain { bytes, .. } => bytes.is_empty(),
            Self::Items { items, .. } => items.is_empty(),
        }
    }

    /// How many rows it holds; of lines by counting.
    pub(super) fn rows(&self) -> u64 {
        match self {
            Self::Columns { rows, .. } => *rows as u64,
            Self::Lines { bytes, .. } => lines(bytes).filter(|line| !line.trim_ascii().is_empty()).count() as u64,
            Self::Items { items, .. } => items.len() as u64,
            Self::Plain { bytes, .. } => plain_lines(bytes).count() as u64,
        }
    }

    /// Keeps only the rows of `part`, counted from its first one.
    pub(super) fn narrow(&mut self, part: &Range<u64>) {
        let part = usize::try_from(part.start).unwrap_or(usize::MAX)..usize::try_from(part.end).unwrap_or(usize::MAX);
        match self {
            Self::Columns { columns, rows, .. } => {
                for column in columns.iter_mut().flatten() {
                    *column = column.slice(part.start, part.len());
                }
                *rows = part.len();
            }
            Self::Items { items, .. } => {
                items.truncate(part.end);
                items.drain(..part.start);
            }
            Self::Lines { bytes, first_line, .. } => {
                narrow_lines(bytes, first_line, &part, line, |line| !line.trim_ascii().is_empty());
            }
            Self::Plain { bytes, first_line, .. } => narrow_lines(bytes, first_line, &part, plain_line, |_| true),
        }
    }

    /// Visits every row: its texts in the order of the keys. Returns how many.
    pub(crate) fn each_row(
        &self,
        reading: Reading<'_>,
        mut visit: impl FnMut(&[Option<&str>]) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        let mut object = |line: &[u8], path: &Path, number| {
            let texts = json::parse(line, reading, path, number)?;
            let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
            visit(&texts)
        };
        match self {
            Self::Columns { columns, rows, .. } => {
                let mut texts = vec![None; columns.len()];
                for row in 0..*rows {
                    for (text, column) in texts.iter_mut().zip(columns) {
                        *text = column.as_ref().filter(|column| column.is_valid(row)).map(|column| column.value(row));
                    }
                    visit(&texts)?;
                }
                Ok(*rows as u64)
            }
            Self::Lines { path, bytes, first_line } => {
                let mut rows = 0;
                for (line, number) in lines(bytes).zip(*first_line..) {
                    if !line.trim_ascii().is_empty() {
                        rows += 1;
                        object(line, path, number)?;
                    }
                }
                Ok(rows)
            }
            Self::Items { path, bytes, items } => {
                for (place, number) in items {
                    object(&bytes[place.clone()], path, *number)?;
                }
                Ok(items.len() as u64)
            }
            Self::Plain { path, bytes, first_line } => {
                let mut rows = 0;
                for (line, number) in plain_lines(bytes).zip(*first_line..) {
                    let text = std::str::from_utf8(line).map_err(|error| Error::Field {
                        path: path.to_path_buf(),
                        line: number,
                        what: FieldFault::NotUtf8(error.valid_up_to() + 1),
                    })?;
                    rows += 1;
                    let texts: Vec<_> = reading.keys.iter().map(|key| (key == TEXT).then_some(text)).collect();
                    visit(&texts)?;
                }
                Ok(rows)
            }
        }
    }
}

/// Where the first line of some bytes ends, without and with its end.
type Measure = fn(&[u8]) -> (usize, usize);

/// Up to a newline.
fn line(bytes: &[u8]) -> (usize, usize) {
    let end = memchr::memchr(b'\n', bytes);
    end.map_or((bytes.len(), bytes.len()), |end| (end, end + 1))
}

/// Up to a newline, a carriage return, or both: as Python opens a text file.
fn plain_line(bytes: &[u8]) -> (usize, usize) {
    match memchr::memchr2(b'\n', b'\r', bytes) {
        Some(end) if bytes[end..].starts_with(b"\r\n") => (end, end + 2),
        Some(end) => (end, end + 1),
        None => (bytes.len(), bytes.len()),
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    each_line(bytes, line)
}

fn plain_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    each_line(bytes, plain_line)
}

/// The lines of `bytes`, without their ends.
fn each_line(bytes: &[u8], measure: Measure) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (end, next) = (!rest.is_empty()).then(|| measure(rest))?;
        let line = &rest[..end];
        rest = &rest[next..];
        Some(line)
    })
}

/// Keeps the lines of `part`, counting only those that count.
fn narrow_lines(
    bytes: &mut Vec<u8>,
    first_line: &mut u64,
    part: &Range<usize>,
    measure: Measure,
    counts: fn(&[u8]) -> bool,
) {
    let (mut at, mut row) = (0, 0);
    let mut from = None;
    for number in *first_line.. {
        let rest = &bytes[at..];
        if rest.is_empty() || row == part.end {
            break;
        }
        let (end, next) = measure(rest);
        if counts(&rest[..end]) {
            if row == part.start {
                from = Some((at, number));
            }
            row += 1;
        }
        at += next;
    }
    bytes.truncate(at);
    match from {
        Some((start, number)) => {
            bytes.drain(..start);
            *first_line = number;
        }
        None => bytes.clear(),
    }
}
