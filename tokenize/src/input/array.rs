//! Cuts a JSON array into its elements; the workers parse them.

use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{Batch, Batches, SourceFile};
use crate::error::Error;

/// What is read at a time, in bytes.
const CHUNK: u64 = 256 << 10;

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    FirstElement,
    Element,
    Inside { depth: u32, string: bool },
    Separator,
    End,
}

/// The elements of one array.
pub(super) struct Items {
    path: Arc<Path>,
    input: Box<dyn Read + Send>,
    /// From the beginning of an unfinished element, if there is one.
    bytes: Vec<u8>,
    /// How much of it has been looked at.
    seen: usize,
    start: usize,
    state: State,
    /// The line that comes next, and the one that the element began on.
    line: u64,
    start_line: u64,
    max_row: usize,
}

impl Items {
    pub(super) fn open(file: &SourceFile, max_row: usize) -> Result<Self, Error> {
        Ok(Self {
            path: file.path.clone(),
            input: file.open()?,
            bytes: Vec::new(),
            seen: 0,
            start: 0,
            state: State::Open,
            line: 1,
            start_line: 1,
            max_row,
        })
    }

    /// Looks at what has been read since, and notes complete elements.
    fn scan(&mut self, items: &mut Vec<(Range<usize>, u64)>) -> Result<(), Error> {
        while self.seen < self.bytes.len() {
            if let State::Inside { string: true, .. } = self.state {
                if !self.skip_string() {
                    return Ok(());
                }
                continue;
            }
            let byte = self.bytes[self.seen];
            self.line += u64::from(byte == b'\n');
            let blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
            self.state = match (self.state, byte) {
                (State::Inside { depth, .. }, b'"') => State::Inside { depth, string: true },
                (State::Inside { depth, .. }, b'{' | b'[') => State::Inside { depth: depth + 1, string: false },
                (State::Inside { depth: 1, .. }, b'}' | b']') => {
                    items.push((self.start..self.seen + 1, self.start_line));
                    State::Separator
                }
                (State::Inside { depth, .. }, b'}' | b']') => State::Inside { depth: depth - 1, string: false },
                (State::Inside { .. }, _) => self.state,
                (_, _) if blank => self.state,
                (State::Open, b'[') => State::FirstElement,
                (State::FirstElement, b']') | (State::Separator, b']') => State::End,
                (State::FirstElement | State::Element, b'{') => {
                    (self.start, self.start_line) = (self.seen, self.line);
                    State::Inside { depth: 1, string: false }
                }
                (State::Separator, b',') => State::Element,
                (State::Open, _) => return Err(self.fault("the array does not begin")),
                (State::FirstElement | State::Element, _) => return Err(self.fault("an element is not an object")),
                (State::Separator, _) => return Err(self.fault("a comma or the end of the array is missing")),
                (State::End, _) => return Err(self.fault("something follows the array")),
            };
            self.seen += 1;
        }
        Ok(())
    }

    /// Moves to the end of a string, or of what has been read. Returns whether
    /// to go on: what a backslash escapes may come with the next bytes.
    fn skip_string(&mut self) -> bool {
        match memchr::memchr2(b'"', b'\\', &self.bytes[self.seen..]) {
            None => self.seen = self.bytes.len(),
            Some(at) if self.bytes[self.seen + at] == b'"' => {
                self.seen += at + 1;
                if let State::Inside { string, .. } = &mut self.state {
                    *string = false;
                }
            }
            Some(at) if self.seen + at + 1 < self.bytes.len() => self.seen += at + 2,
            Some(at) => {
                self.seen += at;
                return false;
            }
        }
        true
    }

    fn fault(&self, what: &str) -> Error {
        Error::Json { path: self.path.to_path_buf(), line: self.line, what: what.to_owned() }
    }
}

impl Batches for Items {
    fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            let mut chunk = (&mut self.input).take(CHUNK);
            let count = chunk.read_to_end(&mut self.bytes).map_err(Error::reading(&self.path))?;
            let mut items = Vec::new();
            self.scan(&mut items)?;
            let unfinished = matches!(self.state, State::Inside { .. });
            let longest = items.iter().map(|(place, line)| (place.len(), *line)).max();
            let rest = unfinished.then(|| (self.bytes.len() - self.start, self.start_line));
            if let Some((_, line)) = longest.into_iter().chain(rest).find(|(length, _)| *length > self.max_row) {
                return Err(Error::LongLine { path: self.path.to_path_buf(), line, limit: self.max_row });
            }
            if count == 0 && self.state != State::End {
                return Err(self.fault("the array does not end: the file is cut short"));
            }
            let cut = if unfinished { self.start } else { self.bytes.len() };
            let carry = self.bytes.split_off(cut);
            let bytes = std::mem::replace(&mut self.bytes, carry);
            (self.seen, self.start) = (self.seen - cut, 0);
            if !items.is_empty() {
                return Ok(Some(Batch::Items { path: self.path.clone(), bytes, items }));
            }
            if count == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{self, Read};

    use super::{CHUNK, Items, State};
    use crate::error::Error;
    use crate::input::{Batch, Batches};

    /// Some bytes, and then a fault or the end.
    struct Breaking(io::Cursor<Vec<u8>>, bool);

    impl Read for Breaking {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read(bytes)?;
            if count == 0 && self.1 { Err(io::Error::from_raw_os_error(5)) } else { Ok(count) }
        }
    }

    fn items(content: &[u8], breaks: bool) -> Items {
        Items {
            path: std::path::Path::new("in.json").into(),
            input: Box::new(Breaking(io::Cursor::new(content.to_vec()), breaks)),
            bytes: Vec::new(),
            seen: 0,
            start: 0,
            state: State::Open,
            line: 1,
            start_line: 1,
            max_row: 1 << 20,
        }
    }

    #[test]
    fn a_backslash_at_the_edge_of_a_chunk_escapes_what_comes_next() {
        let chunk = usize::try_from(CHUNK).unwrap();
        for tail in ["\\\"}, {", "\\\\", "\\\\\\\"]"] {
            for before in chunk - 16..chunk + 2 {
                let head = format!("[{{\"text\": \"{}", "a".repeat(before - 11));
                let content = format!("{head}{tail}\"}}, {{\"text\": \"b\"}}]");
                let mut found = Vec::new();
                let mut items_of = items(content.as_bytes(), false);
                while let Some(batch) = items_of.next_batch().unwrap() {
                    let Batch::Items { bytes, items, .. } = batch else { panic!("another kind") };
                    found.extend(items.into_iter().map(|(place, _)| String::from_utf8(bytes[place].to_vec()).unwrap()));
                }
                let (first, second) = content[1..content.len() - 1].rsplit_once(", ").unwrap();
                assert_eq!(found, [first, second], "{tail} at {before}");

                let cut = &content.as_bytes()[..before + 1];
                let error = items(cut, true).next_batch().map(|_| ()).unwrap_err();
                assert!(matches!(error, Error::Io { .. }), "{error}");
                let error = items(cut, false).next_batch().map(|_| ()).unwrap_err();
                assert!(error.to_string().contains("cut short"), "{error}");
            }
        }
    }
}
