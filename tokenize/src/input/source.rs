//! The input files, found and recognised.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::arrow::ArrowFile;
use super::csv::CsvFile;
use super::locate::{self, Kind, Located};
use super::{Absent, Batch, Compression, Format, ParquetFile, Reading, Slice, lines, parquet, sequence};
use crate::error::Error;

/// The one column of a file of plain lines.
pub(super) const TEXT: &str = "text";

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
    pub(super) kind: Kind,
    /// One JSON array rather than lines.
    pub(super) array: bool,
    modified: Option<SystemTime>,
}

impl Source {
    /// Finds the files of `input`: a file, a directory (its data files by
    /// name), or a pattern with `*` and `?` in the last component.
    ///
    /// # Errors
    ///
    /// If there is nothing, or not what its name says.
    pub fn open(input: &Path) -> Result<Self, Error> {
        Self::open_all(&[input.to_owned()])
    }

    /// Finds the files of several inputs, one after the other.
    ///
    /// # Errors
    ///
    /// As [`Source::open`], and if their formats differ.
    pub fn open_all(inputs: &[PathBuf]) -> Result<Self, Error> {
        let given = inputs.first().cloned().unwrap_or_default();
        let mut files = Vec::new();
        for Located { path, kind } in locate::locate(inputs)? {
            let data = fs::metadata(&path).map_err(Error::io("open", &path))?;
            let modified = data.modified().ok();
            let mut file = SourceFile { path: path.into(), size: data.len(), kind, array: false, modified };
            file.array = file.check_content()?;
            files.push(file);
        }
        let Some(format) = files.first().map(|file| file.kind.format) else {
            return Err(Error::NothingToRead { path: given });
        };
        Ok(Self { given, format, files })
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// The first path as it was given.
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

    /// Whether [`Slice::Bytes`] can cut it: plain files of lines.
    pub fn has_byte_slices(&self) -> bool {
        let lines = matches!(self.format, Format::Jsonl | Format::Text);
        lines && self.files.iter().all(|file| !file.array && file.kind.compression == Compression::None)
    }

    /// The bytes of `slice`, where they are known without reading.
    pub(crate) fn bytes_of(&self, slice: &Slice) -> Option<u64> {
        match slice {
            Slice::All => self.files.iter().all(|file| file.kind.compression == Compression::None).then(|| self.size()),
            Slice::Bytes(range) => Some(range.end.saturating_sub(range.start)),
            Slice::Rows(_) => None,
        }
    }

    pub(crate) fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The rows of `slice` where that is known without reading: parquet.
    pub(crate) fn known_rows(&self, slice: &Slice) -> Result<Option<u64>, Error> {
        if self.format != Format::Parquet {
            return Ok(match slice {
                Slice::All | Slice::Bytes(_) => None,
                Slice::Rows(rows) => Some(rows.end.saturating_sub(rows.start)),
            });
        }
        let mut total = 0;
        for file in &self.files {
            total += ParquetFile::open(&file.path)?.rows();
        }
        Ok(Some(match slice {
            Slice::All | Slice::Bytes(_) => total,
            Slice::Rows(rows) => rows.end.min(total).saturating_sub(rows.start),
        }))
    }

    /// All rows, by reading everything where nothing else tells.
    pub(crate) fn count_rows(&self, max_row: usize) -> Result<u64, Error> {
        if let Some(rows) = self.known_rows(&Slice::All)? {
            return Ok(rows);
        }
        self.files.iter().map(|file| sequence::count_rows(file, max_row)).sum()
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
            Format::Jsonl | Format::Csv | Format::Text | Format::Arrow => {
                sequence::read(&self.files, slice, reading, send)
            }
        }
    }

    /// Visits all texts of one key in order until `visit` returns `false`.
    ///
    /// # Errors
    ///
    /// As a run over the whole input.
    pub fn each_text(&self, key: &str, visit: &mut dyn FnMut(&str) -> bool) -> Result<(), Error> {
        self.each(key, &Slice::All, Absent::Refused, usize::MAX, &mut |text| text.is_none_or(&mut *visit))
    }

    /// Visits the values of one key in a slice, nulls as `None`, until `visit`
    /// returns `false`; none is longer than `max_row`, in bytes.
    ///
    /// # Errors
    ///
    /// As a run over the slice that takes nulls.
    pub fn each_value(
        &self,
        key: &str,
        slice: &Slice,
        max_row: usize,
        visit: &mut dyn FnMut(Option<&str>) -> bool,
    ) -> Result<(), Error> {
        self.each(key, slice, Absent::Null, max_row, visit)
    }

