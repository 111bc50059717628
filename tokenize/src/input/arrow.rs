//! Reads text columns of Arrow files, message by message.
//!
//! Arrow's file format is its stream between a magic word and a footer, so
//! both are read the same way. Each message is checked before it is decoded: a
//! length that lies must not become an allocation.

mod message;
mod texts;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::root_as_message;
use arrow_schema::Schema;

use self::message::{Message, Messages};
use self::texts::Texts;
use super::source::columns_for;
use super::{Absent, Batch, Batches, Reading, SourceFile};
use crate::encode::guarded;
use crate::error::Error;

/// What one batch should hold, in bytes.
const BATCH_BYTES: usize = 256 << 10;
const MAX_BATCH_ROWS: usize = 4096;

pub(super) struct ArrowFile {
    path: Arc<Path>,
    messages: Messages,
    decoder: StreamDecoder,
    /// Whether the decoder knows that nothing follows.
    ended: bool,
    keys: Vec<String>,
    absent: Absent,
    max_row: usize,
    names: Vec<String>,
    positions: Vec<Option<usize>>,
    /// What is decoded, how much of its first batch is handed out, and the row that comes next.
    decoded: VecDeque<RecordBatch>,
    begin: usize,
    row: u64,
}

impl ArrowFile {
    pub(super) fn open(file: &SourceFile, reading: Reading<'_>) -> Result<Self, Error> {
        let mut arrow = Self {
            path: file.path.clone(),
            messages: Messages::open(file)?,
            decoder: StreamDecoder::new(),
            ended: false,
            keys: reading.keys.to_vec(),
            absent: reading.absent,
            max_row: reading.max_row,
            names: Vec::new(),
            positions: Vec::new(),
            decoded: VecDeque::new(),
            begin: 0,
            row: 0,
        };
        let Some(message) = arrow.messages.next()? else {
            return Err(arrow.messages.damaged("it is cut short".to_owned()));
        };
        let schema = schema(&message).map_err(|what| arrow.messages.damaged(what))?;
        arrow.decode(message)?;
        arrow.names = schema.fields().iter().map(|field| field.name().clone()).collect();
        arrow.positions = columns_for(&arrow.path, &arrow.names, reading)?;
        for (key, position) in reading.keys.iter().zip(&arrow.positions) {
            let kind = position.map(|position| schema.field(position).data_type());
            if let Some(kind) = kind.filter(|kind| !Texts::is_one(kind)) {
                let found = format!("`{kind}`");
                return Err(Error::ColumnType { path: arrow.path.to_path_buf(), key: key.clone(), found });
            }
        }
        Ok(arrow)
    }

    /// The names of the columns.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Feeds one message to the decoder, which may hand out rows late.
    fn decode(&mut self, message: Message) -> Result<(), Error> {
        let mut buffer = message.into_buffer();
        loop {
            let decoder = &mut self.decoder;
            let batch = guarded(|| decoder.decode(&mut buffer).map_err(|error| error.to_string()));
            match batch.map_err(|what| self.messages.damaged(what))? {
                Some(batch) => self.decoded.push_back(batch),
                None => return Ok(()),
            }
        }
    }

    /// Takes the next rows of what is decoded, about as much text as a batch should hold.
    fn take(&mut self) -> Result<Option<Batch>, Error> {
        while let Some(batch) = self.decoded.front() {
            let count = (batch.num_rows() - self.begin).min(MAX_BATCH_ROWS);
            if count > 0 {
                let part = batch.slice(self.begin, count);
                // Foreign code looks into foreign bytes.
                let batch = guarded(|| Ok(self.cut(&part))).map_err(|what| self.messages.damaged(what))??;
                let rows = usize::try_from(batch.rows()).unwrap_or(usize::MAX);
                self.begin += rows;
                self.row += rows as u64;
                return Ok(Some(batch));
            }
            self.decoded.pop_front();
            self.begin = 0;
        }
        Ok(None)
    }

    /// The first rows of `part`, until their text fills a batch.
    fn cut(&self, part: &RecordBatch) -> Result<Batch, Error> {
        let texts = |position: &Option<usize>| position.map(|position| Texts::of(part.column(position).clone()));
        let columns: Vec<Option<Texts>> = self.positions.iter().map(texts).collect();
        let (mut rows, mut size) = (0, 0);
        while rows < part.num_rows() && size < BATCH_BYTES {
            for (key, column) in self.keys.iter().zip(&columns) {
                let Some(column) = column else { continue };
                let length = self.check(self.row + rows as u64, key, column.get(rows))?;
                size += length;
            }
            rows += 1;
        }
        let columns = columns.iter().map(|column| column.as_ref().map(|column| column.first(rows))).collect();
        Ok(Batch::Columns { columns, rows, size })
    }

    /// Refuses nulls and giants. Returns the text's length.
    fn check(&self, row: u64, key: &str, text: Option<&str>) -> Result<usize, Error> {
        let path = || self.path.to_path_buf();
        if text.is_none() && self.absent == Absent::Refused {
            return Err(Error::Null { path: path(), row, key: key.to_owned() });
        }
        let size = text.map_or(0, str::len);
        if size > self.max_row {
            return Err(Error::LongRow { path: path(), row, key: key.to_owned(), size, limit: self.max_row });
        }
        Ok(size)
    }
}

impl Batches for ArrowFile {
    fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            if let Some(batch) = self.take()? {
                return Ok(Some(batch));
            }
            if let Some(message) = self.messages.next()? {
                self.decode(message)?;
            } else if !self.ended {
                self.ended = true;
                self.decode(Message::end())?;
            } else {
                return Ok(None);
            }
        }
    }
}

/// The schema that the first message must be.
fn schema(message: &Message) -> Result<Schema, String> {
    let message = root_as_message(message.metadata()).map_err(|error| error.to_string())?;
    let schema = message.header_as_schema().ok_or("it does not begin with a schema")?;
    guarded(|| try_fb_to_schema(schema).map_err(|error| error.to_string()))
}
