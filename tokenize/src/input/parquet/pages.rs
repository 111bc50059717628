//! The pages of a parquet file, whose claims are checked before anyone believes them.
//!
//! A page states how large it is unpacked, and the library takes that much
//! memory, or unpacks to the very end whatever was stated.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{ChunkReader, Length};

use super::header::Header;

/// The largest page unpacked, in bytes.
const MAX_PAGE: u64 = 1 << 30;
/// What any page may claim, however small it is packed.
const MODEST: u64 = 16 << 20;
/// What deflate reaches at best, and snappy and LZ4 do not.
const RATIO: u64 = 1032;
/// A block of zstd in four bytes; more is believed of no other either.
const MAX_RATIO: u64 = 1 << 15;
/// What is read at once in search of a header's end, and at most, in bytes.
const HEADER: usize = 512;
const MAX_HEADER: usize = 16 << 20;
const LZ4_FRAME: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

/// A file from which the columns of one row group are read.
pub(super) struct Pages(Arc<Inner>);

struct Inner {
    file: File,
    length: u64,
    chunks: Vec<(Range<u64>, Compression)>,
    /// Where pages begin that may unpack to more than they state.
    suspects: Mutex<HashMap<u64, Header>>,
}

impl Pages {
    /// Refuses columns that do not lie in the file.
    pub(super) fn open(file: File, group: &RowGroupMetaData) -> Result<Self> {
        let length = file.metadata()?.len();
        let mut chunks = Vec::new();
        for column in group.columns() {
            let begin = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
            let (begin, size) = (u64::try_from(begin).ok(), u64::try_from(column.compressed_size()).ok());
            let range = begin.zip(size).and_then(|(begin, size)| Some(begin..begin.checked_add(size)?));
            let Some(range) = range.filter(|range| range.end <= length) else {
                return Err(refused(format!("column `{}` does not lie in the file", column.column_path())));
            };
            chunks.push((range, column.compression()));
        }
        Ok(Self(Arc::new(Inner { file, length, chunks, suspects: Mutex::default() })))
    }
}

impl Inner {
    fn codecs(&self, at: u64) -> impl Iterator<Item = Compression> {
        self.chunks.iter().filter(move |(range, _)| range.contains(&at)).map(|(_, codec)| *codec)
    }

    /// Refuses a page that claims what its packed bytes cannot hold.
    fn check(&self, at: u64, header: Header) -> Result<()> {
        let claimed = u64::try_from(header.unpacked).unwrap_or(u64::MAX);
        let packed = u64::try_from(header.packed).unwrap_or(0);
        for codec in self.codecs(at) {
            let ratio = if is_boundless(codec) { MAX_RATIO } else { RATIO };
            let limit = packed.saturating_mul(ratio).clamp(MODEST, MAX_PAGE);
            if claimed > limit {
                return Err(refused(format!("a page of {packed} bytes claims {claimed} unpacked")));
            }
            // The library unpacks these to their end. Brotli alone knows no bound.
            let to_the_end = matches!(codec, Compression::GZIP(_) | Compression::BROTLI(_) | Compression::LZ4);
            let bounded = !matches!(codec, Compression::BROTLI(_)) && packed.saturating_mul(RATIO) <= MAX_PAGE;
            if to_the_end && !bounded && !header.plain {
                let begin = at.saturating_add(header.length as u64);
                self.suspects.lock().unwrap_or_else(PoisonError::into_inner).insert(begin, header);
            }
        }
        Ok(())
    }

    /// The bytes of the header that begins at `start`, checked.
    fn header(&self, start: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut want = HEADER;
        loop {
            let begin = bytes.len();
            bytes.resize(want, 0);
            let count = read_up_to(&self.file, &mut bytes[begin..], start.saturating_add(begin as u64))?;
            bytes.truncate(begin + count);
            if let Some(header) = Header::parse(&bytes) {
                self.check(start, header)?;
                bytes.truncate(header.length);
                return Ok(bytes);
            }
            if bytes.len() < want || want >= MAX_HEADER {
                return Err(refused(format!("there is no page header at byte {start}")));
            }
            want *= 8;
        }
    }

    /// Unpacks a page into nothing, to see whether it ends where it states.
    fn try_out(&self, at: u64, header: Header, page: &[u8]) -> Result<()> {
        let stated = u64::try_from(i64::from(header.unpacked) - header.levels).unwrap_or(0);
        let Some(packed) = usize::try_from(header.levels).ok().and_then(|levels| page.get(levels..)) else {
            return Ok(());
        };
        for codec in self.codecs(at) {
            let Some(unpacked) = unpack(codec, packed) else { continue };
            // What is damaged before that point stops the library as well.
            if io::copy(&mut unpacked.take(stated + 1), &mut io::sink()).is_ok_and(|count| count > stated) {
                return Err(refused(format!("a page unpacks to more than the {stated} bytes that it states")));
            }
        }
        Ok(())
    }
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.0.length
    }
}

impl ChunkReader for Pages {
    type T = HeaderReader;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(HeaderReader { pages: self.0.clone(), start, header: None })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if start.saturating_add(length as u64) > self.0.length {
            return Err(refused(format!("{length} bytes at byte {start} do not lie in the file")));
        }
        let mut page = vec![0; length];
        self.0.file.read_exact_at(&mut page, start)?;
        let suspect = self.0.suspects.lock().unwrap_or_else(PoisonError::into_inner).remove(&start);
        if let Some(header) = suspect {
            self.0.try_out(start, header, &page)?;
        }
        Ok(page.into())
    }
}

/// Gives out the header that begins at `start`, once it is checked.
///
/// Nothing is looked at before it is read: the library also asks for a reader
/// where a page's content begins, and drops it.
pub(super) struct HeaderReader {
    pages: Arc<Inner>,
    start: u64,
    header: Option<Cursor<Vec<u8>>>,
}

impl Read for HeaderReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let header = match &mut self.header {
            Some(header) => header,
            None => self.header.insert(Cursor::new(self.pages.header(self.start).map_err(io::Error::other)?)),
        };
        header.read(bytes)
    }
}

/// The content of a page whose codec unpacks to the end.
fn unpack(codec: Compression, packed: &[u8]) -> Option<Box<dyn Read + '_>> {
    // The library's list of codecs, which only it extends.
    #[allow(clippy::wildcard_enum_match_arm)]
    match codec {
        Compression::GZIP(_) => Some(Box::new(flate2::read::MultiGzDecoder::new(packed))),
        Compression::BROTLI(_) => Some(Box::new(brotli::Decompressor::new(packed, 1 << 16))),
        Compression::LZ4 if packed.starts_with(&LZ4_FRAME) => {
            Some(Box::new(lz4_flex::frame::FrameDecoder::new(packed)))
        }
        _ => None,
    }
}

/// Whether a few bytes of this may stand for any number of others.
fn is_boundless(codec: Compression) -> bool {
    matches!(codec, Compression::ZSTD(_) | Compression::BROTLI(_))
}

fn refused(what: String) -> ParquetError {
    ParquetError::General(what)
}

fn read_up_to(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < bytes.len() {
        match file.read_at(&mut bytes[count..], at.saturating_add(count as u64)) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}