    fn each(
        &self,
        key: &str,
        slice: &Slice,
        absent: Absent,
        max_row: usize,
        visit: &mut dyn FnMut(Option<&str>) -> bool,
    ) -> Result<(), Error> {
        let keys = [key.to_owned()];
        let reading = Reading { keys: &keys, max_row, absent };
        let mut fault = None;
        self.read(slice, reading, &mut |batch| {
            let mut more = true;
            let visited = batch.each_row(reading, |texts| {
                more = more && texts.iter().all(|text| visit(*text));
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
            Slice::Bytes(_) if !self.has_byte_slices() => {
                let what = if self.format == Format::Parquet { "parquet is" } else { "this input can only be" };
                fault(format!("{what} cut by `--rows`, not by `--byte-range`"))
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

    /// Refuses files that list other columns than the first one does.
    pub(crate) fn check_columns(&self) -> Result<(), Error> {
        let mut files = self.files.iter().skip(1).peekable();
        if files.peek().is_none() {
            return Ok(());
        }
        let first = self.files[0].columns()?;
        for file in files {
            let other = file.columns()?;
            let lacks = |some: &[String], all: &[String]| some.iter().find(|name| !all.contains(name)).cloned();
            let what = match (lacks(&other, &first), lacks(&first, &other)) {
                (Some(name), _) => format!("has a column `{name}`"),
                (None, Some(name)) => format!("has no column `{name}`"),
                (None, None) => continue,
            };
            return Err(Error::Columns {
                path: file.path.to_path_buf(),
                what,
                first: self.files[0].path.to_path_buf(),
            });
        }
        Ok(())
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
                    return lines::count_newlines(path, until).unwrap_or(0);
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

    /// Opens the content, unpacked.
    pub(super) fn open(&self) -> Result<Box<dyn Read + Send>, Error> {
        let file = File::open(&self.path).map_err(Error::io("open", &*self.path))?;
        let buffered = |file| BufReader::with_capacity(1 << 17, file);
        Ok(match self.kind.compression {
            Compression::None => Box::new(buffered(file)),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(file))),
            Compression::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(buffered(file));
                Box::new(decoder.map_err(Error::reading(&self.path))?)
            }
        })
    }

    /// The columns that the file itself lists; none for JSON.
    pub(crate) fn columns(&self) -> Result<Vec<String>, Error> {
        let reading = Reading { keys: &[], max_row: 1 << 20, absent: Absent::Anything };
        Ok(match self.kind.format {
            Format::Parquet => ParquetFile::open(&self.path)?.columns().map(|(name, _)| name.to_owned()).collect(),
            Format::Csv => CsvFile::open(self, reading)?.header()?,
            Format::Arrow => ArrowFile::open(self, reading)?.names().to_vec(),
            Format::Text => vec![TEXT.to_owned()],
            Format::Jsonl => Vec::new(),
        })
    }

    /// Looks at the first and last bytes: downloads often are not what they
    /// seem. Returns whether it is a JSON array.
    fn check_content(&self) -> Result<bool, Error> {
        let path = || self.path.to_path_buf();
        let mut head = Vec::new();
        let plain = File::open(&self.path).map_err(Error::io("open", &*self.path))?;
        plain.take(512).read_to_end(&mut head).map_err(Error::reading(&self.path))?;
        let starts = |word: &[u8]| {
            let text = head.trim_ascii_start();
            text.len() >= word.len() && text[..word.len()].eq_ignore_ascii_case(word)
        };
        let format = self.kind.format;
        if format != Format::Text && (starts(b"<!doctype") || starts(b"<html")) {
            let wanted = if format == Format::Jsonl { "JSON lines" } else { format.name() };
            return Err(Error::HtmlPage { path: path(), wanted });
        }
        if starts(b"version https://git-lfs") {
            return Err(Error::LfsPointer { path: path() });
        }
        match format {
            Format::Parquet => {
                if !head.starts_with(b"PAR1") {
                    return Err(Error::NotParquet { path: path(), what: "begin" });
                }
                let mut tail = Vec::new();
                if self.size >= 12 {
                    let mut file = File::open(&self.path).map_err(Error::io("open", &*self.path))?;
                    file.seek(SeekFrom::Start(self.size - 4)).map_err(Error::io("read", &*self.path))?;
                    file.read_to_end(&mut tail).map_err(Error::reading(&self.path))?;
                }
                if tail != b"PAR1" {
                    return Err(Error::NotParquet { path: path(), what: "end" });
                }
                Ok(false)
            }
            Format::Jsonl => {
                head.clear();
                self.open()?.take(512).read_to_end(&mut head).map_err(Error::reading(&self.path))?;
                let mark: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"];
                if mark.iter().any(|mark| head.starts_with(mark)) {
                    return Err(Error::ByteOrderMark { path: path() });
                }
                Ok(head.trim_ascii_start().first() == Some(&b'['))
            }
            Format::Csv | Format::Text | Format::Arrow => Ok(false),
        }
    }
}

/// Where the keys are among the columns that a file lists.
pub(super) fn columns_for(path: &Path, names: &[String], reading: Reading<'_>) -> Result<Vec<Option<usize>>, Error> {
    let mut positions = Vec::new();
    for key in reading.keys {
        let position = names.iter().position(|name| name == key);
        if position.is_none() && reading.absent != Absent::Anything {
            let mut have: Vec<String> = names.iter().take(20).map(|name| format!("`{name}`")).collect();
            if names.len() > have.len() {
                have.push("…".to_owned());
            }
            let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
            return Err(Error::NoColumn { path: path.to_owned(), key: key.clone(), have });
        }
        positions.push(position);
    }
    Ok(positions)
}

/// Refuses keys that lines of text do not have.
pub(super) fn only_text(file: &SourceFile, reading: Reading<'_>) -> Result<(), Error> {
    columns_for(&file.path, &[TEXT.to_owned()], reading).map(|_| ())
}
