//! Writes a pair in constant memory.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::reader::{Index, Section};
use super::{HEADER, ID_BYTES, INT32, MAGIC, Pair, VERSION};
use crate::error::Error;
use crate::output::{OutputFile, Temp, digest_file, remove_if_present};

/// A pair in the making.
///
/// The lengths go straight to the new `.idx`, the document index to an
/// unnamed file beside it: no list grows with the input.
pub(crate) struct PairWriter {
    bin: Temp,
    idx: Temp,
    lengths: BufWriter<File>,
    documents: BufWriter<File>,
    sequences: u64,
    ends: u64,
    ids: u64,
    hasher: Option<blake3::Hasher>,
}

impl PairWriter {
    /// Opens both temporary files of `pair`.
    pub(crate) fn create(pair: &Pair, digests: bool) -> Result<Self, Error> {
        let bin = Temp::create(&pair.bin)?;
        let idx = Temp::create(&pair.idx)?;
        let mut lengths = BufWriter::with_capacity(1 << 16, idx.file().try_clone().map_err(idx.fault("open"))?);
        // The counts are known at the end; their place is kept.
        lengths.write_all(&[0; 34]).map_err(idx.fault("write"))?;
        let documents = unnamed_beside(&pair.idx)?;
        let mut writer = Self {
            bin,
            idx,
            lengths,
            documents: BufWriter::with_capacity(1 << 16, documents),
            sequences: 0,
            ends: 0,
            ids: 0,
            hasher: digests.then(blake3::Hasher::new),
        };
        writer.push_end(0)?;
        Ok(writer)
    }

    /// Appends ids, already little-endian, to the `.bin`.
    pub(crate) fn write_ids(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.bin.write_all(bytes)
    }

    /// Records a sequence of `length` ids.
    pub(crate) fn add_sequence(&mut self, length: i32) -> Result<(), Error> {
        self.lengths.write_all(&length.to_le_bytes()).map_err(self.idx.fault("write"))?;
        self.sequences += 1;
        self.ids += u64::from(length.unsigned_abs());
        Ok(())
    }

    /// Ends a document after the sequences recorded so far.
    pub(crate) fn end_document(&mut self) -> Result<(), Error> {
        self.push_end(self.sequences)
    }

    pub(crate) fn sequences(&self) -> u64 {
        self.sequences
    }

    pub(crate) fn documents(&self) -> u64 {
        self.ends - 1
    }

    pub(crate) fn ids(&self) -> u64 {
        self.ids
    }

    /// Appends the whole of another pair.
    pub(crate) fn append(&mut self, part: &Index) -> Result<(), Error> {
        if self.hasher.is_some() {
            // The digest is taken from the copied file at the end.
            self.hasher = None;
        }
        copy_all(part, &self.bin)?;
        let before = self.sequences;
        let mut lengths = part.section(Section::Lengths)?;
        io::copy(&mut lengths, &mut self.lengths).map_err(self.idx.fault("write"))?;
        let mut ends = part.section(Section::Documents)?;
        let mut end = [0; 8];
        for position in 0..=part.documents() {
            ends.read_exact(&mut end).map_err(Error::io("read", part.path()))?;
            if position > 0 {
                self.push_end(before + u64::from_le_bytes(end))?;
            }
        }
        self.sequences += part.sequences();
        self.ids += part.ids();
        Ok(())
    }

    /// Ends the writing and gives what was written to a reader, with the
    /// lengths of the sequences in ids.
    pub(crate) fn into_written(mut self) -> Result<(Written, Vec<u32>), Error> {
        self.lengths.flush().map_err(self.idx.fault("write"))?;
        let mut lengths = Vec::with_capacity(usize::try_from(self.sequences).unwrap_or(0));
        let mut position = HEADER;
        let end = HEADER + 4 * self.sequences;
        let mut buffer = vec![0; 1 << 16];
        while position < end {
            let want = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
            self.idx.file().read_exact_at(&mut buffer[..want], position).map_err(self.idx.fault("read"))?;
            let words = buffer[..want].chunks_exact(4);
            lengths.extend(words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])));
            position += want as u64;
        }
        Ok((Written { bin: self.bin }, lengths))
    }

    /// Completes both files and pushes them to the disk, still unnamed.
    pub(crate) fn seal(mut self) -> Result<Sealed, Error> {
        self.lengths.flush().map_err(self.idx.fault("write"))?;
        let mut tail = BufWriter::with_capacity(1 << 16, self.idx.file().try_clone().map_err(self.idx.fault("open"))?);
        tail.seek(SeekFrom::End(0)).map_err(self.idx.fault("write"))?;
        self.push_offsets(&mut tail)?;
        self.documents.flush().map_err(self.idx.fault("write"))?;
        let mut documents = self.documents.get_ref();
        documents.seek(SeekFrom::Start(0)).map_err(self.idx.fault("write"))?;
        io::copy(&mut documents, &mut tail).map_err(self.idx.fault("write"))?;
        tail.flush().map_err(self.idx.fault("write"))?;
        let header = header(self.sequences, self.ends);
        self.idx.file().write_all_at(&header, 0).map_err(self.idx.fault("write"))?;
        self.bin.sync()?;
        self.idx.sync()?;
        Ok(Sealed {
            bin_size: self.ids * ID_BYTES,
            idx_size: HEADER + 12 * self.sequences + 8 * self.ends,
            bin: self.bin,
            idx: self.idx,
            bin_digest: self.hasher.map(|hasher| format!("blake3:{}", hasher.finalize().to_hex())),
        })
    }

    fn push_end(&mut self, sequences: u64) -> Result<(), Error> {
        self.documents.write_all(&sequences.to_le_bytes()).map_err(self.idx.fault("write"))?;
        self.ends += 1;
        Ok(())
    }

    /// Reads the lengths back and writes where each sequence begins.
    fn push_offsets(&self, tail: &mut BufWriter<File>) -> Result<(), Error> {
        let mut position = HEADER;
        let end = HEADER + 4 * self.sequences;
        let mut offset = 0_u64;
        let mut buffer = vec![0; 1 << 16];
        while position < end {
            let want = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
            let chunk = &mut buffer[..want];
            self.idx.file().read_exact_at(chunk, position).map_err(self.idx.fault("read"))?;
            for length in chunk.chunks_exact(4) {
                tail.write_all(&offset.to_le_bytes()).map_err(self.idx.fault("write"))?;
                let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
                offset += u64::from(length) * ID_BYTES;
            }
            position += want as u64;
        }
        Ok(())
    }
}

