//! Reads an index without believing it.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Take};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{HEADER, ID_BYTES, INT32, MAGIC, Pair, VERSION};
use crate::error::Error;

/// A checked index.
///
/// Opening one reads it whole, in constant memory: counts against the file's
/// size, offsets against lengths, the document index against both, and the
/// size of the `.bin` against the sum.
#[derive(Debug)]
pub struct Index {
    pair: Pair,
    sequences: u64,
    documents: u64,
    lengths: Lengths,
}

/// What the sequence lengths add up to, in ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    pub total: u64,
    pub shortest: u64,
    pub longest: u64,
}

/// One of the two sections that a merge copies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Section {
    Lengths,
    Documents,
}

impl Index {
    /// Opens and checks `pair`.
    ///
    /// # Errors
    ///
    /// [`Error::Index`] for the first inconsistency, [`Error::Io`] if a file
    /// is missing or unreadable.
    pub fn open(pair: &Pair) -> Result<Self, Error> {
        let file = File::open(&pair.idx).map_err(Error::io("open", &pair.idx))?;
        let size = file.metadata().map_err(Error::io("open", &pair.idx))?.len();
        let fault = |what: String| Error::index(&pair.idx, what);
        if size < HEADER {
            return Err(fault(format!("{size} bytes are too few for a header")));
        }
        let mut header = [0; 34];
        file.read_exact_at(&mut header, 0).map_err(Error::io("read", &pair.idx))?;
        let (sequences, ends) = counts(&header).map_err(fault)?;
        let expected = u128::from(HEADER) + 12 * u128::from(sequences) + 8 * u128::from(ends);
        if expected != u128::from(size) {
            return Err(fault(format!(
                "it claims {sequences} sequences and {ends} document entries, {expected} bytes, but has {size}"
            )));
        }
        if ends == 0 {
            return Err(fault("it has no document index".to_owned()));
        }
        let mut index = Self { pair: pair.clone(), sequences, documents: ends - 1, lengths: Lengths::default() };
        index.lengths = index.check_lengths()?;
        index.check_documents()?;
        let bin = std::fs::metadata(&pair.bin).map_err(Error::io("open", &pair.bin))?.len();
        if bin != index.lengths.total * ID_BYTES {
            return Err(fault(format!(
                "its sequences hold {} ids, {} bytes, but the .bin has {bin}",
                index.lengths.total,
                index.lengths.total * ID_BYTES
            )));
        }
        Ok(index)
    }

    pub fn sequences(&self) -> u64 {
        self.sequences
    }

    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// All token ids.
    pub fn ids(&self) -> u64 {
        self.lengths.total
    }

    pub fn lengths(&self) -> Lengths {
        self.lengths
    }

    /// The path of the `.idx`.
    pub fn path(&self) -> &Path {
        &self.pair.idx
    }

    pub(crate) fn bin_path(&self) -> &Path {
        &self.pair.bin
    }

    /// Visits the length of each sequence in order, in ids.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read.
    pub fn each_length(&self, visit: &mut dyn FnMut(u64)) -> Result<(), Error> {
        let mut lengths = self.section(Section::Lengths)?;
        let mut length = [0; 4];
        for _ in 0..self.sequences {
            lengths.read_exact(&mut length).map_err(Error::io("read", &self.pair.idx))?;
            visit(u64::from(u32::from_le_bytes(length)));
        }
        Ok(())
    }

