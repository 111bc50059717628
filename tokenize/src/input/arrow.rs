//! Reads text columns of Arrow files, message by message.
//!
//! Arrow's file format is its stream between a magic word and a footer, so
//! both are read the same way. Each message is checked before it is decoded: a
//! length that lies must not become an allocation.

use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::root_as_message;
use arrow_schema::{DataType, Schema};

use super::source::columns_for;
use super::{Absent, Batch, Batches, Reading, SourceFile};
use crate::encode::guarded;
use crate::error::Error;

/// What one batch should hold, in bytes.
const BATCH_BYTES: usize = 256 << 10;
const MAGIC: &[u8] = b"ARROW1\0\0";
const CONTINUATION: u32 = 0xffff_ffff;
const MAX_METADATA: u32 = 16 << 20;
/// The largest message or decompressed buffer, in bytes.
const MAX_BODY: u64 = 1 << 30;

/// One message as it was read.
struct Message {
    bytes: Vec<u8>,
    /// Where its metadata begins, and their length.
    begin: usize,
    length: usize,
}

pub(super) struct ArrowFile {
    path: Arc<Path>,
    input: Box<dyn Read + Send>,
    decoder: StreamDecoder,
    keys: Vec<String>,
    absent: Absent,
    max_row: usize,
    names: Vec<String>,
    positions: Vec<Option<usize>>,
    row: u64,
    ready: VecDeque<Batch>,
}

impl ArrowFile {
    pub(super) fn open(file: &SourceFile, reading: Reading<'_>) -> Result<Self, Error> {
        let mut input = file.open()?;
        let mut first = [0; 8];
        if read_up_to(&mut input, &mut first).map_err(Error::reading(&file.path))? < first.len() {
            return Err(Error::Damaged { path: file.path.to_path_buf(), what: "it is cut short".to_owned() });
        }
        if first != MAGIC {
            input = file.open()?;
        }
        let mut arrow = Self {
            path: file.path.clone(),
            input,
            decoder: StreamDecoder::new(),
            keys: reading.keys.to_vec(),
            absent: reading.absent,
            max_row: reading.max_row,
            names: Vec::new(),
            positions: Vec::new(),
            row: 0,
            ready: VecDeque::new(),
        };
        let message = arrow.next_message()?;
        let schema = schema(&message).map_err(|what| arrow.damaged(what))?;
        arrow.decode(message)?;
        arrow.names = schema.fields().iter().map(|field| field.name().clone()).collect();
        arrow.positions = columns_for(&arrow.path, &arrow.names, reading)?;
        for (key, position) in reading.keys.iter().zip(&arrow.positions) {
            let kind = position.map(|position| schema.field(position).data_type());
            if let Some(kind) = kind.filter(|kind| !is_text(kind)) {
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

    fn damaged(&self, what: String) -> Error {
        Error::Damaged { path: self.path.to_path_buf(), what }
    }

    /// Reads one message, its length and body included, and checks its claims.
    fn next_message(&mut self) -> Result<Message, Error> {
        let mut bytes = vec![0; 4];
        self.fill(&mut bytes)?;
        let mut length = number(&bytes);
        if length == CONTINUATION {
            bytes.resize(8, 0);
            self.fill(&mut bytes[4..])?;
            length = number(&bytes[4..]);
        }
        if length > MAX_METADATA {
            return Err(self.damaged(format!("a message has {length} bytes of metadata")));
        }
        let begin = bytes.len();
        bytes.resize(begin + length as usize, 0);
        self.fill(&mut bytes[begin..])?;
        if length > 0 {
            let message = root_as_message(&bytes[begin..])
                .map_err(|error| self.damaged(format!("a message is not one: {error}")))?;
            let body = u64::try_from(message.bodyLength()).unwrap_or(u64::MAX);
            if body > MAX_BODY {
                return Err(self.damaged(format!("a message has a body of {body} bytes; the limit is {MAX_BODY}")));
            }
            let mut rest = Vec::new();
            let count = (&mut self.input).take(body).read_to_end(&mut rest).map_err(Error::reading(&self.path))?;
            if (count as u64) < body {
                return Err(self.damaged("it is cut short inside a message".to_owned()));
            }
            check_buffers(&message, &rest).map_err(|what| self.damaged(what))?;
            bytes.extend(rest);
        }
        Ok(Message { bytes, begin, length: length as usize })
    }

    /// Feeds one message to the decoder, which may hand out rows late.
    fn decode(&mut self, message: Message) -> Result<(), Error> {
        let mut buffer = Buffer::from(message.bytes);
        loop {
            let decoder = &mut self.decoder;
            let batch = guarded(|| decoder.decode(&mut buffer).map_err(|error| error.to_string()));
            match batch.map_err(|what| self.damaged(what))? {
                Some(batch) => self.queue(&batch)?,
                None => return Ok(()),
            }
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.input.read_exact(bytes).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                self.damaged("it is cut short".to_owned())
            } else {
                Error::reading(&self.path)(error)
            }
        })
    }

    /// Whether the stream is over: at its mark, or where the file ends.
    fn is_over(&mut self) -> Result<bool, Error> {
        let mut next = [0; 8];
        let count = read_up_to(&mut self.input, &mut next).map_err(Error::reading(&self.path))?;
        let end = count == 0 || next == [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0] || next[..4] == [0; 4];
        if !end {
            let input = std::mem::replace(&mut self.input, Box::new(std::io::empty()));
            self.input = Box::new(std::io::Cursor::new(next[..count].to_vec()).chain(input));
        }
        Ok(end)
    }

    /// Cuts one record batch into batches of the usual size.
    fn queue(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let rows = batch.num_rows();
        let held: usize = self.positions.iter().flatten().map(|&at| batch.column(at).get_array_memory_size()).sum();
        let step = (rows * BATCH_BYTES / held.max(1)).clamp(1, 4096);
        for begin in (0..rows).step_by(step) {
            let part = batch.slice(begin, step.min(rows - begin));
            let mut columns = Vec::new();
            let mut size = 0;
            for (key, position) in self.keys.iter().zip(&self.positions) {
                let Some(position) = position else {
                    columns.push(None);
                    continue;
                };
                let column = texts(part.column(*position));
                for row in 0..column.len() {
                    let path = || self.path.to_path_buf();
                    let number = self.row + row as u64;
                    if column.is_null(row) && self.absent == Absent::Refused {
                        return Err(Error::Null { path: path(), row: number, key: key.clone() });
                    }
                    let length = column.value(row).len();
                    if length > self.max_row {
                        let (key, limit) = (key.clone(), self.max_row);
                        return Err(Error::LongRow { path: path(), row: number, key, size: length, limit });
                    }
                    size += length;
                }
                columns.push(Some(column));
            }
            self.row += part.num_rows() as u64;
            self.ready.push_back(Batch::Columns { columns, rows: part.num_rows(), size });
        }
        Ok(())
    }
}

impl Batches for ArrowFile {
    fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if self.is_over()? {
                return Ok(None);
            }
            let message = self.next_message()?;
            self.decode(message)?;
        }
    }
}