impl std::fmt::Debug for PairWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PairWriter")
            .field("bin", &self.bin)
            .field("sequences", &self.sequences)
            .finish_non_exhaustive()
    }
}

/// The sequences of a pair that never gets a name.
pub(crate) struct Written {
    bin: Temp,
}

impl Written {
    /// Reads ids at `offset`, in bytes, as they are stored.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.bin.file().read_exact_at(bytes, offset).map_err(self.bin.fault("read"))
    }
}

/// A complete pair that has no name yet.
#[derive(Debug)]
pub(crate) struct Sealed {
    bin: Temp,
    idx: Temp,
    bin_size: u64,
    idx_size: u64,
    bin_digest: Option<String>,
}

impl Sealed {
    /// Removes an older index, so that none stands beside a newer `.bin`.
    pub(crate) fn retire_older(&self) -> Result<(), Error> {
        remove_if_present(self.idx.wanted())
    }

    /// The path of the `.idx`-to-be.
    pub(crate) fn path(&self) -> &std::path::Path {
        self.idx.wanted()
    }

    pub(crate) fn publish_bin(&mut self) -> Result<(), Error> {
        self.bin.publish()
    }

    /// Publishes the index: the mark of a complete pair.
    pub(crate) fn publish_idx(&mut self) -> Result<(), Error> {
        self.idx.publish()
    }

    /// The finished files, hashed if `digests`.
    pub(crate) fn files(&self, digests: bool) -> Result<[OutputFile; 2], Error> {
        let bin = self.bin.wanted().to_owned();
        let idx = self.idx.wanted().to_owned();
        let bin_digest = match (&self.bin_digest, digests) {
            (Some(digest), true) => Some(digest.clone()),
            (None, true) => Some(digest_file(&bin)?),
            (_, false) => None,
        };
        let idx_digest = digests.then(|| digest_file(&idx)).transpose()?;
        Ok([
            OutputFile { path: bin, size: self.bin_size, digest: bin_digest },
            OutputFile { path: idx, size: self.idx_size, digest: idx_digest },
        ])
    }
}

fn header(sequences: u64, ends: u64) -> [u8; 34] {
    let mut header = [0; 34];
    header[..9].copy_from_slice(MAGIC);
    header[9..17].copy_from_slice(&VERSION.to_le_bytes());
    header[17] = INT32;
    header[18..26].copy_from_slice(&sequences.to_le_bytes());
    header[26..].copy_from_slice(&ends.to_le_bytes());
    header
}

/// A file without a name, on the file system that the result goes to.
fn unnamed_beside(path: &Path) -> Result<File, Error> {
    let temp = Temp::create(&path.with_extension("documents"))?;
    // Dropping `temp` removes the name; the clone keeps the content.
    temp.file().try_clone().map_err(temp.fault("open"))
}

/// Copies the part's ids, inside the kernel where the file systems allow it.
fn copy_all(part: &Index, target: &Temp) -> Result<(), Error> {
    let path = part.bin_path();
    let source = File::open(path).map_err(Error::io("open", path))?;
    let mut left = part.ids() * ID_BYTES;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(&source, None, target.file(), None, want) {
            Ok(0) => return Err(Error::index(part.path(), "its .bin shrank while it was copied")),
            Ok(copied) => left -= copied as u64,
            // Unsupported here (old kernels, two file systems): an ordinary
            // copy goes on from the same positions.
            Err(_) => {
                let mut rest = BufReader::with_capacity(1 << 18, &source).take(left);
                let copied = io::copy(&mut rest, &mut target.file()).map_err(target.fault("write"))?;
                if copied < left {
                    return Err(Error::index(part.path(), "its .bin shrank while it was copied"));
                }
                left = 0;
            }
        }
    }
    let now = fs::metadata(path).map_err(Error::io("open", path))?.len();
    if now != part.ids() * ID_BYTES {
        return Err(Error::index(part.path(), "its .bin changed while it was copied"));
    }
    Ok(())
}
