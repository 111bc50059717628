//! Reads text columns of CSV files as pandas does, which the reference uses.
//!
//! Two of its habits decide what a text is: some words mean "no value", and
//! within each 10,000 rows a column of nothing but numbers is no text.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use ::csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use arrow_array::builder::StringBuilder;

use super::source::columns_for;
use super::{Absent, Batch, Batches, Reading, SourceFile};
use crate::error::{Error, FieldFault};

/// What one batch holds, in bytes and rows.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_ROWS: usize = 4096;
/// Rows whose types are guessed together.
const GUESS_ROWS: u64 = 10_000;
const BUFFER: usize = 64 << 10;
const MAX_COLUMNS: usize = 10_000;

/// Fields that stand for no value.
const NO_VALUE: &[&str] = &[
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
];

pub(super) struct CsvFile {
    path: Arc<Path>,
    reader: Reader<Metered>,
    /// Bytes read since the last record.
    since: Rc<Cell<usize>>,
    keys: Vec<String>,
    positions: Vec<Option<usize>>,
    columns: usize,
    guesses: Vec<Guess>,
    absent: Absent,
    max_row: usize,
    row: u64,
}

/// What the fields of one column have been so far.
#[derive(Clone, Copy, Default)]
struct Guess {
    values: u64,
    numbers: u64,
    truths: u64,
}

impl CsvFile {
    pub(super) fn open(file: &SourceFile, reading: Reading<'_>) -> Result<Self, Error> {
        let since = Rc::new(Cell::new(0));
        let limit = reading.max_row.saturating_add(BUFFER);
        let input = Metered { inner: file.open()?, since: since.clone(), limit };
        let reader = ReaderBuilder::new().flexible(true).buffer_capacity(BUFFER).from_reader(input);
        let mut csv = Self {
            path: file.path.clone(),
            reader,
            since,
            keys: reading.keys.to_vec(),
            positions: Vec::new(),
            columns: 0,
            guesses: vec![Guess::default(); reading.keys.len()],
            absent: reading.absent,
            max_row: reading.max_row,
            row: 0,
        };
        let names = csv.header()?;
        csv.columns = names.len();
        csv.positions = columns_for(&csv.path, &names, reading)?;
        csv.since.set(0);
        Ok(csv)
    }

    /// The names of the columns.
    pub(super) fn header(&mut self) -> Result<Vec<String>, Error> {
        let names = match self.reader.headers() {
            Ok(names) => names.clone(),
            Err(error) => return Err(self.fault(error)),
        };
        if names.len() > MAX_COLUMNS {
            return Err(self.damaged(format!("it has {} columns", names.len())));
        }
        Ok(names.iter().map(str::to_owned).collect())
    }

    fn fault(&self, error: ::csv::Error) -> Error {
        let line = error.position().map_or(1, ::csv::Position::line);
        // The list is open: whatever else there is, the file is damaged.
        #[allow(clippy::wildcard_enum_match_arm)]
        match error.into_kind() {
            ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => Error::LongLine {
                path: self.path.to_path_buf(),
                line: self.reader.position().line(),
                limit: self.max_row,
            },
            ErrorKind::Io(error) => Error::reading(&self.path)(error),
            ErrorKind::Utf8 { err, .. } => {
                let what = FieldFault::NotUtf8(err.valid_up_to() + 1);
                Error::Field { path: self.path.to_path_buf(), line, what }
            }
            other => self.damaged(format!("{other:?}")),
        }
    }

    fn damaged(&self, what: String) -> Error {
        Error::Damaged { path: self.path.to_path_buf(), what }
    }

    /// Puts the fields of one record where they belong.
    fn take(&mut self, record: &ByteRecord, texts: &mut [StringBuilder]) -> Result<usize, Error> {
        let line = record.position().map_or(0, ::csv::Position::line);
        if record.len() > self.columns {
            let what = format!("line {line} has {} fields, its header {}", record.len(), self.columns);
            return Err(self.damaged(what));
        }
        let mut size = 0;
        for ((position, text), (guess, key)) in
            self.positions.iter().zip(texts).zip(self.guesses.iter_mut().zip(&self.keys))
        {
            let field = position.and_then(|position| record.get(position)).unwrap_or_default();
            let fault = |what| Error::Field { path: self.path.to_path_buf(), line, what };
            let field =
                std::str::from_utf8(field).map_err(|error| fault(FieldFault::NotUtf8(error.valid_up_to() + 1)))?;
            if field.len() > self.max_row {
                return Err(Error::LongLine { path: self.path.to_path_buf(), line, limit: self.max_row });
            }
            size += field.len();
            if NO_VALUE.contains(&field) {
                if self.absent == Absent::Refused {
                    return Err(fault(FieldFault::Null(key.clone())));
                }
                text.append_null();
            } else {
                guess.look(field);
                text.append_value(field);
            }
        }
        Ok(size)
    }

    /// Ends a stretch of rows whose types are guessed together.
    fn end_guess(&mut self) -> Result<(), Error> {
        for (guess, key) in self.guesses.iter_mut().zip(&self.keys) {
            let found = match guess {
                Guess { values: 0, .. } => None,
                Guess { values, numbers, .. } if values == numbers => Some("only numbers"),
                Guess { values, truths, .. } if values == truths => Some("only truth values"),
                Guess { .. } => None,
            };
            if let Some(found) = found {
                let first = (self.row - 1) / GUESS_ROWS * GUESS_ROWS;
                return Err(Error::ColumnType {
                    path: self.path.to_path_buf(),
                    key: key.clone(),
                    found: format!("{found} in rows {first}..{}", self.row),
                });
            }
            *guess = Guess::default();
        }
        Ok(())
    }
}

impl Guess {
    fn look(&mut self, field: &str) {
        self.values += 1;
        // One text is enough: the rest need not be looked at.
        if self.numbers + 1 == self.values {
            self.numbers += u64::from(field.trim().parse::<f64>().is_ok());
        }
        if self.truths + 1 == self.values {
            self.truths += u64::from(["true", "True", "TRUE", "false", "False", "FALSE"].contains(&field));
        }
    }
}

impl Batches for CsvFile {
    fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        let mut texts: Vec<StringBuilder> = self.keys.iter().map(|_| StringBuilder::new()).collect();
        let mut record = ByteRecord::new();
        let (mut rows, mut size) = (0, 0);
        while rows < BATCH_ROWS && size < BATCH_BYTES {
            match self.reader.read_byte_record(&mut record) {
                Ok(true) => size += self.take(&record, &mut texts)?,
                Ok(false) => break,
                Err(error) => return Err(self.fault(error)),
            }
            self.since.set(0);
            rows += 1;
            self.row += 1;
            if self.row.is_multiple_of(GUESS_ROWS) {
                self.end_guess()?;
            }
        }
        if rows == 0 {
            self.end_guess()?;
            return Ok(None);
        }
        let columns = texts.iter_mut().zip(&self.positions).map(|(text, position)| position.map(|_| text.finish()));
        Ok(Some(Batch::Columns { columns: columns.collect(), rows, size }))
    }
}

/// Stops a record that would fill memory.
struct Metered {
    inner: Box<dyn Read + Send>,
    since: Rc<Cell<usize>>,
    limit: usize,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since.get() > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let count = self.inner.read(buffer)?;
        self.since.set(self.since.get() + count);
        Ok(count)
    }
}