/// The schema that the first message must be.
fn schema(message: &Message) -> Result<Schema, String> {
    let missing = "it does not begin with a schema";
    let metadata = message.bytes.get(message.begin..message.begin + message.length).ok_or(missing)?;
    let message = root_as_message(metadata).map_err(|error| error.to_string())?;
    let schema = message.header_as_schema().ok_or(missing)?;
    guarded(|| try_fb_to_schema(schema).map_err(|error| error.to_string()))
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).rev().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

fn read_up_to(input: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut all = Vec::new();
    let count = input.take(buffer.len() as u64).read_to_end(&mut all)?;
    buffer[..count].copy_from_slice(&all);
    Ok(count)
}

/// Refuses compressed buffers that claim to be giants.
fn check_buffers(message: &arrow_ipc::Message<'_>, body: &[u8]) -> Result<(), String> {
    let dictionary = message.header_as_dictionary_batch().and_then(|batch| batch.data());
    let Some(batch) = message.header_as_record_batch().or(dictionary) else {
        return Ok(());
    };
    if batch.compression().is_none() {
        return Ok(());
    }
    for buffer in batch.buffers().into_iter().flatten() {
        let at = usize::try_from(buffer.offset()).unwrap_or(usize::MAX);
        let Some(prefix) = body.get(at..).and_then(|rest| rest.first_chunk::<8>()).filter(|_| buffer.length() > 0)
        else {
            continue;
        };
        let claimed = i64::from_le_bytes(*prefix);
        if claimed > 0 && claimed.unsigned_abs() > MAX_BODY {
            return Err(format!("a buffer claims {claimed} bytes; the limit is {MAX_BODY}"));
        }
    }
    Ok(())
}

fn is_text(kind: &DataType) -> bool {
    if let DataType::Dictionary(_, value) = kind {
        return is_text(value);
    }
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Any text column as plain strings.
fn texts(column: &ArrayRef) -> StringArray {
    // Arrow's own list of types, which only it extends.
    #[allow(clippy::wildcard_enum_match_arm)]
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().clone(),
        DataType::LargeUtf8 => column.as_string::<i64>().iter().collect(),
        DataType::Utf8View => column.as_string_view().iter().collect(),
        _ => {
            let dictionary = column.as_any_dictionary();
            let values = texts(dictionary.values());
            let keys = dictionary.normalized_keys();
            let text = |row: usize| {
                let key = keys.get(row).copied().filter(|&key| column.is_valid(row) && key < values.len())?;
                values.is_valid(key).then(|| values.value(key))
            };
            (0..column.len()).map(text).collect()
        }
    }
}
