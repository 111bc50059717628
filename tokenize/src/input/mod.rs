//! What there is to read, and which part of it.

mod batch;
mod jsonl;
mod locate;
mod parquet;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub(crate) use batch::Batch;
pub(crate) use jsonl::count_rows;
pub(crate) use parquet::ParquetFile;

use crate::error::Error;

/// How the input is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Parquet,
    /// One JSON object a line.
    Jsonl,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Jsonl => "jsonl",
        }
    }
}

/// The part of the input that one run takes.
///
/// Consecutive slices, merged in order, equal one run over all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slice {
    All,
    /// Rows of all files together, from 0, the end excluded.
    Rows(Range<u64>),
    /// Bytes of all jsonl files together: the lines that *begin* in the range.
    Bytes(Range<u64>),
}

/// The input files, found and recognised.
#[derive(Clone, Debug)]
pub struct Source {
    given: PathBuf,
    format: Format,
    files: Vec<SourceFile>,
}

/// One file as it was when the run began.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    pub(crate) path: Arc<Path>,
    pub(crate) size: u64,
    modified: Option<SystemTime>,
}

/// Limits and names that every reader needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'run> {
    pub(crate) keys: &'run [String],
    /// In bytes, of one text or one line.
    pub(crate) max_row: usize,
}

impl Source {
    /// Finds the files of `input`: a file, a directory (its data files by
    /// name), or a pattern with `*` and `?` in the last component.
    ///
    /// # Errors
    ///
    /// If there is nothing, or not what its name says.
    pub fn open(input: &Path) -> Result<Self, Error> {
        let (format, paths) = locate::locate(input)?;
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let data = fs::metadata(&path).map_err(Error::io("open", &path))?;
            check_content(format, &path, data.len())?;
            files.push(SourceFile { path: path.into(), size: data.len(), modified: data.modified().ok() });
        }
        Ok(Self { given: input.to_owned(), format, files })
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// The path as it was given.
    pub fn given(&self) -> &Path {
        &self.given
    }

    /// The files in reading order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_ref())
    }

    /// All files together, in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The bytes of `slice`, where they are known without reading.
    pub(crate) fn bytes_of(&self, slice: &Slice) -> Option<u64> {
        match slice {
            Slice::All => Some(self.size()),
            Slice::Bytes(range) => Some(range.end.saturating_sub(range.start)),
            Slice::Rows(_) => None,
        }
    }

    pub(crate) fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The rows of `slice` where that is known without reading: parquet.
    pub(crate) fn known_rows(&self, slice: &Slice) -> Result<Option<u64>, Error> {
        match self.format {
            Format::Jsonl => Ok(match slice {
                Slice::All | Slice::Bytes(_) => None,
                Slice::Rows(rows) => Some(rows.end.saturating_sub(rows.start)),
            }),
            Format::Parquet => {
                let mut total = 0;
                for file in &self.files {
                    total += ParquetFile::open(&file.path)?.rows();
                }
                Ok(Some(match slice {
                    Slice::All | Slice::Bytes(_) => total,
                    Slice::Rows(rows) => rows.end.min(total).saturating_sub(rows.start),
                }))
            }
        }
    }

    /// Sends the batches of `slice` in order until `send` returns `false`.
    pub(crate) fn read(
        &self,
        slice: &Slice,
        reading: Reading<'_>,
        send: &mut dyn FnMut(Batch) -> bool,
    ) -> Result<(), Error> {
        match self.format {
            Format::Parquet => parquet::read(&self.files, slice, reading, send),
            Format::Jsonl => jsonl::read(&self.files, slice, reading, send),
        }
    }

    /// Visits all texts of one key in order until `visit` returns `false`.
    ///
    /// # Errors
    ///
    /// As a run over the whole input.
    pub fn each_text(&self, key: &str, visit: &mut dyn FnMut(&str) -> bool) -> Result<(), Error> {
        let keys = [key.to_owned()];
        let reading = Reading { keys: &keys, max_row: usize::MAX };
        let mut fault = None;
        self.read(&Slice::All, reading, &mut |batch| {
            let mut more = true;
            let visited = batch.each_text(reading, |_, text| {
                more = more && visit(text);
                Ok(())
            });
            fault = visited.err();
            more && fault.is_none()
        })?;
        fault.map_or(Ok(()), Err)
    }

    /// Refuses a slice that the input does not have.
    pub(crate) fn check_slice(&self, slice: &Slice) -> Result<(), Error> {
        let fault = |what: String| Err(Error::Slice { what });
        match slice {
            Slice::All => Ok(()),
            Slice::Rows(range) | Slice::Bytes(range) if range.start > range.end => {
                fault(format!("the slice {}..{} ends before it begins", range.start, range.end))
            }
            Slice::Bytes(_) if self.format == Format::Parquet => {
                fault("parquet is cut by `--rows`, not by `--byte-range`".to_owned())
            }
            Slice::Bytes(range) if range.end > self.size() => {
                fault(format!("the slice ends at byte {}; the input has {}", range.end, self.size()))
            }
            Slice::Rows(range) => match self.known_rows(&Slice::All)? {
                Some(rows) if range.end > rows => {
                    fault(format!("the slice ends at row {}; the input has {rows}", range.end))
                }
                Some(_) | None => Ok(()),
            },
            Slice::Bytes(_) => Ok(()),
        }
    }

    /// Makes the line number of an error count from the start of the file.
    ///
    /// Readers of a byte range count from its start: what lies before is read
    /// only when there is something to report.
    pub(crate) fn renumber(&self, error: Error, slice: &Slice) -> Error {
        let Slice::Bytes(range) = slice else {
            return error;
        };
        let before = |path: &Path| {
            let mut begin = 0;
            for file in &self.files {
                if *file.path == *path {
                    let until = range.start.saturating_sub(begin).min(file.size);
                    return jsonl::count_newlines(path, until).unwrap_or(0);
                }
                begin += file.size;
            }
            0
        };
        // Errors without a line stay as they are, whatever variants come.
        #[allow(clippy::wildcard_enum_match_arm)]
        match error {
            Error::Json { path, line, what } => Error::Json { line: line + before(&path), path, what },
            Error::Field { path, line, what } => Error::Field { line: line + before(&path), path, what },
            Error::LongLine { path, line, limit } => Error::LongLine { line: line + before(&path), path, limit },
            other => other,
        }
    }

    /// Refuses the run if a file is no longer what it was.
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        for file in &self.files {
            let now = fs::metadata(&file.path).map_err(Error::io("open", &*file.path))?;
            if now.len() != file.size || now.modified().ok() != file.modified {
                return Err(Error::Changed { path: file.path.to_path_buf() });
            }
        }
        Ok(())
    }
}