    /// The ids of one sequence, at most `limit` of them.
    ///
    /// # Errors
    ///
    /// [`Error::Index`] if there is no such sequence, [`Error::Io`].
    pub fn ids_of(&self, sequence: u64, limit: usize) -> Result<Vec<i32>, Error> {
        if sequence >= self.sequences {
            return Err(Error::index(&self.pair.idx, format!("it has no sequence {sequence}")));
        }
        let (mut length, mut offset) = ([0; 4], [0; 8]);
        let mut span = self.span(HEADER + 4 * sequence, 4)?;
        span.read_exact(&mut length).map_err(Error::io("read", &self.pair.idx))?;
        let mut span = self.span(HEADER + 4 * self.sequences + 8 * sequence, 8)?;
        span.read_exact(&mut offset).map_err(Error::io("read", &self.pair.idx))?;
        let count = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX).min(limit);
        let mut bytes = vec![0; 4 * count];
        let bin = File::open(&self.pair.bin).map_err(Error::io("open", &self.pair.bin))?;
        bin.read_exact_at(&mut bytes, u64::from_le_bytes(offset)).map_err(Error::io("read", &self.pair.bin))?;
        Ok(bytes.chunks_exact(4).map(|id| i32::from_le_bytes([id[0], id[1], id[2], id[3]])).collect())
    }

    /// The bytes of one section.
    pub(crate) fn section(&self, section: Section) -> Result<Take<BufReader<File>>, Error> {
        match section {
            Section::Lengths => self.span(HEADER, 4 * self.sequences),
            Section::Documents => self.span(HEADER + 12 * self.sequences, 8 * (self.documents + 1)),
        }
    }

    fn span(&self, start: u64, length: u64) -> Result<Take<BufReader<File>>, Error> {
        let mut file = File::open(&self.pair.idx).map_err(Error::io("open", &self.pair.idx))?;
        file.seek(SeekFrom::Start(start)).map_err(Error::io("read", &self.pair.idx))?;
        Ok(BufReader::with_capacity(1 << 16, file).take(length))
    }

    fn check_lengths(&self) -> Result<Lengths, Error> {
        let mut lengths = self.section(Section::Lengths)?;
        let mut offsets = self.span(HEADER + 4 * self.sequences, 8 * self.sequences)?;
        let mut sum = Lengths { shortest: u64::MAX, ..Lengths::default() };
        let (mut length, mut offset) = ([0; 4], [0; 8]);
        for position in 0..self.sequences {
            lengths.read_exact(&mut length).map_err(Error::io("read", &self.pair.idx))?;
            offsets.read_exact(&mut offset).map_err(Error::io("read", &self.pair.idx))?;
            let length = u64::try_from(i32::from_le_bytes(length))
                .map_err(|_| Error::index(&self.pair.idx, format!("sequence {position} has a negative length")))?;
            let offset = i64::from_le_bytes(offset);
            if i64::try_from(sum.total * ID_BYTES) != Ok(offset) {
                return Err(Error::index(
                    &self.pair.idx,
                    format!("sequence {position} begins at {offset}, not at {}", sum.total * ID_BYTES),
                ));
            }
            // At most 2^31 ids for each 12 bytes of a real file: no overflow.
            sum.total += length;
            sum.shortest = sum.shortest.min(length);
            sum.longest = sum.longest.max(length);
        }
        if self.sequences == 0 {
            sum.shortest = 0;
        }
        Ok(sum)
    }

    fn check_documents(&self) -> Result<(), Error> {
        let mut ends = self.section(Section::Documents)?;
        let mut last = 0;
        let mut end = [0; 8];
        for position in 0..=self.documents {
            ends.read_exact(&mut end).map_err(Error::io("read", &self.pair.idx))?;
            let end = u64::from_le_bytes(end);
            let sound = if position == 0 { end == 0 } else { end >= last && end <= self.sequences };
            if !sound {
                return Err(Error::index(&self.pair.idx, format!("document entry {position} is {end}")));
            }
            last = end;
        }
        if last != self.sequences {
            return Err(Error::index(
                &self.pair.idx,
                format!("its documents end at sequence {last} of {}", self.sequences),
            ));
        }
        Ok(())
    }
}

/// The two counts of a header whose constants are right.
fn counts(header: &[u8; 34]) -> Result<(u64, u64), String> {
    if &header[..9] != MAGIC {
        return Err("it does not begin with `MMIDIDX`".to_owned());
    }
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    if number(9) != VERSION {
        return Err(format!("its version is {}, not {VERSION}", number(9)));
    }
    if header[17] != INT32 {
        return Err(format!("its ids have type code {}, not {INT32} (i32)", header[17]));
    }
    Ok((number(18), number(26)))
}
