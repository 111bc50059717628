//! Cuts jsonl files into runs of whole lines; the workers parse them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{Batch, Reading, Slice, SourceFile};
use crate::error::Error;

/// The usual size of one run of lines, in bytes.
const CHUNK: usize = 256 << 10;

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
        let mut lines = match slice {
            Slice::All | Slice::Rows(_) => Lines::open(file, 0, file.size, reading.max_row)?,
            Slice::Bytes(range) => {
                let from = range.start.clamp(begin, end) - begin;
                let to = range.end.clamp(begin, end) - begin;
                Lines::open(file, from, to, reading.max_row)?
            }
        };
        while let Some(mut batch) = lines.next_batch()? {
            if let Slice::Rows(range) = slice {
                if row >= range.end {
                    return Ok(());
                }
                row = keep_rows(&mut batch, row, range);
            }
            if batch.size() > 0 && !send(batch) {
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

/// Counts the rows, lines that are not blank, of one file.
pub(crate) fn count_rows(file: &SourceFile, max_row: usize) -> Result<u64, Error> {
    let mut lines = Lines::open(file, 0, file.size, max_row)?;
    let mut rows = 0;
    while let Some(batch) = lines.next_batch()? {
        if let Batch::Lines { bytes, .. } = &batch {
            let all = bytes.split(|&byte| byte == b'\n');
            rows += all.filter(|line| !line.trim_ascii().is_empty()).count() as u64;
        }
    }
    Ok(rows)
}

/// Narrows `batch`, whose first row is `row`, to `range`. Returns the row
/// after it.
fn keep_rows(batch: &mut Batch, row: u64, range: &std::ops::Range<u64>) -> u64 {
    let Batch::Lines { bytes, first_line, .. } = batch else {
        return row;
    };
    let mut row = row;
    let mut at = 0;
    let mut from = None;
    let mut to = bytes.len();
    for (text, line) in bytes.split_inclusive(|&byte| byte == b'\n').zip(*first_line..) {
        if row == range.end {
            to = at;
            break;
        }
        if !text.trim_ascii().is_empty() {
            if row >= range.start && from.is_none() {
                from = Some((at, line));
            }
            row += 1;
        }
        at += text.len();
    }
    match from {
        Some((start, line)) => {
            bytes.truncate(to);
            bytes.drain(..start);
            *first_line = line;
        }
        None => bytes.clear(),
    }
    row
}

/// Runs of whole lines of one file.
struct Lines {
    path: Arc<Path>,
    file: File,
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
    /// Opens the lines that begin in `from..to` of `file`.
    fn open(file: &SourceFile, from: u64, to: u64, max_row: usize) -> Result<Self, Error> {
        let path = file.path.clone();
        let file = File::open(&path).map_err(Error::io("open", &*path))?;
        let mut lines =
            Self { path, position: from, end: to, carry: Vec::new(), next_line: 1, max_row, done: from >= to, file };
        if from > 0 && !lines.done {
            let mut before = [0];
            lines.file.read_exact_at(&mut before, from - 1).map_err(Error::io("read", &*lines.path))?;
            if before[0] != b'\n' {
                lines.skip_line()?;
            }
        }
        lines.file.seek(SeekFrom::Start(lines.position)).map_err(Error::io("read", &*lines.path))?;
        lines.done |= lines.position >= lines.end;
        Ok(lines)
    }

    /// Moves past the line that began before the range.
    fn skip_line(&mut self) -> Result<(), Error> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = self.file.read_at(&mut buffer, self.position).map_err(Error::io("read", &*self.path))?;
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

    fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        if self.done {
            return Ok(None);
        }
        let mut bytes = std::mem::take(&mut self.carry);
        loop {
            let had = bytes.len();
            let count =
                (&self.file).take(CHUNK as u64).read_to_end(&mut bytes).map_err(Error::io("read", &*self.path))?;
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
            return Ok(Some(Batch::Lines { path: self.path.clone(), bytes, first_line }));
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
