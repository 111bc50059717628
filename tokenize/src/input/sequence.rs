//! Files that are read from their beginning: all but parquet.

use std::ops::Range;

use super::array::Items;
use super::arrow::ArrowFile;
use super::csv::CsvFile;
use super::lines::Lines;
use super::{Absent, Batch, Batches, Format, Reading, Slice, SourceFile};
use crate::error::Error;

/// Sends the batches of `slice` in order until `send` returns `false`.
pub(super) fn read(
    files: &[SourceFile],
    slice: &Slice,
    reading: Reading<'_>,
    send: &mut dyn FnMut(Batch) -> bool,
) -> Result<(), Error> {
    let mut begin = 0;
    let mut row = 0;
    for file in files {
        let end = begin + file.size;
        let bytes = match slice {
            Slice::All | Slice::Rows(_) => 0..file.size,
            Slice::Bytes(range) => range.start.clamp(begin, end) - begin..range.end.clamp(begin, end) - begin,
        };
        let mut batches = open(file, bytes, reading)?;
        while let Some(mut batch) = batches.next_batch()? {
            if let Slice::Rows(range) = slice {
                if row >= range.end {
                    return Ok(());
                }
                let rows = batch.rows();
                let part = range.start.saturating_sub(row).min(rows)..(range.end - row).min(rows);
                if part != (0..rows) {
                    batch.narrow(&part);
                }
                row += rows;
            }
            if !batch.is_empty() && !send(batch) {
                return Ok(());
            }
        }
        begin = end;
    }
    match slice {
        Slice::Rows(range) if row < range.end => {
            Err(Error::Slice { what: format!("the slice ends at row {}; the input has {row}", range.end) })
        }
        Slice::All | Slice::Rows(_) | Slice::Bytes(_) => Ok(()),
    }
}

/// Counts the rows of one file by reading it.
pub(crate) fn count_rows(file: &SourceFile, max_row: usize) -> Result<u64, Error> {
    // No key is wanted: nothing can be missing.
    let reading = Reading { keys: &[], max_row, absent: Absent::Anything };
    let mut batches = open(file, 0..file.size, reading)?;
    let mut rows = 0;
    while let Some(batch) = batches.next_batch()? {
        rows += batch.rows();
    }
    Ok(rows)
}

fn open(file: &SourceFile, bytes: Range<u64>, reading: Reading<'_>) -> Result<Box<dyn Batches>, Error> {
    Ok(match file.kind.format {
        Format::Jsonl if file.array => Box::new(Items::open(file, reading.max_row)?),
        Format::Text => {
            super::source::only_text(file, reading)?;
            Box::new(Lines::open(file, bytes, reading.max_row)?)
        }
        Format::Jsonl | Format::Parquet => Box::new(Lines::open(file, bytes, reading.max_row)?),
        Format::Csv => Box::new(CsvFile::open(file, reading)?),
        Format::Arrow => Box::new(ArrowFile::open(file, reading)?),
    })
}
