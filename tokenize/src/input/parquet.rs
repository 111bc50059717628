//! Reads text columns of parquet files, row group by row group.

mod header;
mod pages;

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use self::pages::Pages;
use super::source::columns_for;
use super::{Absent, Batch, Reading, Slice, SourceFile};
use crate::encode::guarded;
use crate::error::Error;

/// The text that one batch should hold, in bytes: small enough that batches in
/// flight stay in cache, large enough that hand-over costs nothing.
const BATCH_BYTES: u64 = 256 << 10;
const MAX_BATCH_ROWS: u64 = 4096;

/// An open file with its footer.
pub(crate) struct ParquetFile {
    path: Arc<Path>,
    file: File,
    metadata: ArrowReaderMetadata,
}

impl ParquetFile {
    /// Opens `path` and reads its footer.
    pub(crate) fn open(path: &Arc<Path>) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", &**path))?;
        // Without the writer's Arrow hints every text column reads as plain
        // strings, be it large strings, views or a dictionary at its source.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = guarded(|| ArrowReaderMetadata::load(&file, options).map_err(|error| error.to_string()))
            .map_err(|what| Error::Parquet { path: path.to_path_buf(), what })?;
        let file = Self { path: path.clone(), file, metadata };
        if file.group_rows().try_fold(0, u64::checked_add).is_none() {
            let what = "its footer counts more rows than there can be".to_owned();
            return Err(Error::Parquet { path: path.to_path_buf(), what });
        }
        Ok(file)
    }

    /// All rows, as the footer counts them.
    pub(crate) fn rows(&self) -> u64 {
        self.group_rows().sum()
    }

    /// The rows of each row group.
    pub(crate) fn group_rows(&self) -> impl Iterator<Item = u64> {
        let groups = self.metadata.metadata().row_groups().iter();
        groups.map(|group| u64::try_from(group.num_rows()).unwrap_or(0))
    }

    /// The uncompressed size of each row group, in bytes.
    pub(crate) fn group_bytes(&self) -> impl Iterator<Item = u64> {
        let groups = self.metadata.metadata().row_groups().iter();
        groups.map(|group| u64::try_from(group.total_byte_size()).unwrap_or(0))
    }

    /// The columns with their Arrow types.
    pub(crate) fn columns(&self) -> impl Iterator<Item = (&str, &DataType)> {
        self.metadata.schema().fields().iter().map(|field| (field.name().as_str(), field.data_type()))
    }

    /// Positions of the keys among the columns.
    fn positions(&self, reading: Reading<'_>) -> Result<Vec<Option<usize>>, Error> {
        let fields = self.metadata.schema().fields();
        let names: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
        let positions = columns_for(&self.path, &names, reading)?;
        for (key, position) in reading.keys.iter().zip(&positions) {
            let kind = position.map(|position| fields[position].data_type());
            if let Some(kind) = kind.filter(|kind| *kind != &DataType::Utf8) {
                return Err(Error::ColumnType {
                    path: self.path.to_path_buf(),
                    key: key.clone(),
                    found: format!("`{kind}`"),
                });
            }
        }
        Ok(positions)
    }

    /// How many rows of a group make one batch.
    fn batch_rows(&self, group: usize, positions: &[usize]) -> usize {
        let group = self.metadata.metadata().row_group(group);
        let rows = u64::try_from(group.num_rows()).unwrap_or(0).max(1);
        // Leaves and columns coincide only in flat files; elsewhere the whole
        // group's size is the safe guess.
        let flat = group.num_columns() == self.metadata.schema().fields().len();
        let bytes: i64 = if flat {
            positions.iter().map(|&position| group.column(position).uncompressed_size()).sum()
        } else {
            group.total_byte_size()
        };
        let per_row = (u64::try_from(bytes).unwrap_or(0) / rows).max(1);
        usize::try_from((BATCH_BYTES / per_row).clamp(1, MAX_BATCH_ROWS)).unwrap_or(1)
    }

    /// Sends the rows `wanted` of this file. Returns whether to go on.
    fn read(
        &self,
        wanted: Range<u64>,
        reading: Reading<'_>,
        send: &mut dyn FnMut(Batch) -> bool,
    ) -> Result<bool, Error> {
        let positions: Vec<usize> = self.positions(reading)?.into_iter().flatten().collect();
        let mut begin = 0;
        for (group, rows) in self.group_rows().enumerate() {
            let end = begin + rows;
            let from = wanted.start.max(begin);
            let to = wanted.end.min(end);
            if from < to && !self.read_group(group, begin, from..to, &positions, reading, send)? {
                return Ok(false);
            }
            begin = end;
        }
        Ok(true)
    }

    fn read_group(
        &self,
        group: usize,
        begin: u64,
        wanted: Range<u64>,
        positions: &[usize],
        reading: Reading<'_>,
        send: &mut dyn FnMut(Batch) -> bool,
    ) -> Result<bool, Error> {
        let damaged = |what: String| Error::Parquet { path: self.path.to_path_buf(), what };
        let file = self.file.try_clone().map_err(Error::io("open", &*self.path))?;
        let rows = usize::try_from(wanted.end - wanted.start).unwrap_or(usize::MAX);
        let mut batches = guarded(|| {
            let pages =
                Pages::open(file, self.metadata.metadata().row_group(group)).map_err(|error| error.to_string())?;
            ParquetRecordBatchReaderBuilder::new_with_metadata(pages, self.metadata.clone())
                .with_projection(ProjectionMask::roots(self.metadata.parquet_schema(), positions.iter().copied()))
                .with_row_groups(vec![group])
                .with_batch_size(self.batch_rows(group, positions))
                .with_offset(usize::try_from(wanted.start - begin).unwrap_or(usize::MAX))
                .with_limit(rows)
                .build()
                .map_err(|error| error.to_string())
        })
        .map_err(damaged)?;
        let mut row = wanted.start;
        while let Some(batch) =
            guarded(|| batches.next().transpose().map_err(|error| error.to_string())).map_err(damaged)?
        {
            let count = batch.num_rows() as u64;
            if !send(self.check(&batch, row, reading)?) {
                return Ok(false);
            }
            row += count;
        }
        if row != wanted.end {
            let what = format!("row group {group} ends at row {row}, its footer says {}", wanted.end);
            return Err(damaged(what));
        }
        Ok(true)
    }

    /// Refuses nulls and giants, and puts the columns in the order of the keys.
    fn check(&self, batch: &RecordBatch, first_row: u64, reading: Reading<'_>) -> Result<Batch, Error> {
        let mut columns = Vec::with_capacity(reading.keys.len());
        let mut size = 0;
        for key in reading.keys {
            // One that the file lacks was let pass before, or refused.
            let Some(column) = batch.column_by_name(key) else {
                columns.push(None);
                continue;
            };
            let path = || self.path.to_path_buf();
            let Some(column) = column.as_string_opt::<i32>() else {
                return Err(Error::Parquet { path: path(), what: format!("`{key}` did not read as text") });
            };
            let null = (reading.absent == Absent::Refused).then(|| (0..column.len()).find(|&row| column.is_null(row)));
            if let Some(null) = null.flatten() {
                return Err(Error::Null { path: path(), row: first_row + null as u64, key: key.clone() });
            }
            let lengths = column.offsets().windows(2).map(|pair| usize::try_from(pair[1] - pair[0]).unwrap_or(0));
            for (row, length) in lengths.enumerate() {
                size += length;
                if length > reading.max_row {
                    return Err(Error::LongRow {
                        path: path(),
                        row: first_row + row as u64,
                        key: key.clone(),
                        size: length,
                        limit: reading.max_row,
                    });
                }
            }
            columns.push(Some(column.clone()));
        }
        Ok(Batch::Columns { columns, rows: batch.num_rows(), size })
    }
}

/// Sends the batches of `slice` in order until `send` returns `false`.
pub(super) fn read(
    files: &[SourceFile],
    slice: &Slice,
    reading: Reading<'_>,
    send: &mut dyn FnMut(Batch) -> bool,
) -> Result<(), Error> {
    let wanted = match slice {
        Slice::All | Slice::Bytes(_) => 0..u64::MAX,
        Slice::Rows(rows) => rows.clone(),
    };
    let mut begin = 0;
    for file in files {
        let file = ParquetFile::open(&file.path)?;
        let end = begin + file.rows();
        let here = wanted.start.max(begin)..wanted.end.min(end);
        // Even an empty slice finds out about a missing column.
        let local = here.start.saturating_sub(begin)..here.end.saturating_sub(begin);
        if !file.read(local, reading, send)? {
            return Ok(());
        }
        begin = end;
    }
    Ok(())
}
