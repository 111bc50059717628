//! The messages of Arrow's stream and file format, and the claims in them.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow_buffer::Buffer;
use arrow_ipc::root_as_message;

use crate::error::Error;
use crate::input::SourceFile;

const MAGIC: &[u8] = b"ARROW1\0\0";
const CONTINUATION: [u8; 4] = [0xff; 4];
const MAX_METADATA: u32 = 16 << 20;
/// The largest body of a message, packed or unpacked, in bytes.
const MAX_BODY: u64 = 1 << 30;
/// What a body may claim to unpack to however small it is, and times its size:
/// nothing of zstd packs better.
const MODEST: u64 = 16 << 20;
const MAX_RATIO: u64 = 1 << 15;
/// A file ends with its footer's length and the word that it began with.
const FILE_END: usize = 10;

/// One message as it was read: its length, its metadata, its body.
pub(super) struct Message {
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Message {
    /// What ends a stream.
    pub(super) fn end() -> Self {
        Self { bytes: [CONTINUATION, [0; 4]].concat(), begin: 8, end: 8 }
    }

    pub(super) fn metadata(&self) -> &[u8] {
        &self.bytes[self.begin..self.end]
    }

    pub(super) fn into_buffer(self) -> Buffer {
        Buffer::from(self.bytes)
    }

    /// Refuses buffers that together claim to be giants: compressed ones
    /// state their size, and others may lie over one another.
    fn check_claims(&self) -> Result<(), String> {
        let message = root_as_message(self.metadata()).map_err(|error| error.to_string())?;
        let dictionary = message.header_as_dictionary_batch().and_then(|batch| batch.data());
        let Some(batch) = message.header_as_record_batch().or(dictionary) else {
            return Ok(());
        };
        let packed = batch.compression().is_some();
        let body = &self.bytes[self.end..];
        let mut claimed = 0_u64;
        for buffer in batch.buffers().into_iter().flatten() {
            let length = u64::try_from(buffer.length()).unwrap_or(0);
            let at = usize::try_from(buffer.offset()).unwrap_or(usize::MAX);
            let stated = body.get(at..).and_then(|rest| rest.first_chunk::<8>()).filter(|_| packed && length > 0);
            // A negative size marks a buffer of a compressed batch that is not compressed itself.
            let stated = stated.map_or(0, |prefix| u64::try_from(i64::from_le_bytes(*prefix)).unwrap_or(0));
            claimed = claimed.saturating_add(length.max(stated));
        }
        let limit = (body.len() as u64).saturating_mul(MAX_RATIO).clamp(MODEST, MAX_BODY);
        if claimed > limit {
            return Err(format!("the buffers of a message claim {claimed} bytes; the limit is {limit}"));
        }
        Ok(())
    }
}

/// The messages of one file in order.
pub(super) struct Messages {
    path: Arc<Path>,
    input: Box<dyn Read + Send>,
    /// The file format: the stream between a magic word and a footer.
    framed: bool,
    over: bool,
}

impl Messages {
    pub(super) fn open(file: &SourceFile) -> Result<Self, Error> {
        let mut messages = Self { path: file.path.clone(), input: file.open()?, framed: false, over: false };
        let mut first = [0; 8];
        if messages.read_up_to(&mut first)? < first.len() {
            return Err(messages.damaged("it is cut short".to_owned()));
        }
        messages.framed = first == MAGIC;
        if !messages.framed {
            messages.input = file.open()?;
        }
        Ok(messages)
    }

    /// Reads the next message and checks its claims; `None` behind the last.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Error> {
        if self.over {
            return Ok(None);
        }
        let mut bytes = vec![0; 4];
        match self.read_up_to(&mut bytes)? {
            // A stream may end without a mark.
            0 if !self.framed => {
                self.over = true;
                return Ok(None);
            }
            4 => {}
            _ => return Err(self.damaged("it is cut short".to_owned())),
        }
        if bytes == CONTINUATION {
            self.fill(&mut bytes, 4)?;
        }
        let length = bytes.last_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length));
        if length == 0 {
            self.over = true;
            return self.check_end().map(|()| None);
        }
        if length > MAX_METADATA {
            return Err(self.damaged(format!("a message has {length} bytes of metadata")));
        }
        let begin = bytes.len();
        self.fill(&mut bytes, u64::from(length))?;
        let end = bytes.len();
        let message =
            root_as_message(&bytes[begin..]).map_err(|error| self.damaged(format!("a message is not one: {error}")))?;
        let body = u64::try_from(message.bodyLength()).unwrap_or(u64::MAX);
        if body > MAX_BODY {
            return Err(self.damaged(format!("a message has a body of {body} bytes; the limit is {MAX_BODY}")));
        }
        self.fill(&mut bytes, body)?;
        let message = Message { bytes, begin, end };
        message.check_claims().map_err(|what| self.damaged(what))?;
        Ok(Some(message))
    }

    /// Refuses a file that lacks its footer: it may lack rows as well.
    fn check_end(&mut self) -> Result<(), Error> {
        if !self.framed {
            return Ok(());
        }
        let mut count = 0_u64;
        let mut tail = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let read = self.read_up_to(&mut chunk)?;
            count += read as u64;
            tail.extend_from_slice(&chunk[..read]);
            tail.drain(..tail.len().saturating_sub(FILE_END));
            if read < chunk.len() {
                break;
            }
        }
        let footer = tail.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length));
        if !tail.ends_with(&MAGIC[..6]) || count < u64::from(footer) + FILE_END as u64 {
            return Err(self.damaged("it is cut short in its footer".to_owned()));
        }
        Ok(())
    }

    /// Appends the next `count` bytes.
    fn fill(&mut self, bytes: &mut Vec<u8>, count: u64) -> Result<(), Error> {
        let read = (&mut self.input).take(count).read_to_end(bytes).map_err(Error::reading(&self.path))?;
        if (read as u64) < count {
            return Err(self.damaged("it is cut short inside a message".to_owned()));
        }
        Ok(())
    }

    /// Fills as much of `bytes` as there is left.
    fn read_up_to(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        let mut count = 0;
        while count < bytes.len() {
            match self.input.read(&mut bytes[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::reading(&self.path)(error)),
            }
        }
        Ok(count)
    }

    pub(super) fn damaged(&self, what: String) -> Error {
        Error::Damaged { path: self.path.to_path_buf(), what }
    }
}
