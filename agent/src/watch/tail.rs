//! Follows a growing file line by line.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Longest part of a line that is kept, in bytes.
const LONGEST: usize = 64 << 10;
/// Most bytes read in one turn.
const TURN: u64 = 4 << 20;

/// A file being followed.
///
/// Invalid UTF-8 is replaced, the rest of a line beyond 64 KiB is dropped, and
/// a file that shrank or was replaced is read from its beginning.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
    seen: Option<(u64, u64)>,
    partial: Vec<u8>,
    segments: u32,
}

impl Tail {
    /// Follows `path`, which need not exist, from its beginning.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), offset: 0, seen: None, partial: Vec::new(), segments: 0 }
    }

    /// How often the file was replaced or shrank.
    #[must_use]
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// Reads what was added, at most 4 MiB, and calls `line` for each whole line.
    ///
    /// Returns whether anything was read: then there may be more.
    ///
    /// # Errors
    ///
    /// Whatever the file system says; a missing file is none.
    pub fn turn(&mut self, mut line: impl FnMut(&str)) -> io::Result<bool> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        self.notice_segment(&file.metadata()?);
        file.seek(SeekFrom::Start(self.offset))?;
        let mut added = Vec::new();
        let read = file.take(TURN).read_to_end(&mut added)?;
        self.offset += u64::try_from(read).unwrap_or(0);
        for piece in added.split_inclusive(|b| *b == b'\n') {
            let whole = piece.ends_with(b"\n");
            let text = if whole { &piece[..piece.len() - 1] } else { piece };
            let room = LONGEST.saturating_sub(self.partial.len()).min(text.len());
            self.partial.extend_from_slice(&text[..room]);
            if whole {
                line(String::from_utf8_lossy(&self.partial).trim_end_matches('\r'));
                self.partial.clear();
            }
        }
        Ok(read > 0)
    }

    /// Hands out the last line if the file ends without a line feed.
    pub fn flush(&mut self, mut line: impl FnMut(&str)) {
        if !self.partial.is_empty() {
            line(&String::from_utf8_lossy(&self.partial));
            self.partial.clear();
        }
    }

    fn notice_segment(&mut self, meta: &Metadata) {
        let now = (meta.dev(), meta.ino());
        let replaced = self.seen.is_some_and(|seen| seen != now);
        if replaced || meta.len() < self.offset {
            self.offset = 0;
            self.partial.clear();
            self.segments += 1;
        }
        self.seen = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    fn lines(tail: &mut Tail) -> Vec<String> {
        let mut all = Vec::new();
        while tail.turn(|line| all.push(line.to_owned())).unwrap() {}
        all
    }

    #[test]
    fn lines_come_whole_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut tail = Tail::new(&path);
        assert!(lines(&mut tail).is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(lines(&mut tail), ["one"]);
        file.write_all(b"o\r\n\xff\nrest").unwrap();
        assert_eq!(lines(&mut tail), ["two", "\u{fffd}"]);
        let mut rest = Vec::new();
        tail.flush(|line| rest.push(line.to_owned()));
        assert_eq!(rest, ["rest"]);
    }

    #[test]
    fn a_shrunk_or_replaced_file_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "a long first line\n").unwrap();
        let mut tail = Tail::new(&path);
        assert_eq!(lines(&mut tail).len(), 1);
        fs::write(&path, "short\n").unwrap();
        assert_eq!((lines(&mut tail), tail.segments()), (vec!["short".to_owned()], 1));
        fs::write(dir.path().join("new"), "another file\n").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!((lines(&mut tail), tail.segments()), (vec!["another file".to_owned()], 2));
    }

    #[test]
    fn a_line_without_end_costs_bounded_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut text = vec![b'x'; 300 << 10];
        text.extend_from_slice(b"\nnext\n");
        fs::write(&path, text).unwrap();
        let read = lines(&mut Tail::new(&path));
        assert_eq!((read[0].len(), read[1].as_str()), (LONGEST, "next"));
    }
}