impl SourceFile {
    /// When it was modified, in nanoseconds since 1970; zero if unknown.
    pub(crate) fn modified_nanos(&self) -> u128 {
        let since = self.modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        since.map_or(0, |since| since.as_nanos())
    }

    /// Hashes the content from `start` on.
    pub(crate) fn feed(&self, start: u64, hasher: &mut blake3::Hasher) -> Result<(), Error> {
        let mut file = File::open(&self.path).map_err(Error::io("open", &*self.path))?;
        file.seek(SeekFrom::Start(start)).map_err(Error::io("read", &*self.path))?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            let count = file.read(&mut buffer).map_err(Error::io("read", &*self.path))?;
            if count == 0 {
                return Ok(());
            }
            hasher.update(&buffer[..count]);
        }
    }
}

/// Looks at the first and last bytes: downloads often are not what they seem.
fn check_content(format: Format, path: &Path, size: u64) -> Result<(), Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut head = vec![0; usize::try_from(size.min(512)).unwrap_or(512)];
    file.read_exact_at(&mut head, 0).map_err(Error::io("read", path))?;
    let path = path.to_owned();
    let text = head.trim_ascii_start();
    let starts = |word: &[u8]| text.len() >= word.len() && text[..word.len()].eq_ignore_ascii_case(word);
    if starts(b"<!doctype") || starts(b"<html") {
        let wanted = match format {
            Format::Parquet => "parquet",
            Format::Jsonl => "JSON lines",
        };
        return Err(Error::HtmlPage { path, wanted });
    }
    if starts(b"version https://git-lfs") {
        return Err(Error::LfsPointer { path });
    }
    match format {
        Format::Parquet => {
            if !head.starts_with(b"PAR1") {
                return Err(Error::NotParquet { path, what: "begin" });
            }
            let mut tail = [0; 4];
            if size >= 12 {
                file.read_exact_at(&mut tail, size - 4).map_err(Error::io("read", &path))?;
            }
            if &tail != b"PAR1" {
                return Err(Error::NotParquet { path, what: "end" });
            }
        }
        Format::Jsonl => {
            if head.starts_with(b"\xef\xbb\xbf") || head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
                return Err(Error::ByteOrderMark { path });
            }
            if starts(b"[") {
                return Err(Error::JsonArray { path });
            }
        }
    }
    Ok(())
}
