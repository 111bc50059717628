//! Cuts files of lines into runs of whole lines; the workers parse them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{Batch, Batches, Compression, Format, SourceFile};
use crate::error::Error;

/// The usual size of one run of lines, in bytes.
const CHUNK: usize = 256 << 10;

/// Runs of whole lines of one file.
pub(super) struct Lines {
    path: Arc<Path>,
    format: Format,
    input: Box<dyn Read + Send>,
    /// Where the next read begins, in bytes.
    position: u64,
    /// Lines that begin here or later are not ours.
    end: u64,
    carry: Vec<u8>,
    next_line: u64,
    max_row: usize,
    done: bool,
}

impl Lines {
    /// Opens the lines that begin in `range`; of a compressed file all.
    pub(super) fn open(file: &SourceFile, range: Range<u64>, max_row: usize) -> Result<Self, Error> {
        let path = file.path.clone();
        let mut lines = Self {
            path: path.clone(),
            format: file.kind.format,
            input: Box::new(std::io::empty()),
            position: range.start,
            end: range.end,
            carry: Vec::new(),
            next_line: 1,
            max_row,
            done: range.is_empty(),
        };
        if file.kind.compression != Compression::None {
            lines.input = file.open()?;
            (lines.position, lines.end) = (0, u64::MAX);
            return Ok(lines);
        }
        let mut plain = File::open(&path).map_err(Error::io("open", &*path))?;
        if range.start > 0 && !lines.done {
            let mut before = [0];
            plain.read_exact_at(&mut before, range.start - 1).map_err(Error::io("read", &*path))?;
            if before[0] != b'\n' {
                lines.skip_line(&plain)?;
            }
        }
        plain.seek(SeekFrom::Start(lines.position)).map_err(Error::io("read", &*path))?;
        lines.done |= lines.position >= lines.end;
        lines.input = Box::new(plain);
        Ok(lines)
    }

    /// Moves past the line that began before the range.
    fn skip_line(&mut self, file: &File) -> Result<(), Error> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = file.read_at(&mut buffer, self.position).map_err(Error::io("read", &*self.path))?;
            if let Some(at) = memchr::memchr(b'\n', &buffer[..count]) {
                self.position += at as u64 + 1;
                self.next_line += 1;
                return Ok(());
            }
            self.position += count as u64;
            if count == 0 {
                return Ok(());
            }
        }
    }

    fn check_length(&self, length: usize) -> Result<(), Error> {
        if length <= self.max_row {
            return Ok(());
        }
        Err(Error::LongLine { path: self.path.to_path_buf(), line: self.next_line, limit: self.max_row })
    }

    /// A run is longer than one line may be only if one line filled it.
    fn check_length_of_lines(&self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() <= self.max_row {
            return Ok(());
        }
        let mut lines = bytes.split_inclusive(|&byte| byte == b'\n').zip(self.next_line..);
        match lines.find(|(line, _)| line.len() > self.max_row) {
            Some((_, line)) => Err(Error::LongLine { path: self.path.to_path_buf(), line, limit: self.max_row }),
            None => Ok(()),
        }
    }
}

impl Batches for Lines {
    fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        if self.done {
            return Ok(None);
        }
        let mut bytes = std::mem::take(&mut self.carry);
        loop {
            let had = bytes.len();
            let mut chunk = (&mut self.input).take(CHUNK as u64);
            let count = chunk.read_to_end(&mut bytes).map_err(Error::reading(&self.path))?;
            let begin = self.position - had as u64;
            self.position += count as u64;
            // Of what is in hand, the lines that begin before the end are ours.
            if let Some(cut) = end_of_ours(&bytes, begin, self.end) {
                bytes.truncate(cut);
                self.done = true;
            } else if count == 0 {
                self.done = true;
            } else if let Some(last) = memchr::memrchr(b'\n', &bytes[had..]) {
                self.carry = bytes.split_off(had + last + 1);
            } else {
                self.check_length(bytes.len())?;
                continue;
            }
            self.check_length_of_lines(&bytes)?;
            let first_line = self.next_line;
            self.next_line += memchr::memchr_iter(b'\n', &bytes).count() as u64;
            if bytes.is_empty() {
                return Ok(None);
            }
            let path = self.path.clone();
            return Ok(Some(match self.format {
                Format::Text => Batch::Plain { path, bytes, first_line },
                Format::Parquet | Format::Jsonl | Format::Csv | Format::Arrow => {
                    Batch::Lines { path, bytes, first_line }
                }
            }));
        }
    }
}

/// Where, in `bytes` at offset `begin`, the first line that begins at `end` or
/// later starts; `None` if that is not decided yet.
fn end_of_ours(bytes: &[u8], begin: u64, end: u64) -> Option<usize> {
    // A line begins after each newline; the one at or after `end - 1` decides.
    let from = usize::try_from(end.saturating_sub(1).saturating_sub(begin)).ok()?;
    let at = memchr::memchr(b'\n', bytes.get(from..)?)?;
    Some(from + at + 1)
}

/// Newlines in the first `until` bytes.
pub(super) fn count_newlines(path: &Path, until: u64) -> Result<u64, Error> {
    let mut file = File::open(path).map_err(Error::io("open", path))?.take(until);
    let mut buffer = vec![0; CHUNK];
    let mut newlines = 0;
    loop {
        let count = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if count == 0 {
            return Ok(newlines);
        }
        newlines += memchr::memchr_iter(b'\n', &buffer[..count]).count() as u64;
    }
}
