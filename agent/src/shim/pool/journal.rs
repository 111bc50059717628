//! An append-only file with one writer: `length u32 | crc32 u32 | JSON`, little-endian.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::marker::PhantomData;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest record that is believed.
const LARGEST: usize = 16 << 20;
/// Length and checksum.
const HEAD: usize = 8;

/// The writing end.
#[derive(Debug)]
pub struct Writer<T> {
    file: File,
    /// Bytes of whole records.
    length: u64,
    staged: Vec<u8>,
    kind: PhantomData<fn(&T)>,
}

impl<T: Serialize + DeserializeOwned> Writer<T> {
    /// Opens or makes the file and returns what is in it. A torn end, left by
    /// a writer that died, is cut off.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<T>)> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let mut reader = Reader::open(path)?;
        let records = reader.turn()?;
        file.set_len(reader.offset)?;
        Ok((Self { file, length: reader.offset, staged: Vec::new(), kind: PhantomData }, records))
    }

    /// Adds a record to the next [`Writer::commit`].
    ///
    /// # Errors
    ///
    /// If it cannot be put into JSON.
    pub fn stage(&mut self, record: &T) -> io::Result<()> {
        let begin = self.staged.len();
        self.staged.extend_from_slice(&[0; HEAD]);
        serde_json::to_writer(&mut self.staged, record)?;
        let payload = &self.staged[begin + HEAD..];
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let sum = crc32fast::hash(payload);
        self.staged[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
        self.staged[begin + 4..begin + HEAD].copy_from_slice(&sum.to_le_bytes());
        Ok(())
    }

    /// Whether something was staged.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Appends what was staged, in one write. After an error nothing of it
    /// counts, and the call may be repeated.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn commit(&mut self) -> io::Result<()> {
        if let Err(error) = self.file.write_all(&self.staged) {
            // What was written of it must not come before the next attempt.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += u64::try_from(self.staged.len()).unwrap_or(0);
        self.staged.clear();
        Ok(())
    }

    /// Drops what was staged.
    pub fn discard(&mut self) {
        self.staged.clear();
    }
}

/// The reading end, which follows a file that grows.
#[derive(Debug)]
pub struct Reader<T> {
    file: File,
    /// Behind the last whole record that was read.
    offset: u64,
    kind: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Reader<T> {
    /// Opens the file, which must be there.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, offset: 0, kind: PhantomData })
    }

    /// The whole records that were added. One that is not whole yet is left
    /// for the next turn; nothing behind a damaged one is believed.
    ///
    /// # Errors
    ///
    /// Whatever the file system says; `InvalidData` for a record of another version.
    pub fn turn(&mut self) -> io::Result<Vec<T>> {
        self.file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        let mut records = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some((payload, behind)) = split(rest) {
            records.push(serde_json::from_slice(payload).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?);
            self.offset += u64::try_from(rest.len() - behind.len()).unwrap_or(0);
            rest = behind;
        }
        Ok(records)
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let length = usize::try_from(u32::from_le_bytes(head[..4].try_into().ok()?)).ok()?;
    let sum = u32::from_le_bytes(head[4..].try_into().ok()?);
    if length == 0 || length > LARGEST {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(length)?;
    (crc32fast::hash(payload) == sum).then_some((payload, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_torn_at_any_byte_keeps_every_whole_record_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut writer, none) = Writer::<String>::open(&path).unwrap();
        assert!(none.is_empty());
        let mut ends = vec![0];
        for text in ["one", "two", "three"] {
            writer.stage(&text.to_owned()).unwrap();
            writer.commit().unwrap();
            ends.push(usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap());
        }
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let kept = ends.iter().filter(|end| **end <= cut).count() - 1;
            let (mut writer, records) = Writer::<String>::open(&path).unwrap();
            assert_eq!(records, ["one", "two", "three"][..kept], "cut at {cut}");
            writer.stage(&"more".to_owned()).unwrap();
            writer.commit().unwrap();
            assert_eq!(Reader::<String>::open(&path).unwrap().turn().unwrap().len(), kept + 1, "cut at {cut}");
        }
        let mut damaged = whole.clone();
        damaged[ends[1] + HEAD] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(Reader::<String>::open(&path).unwrap().turn().unwrap(), ["one"]);
    }

    #[test]
    fn a_reader_follows_and_waits_for_the_rest_of_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut writer, _) = Writer::<u32>::open(&path).unwrap();
        let mut reader = Reader::<u32>::open(&path).unwrap();
        writer.stage(&7).unwrap();
        writer.stage(&8).unwrap();
        assert!(reader.turn().unwrap().is_empty(), "what is staged is not written");
        writer.commit().unwrap();
        assert_eq!(reader.turn().unwrap(), [7, 8]);
        writer.stage(&9).unwrap();
        let staged = writer.staged.clone();
        writer.discard();
        writer.file.write_all(&staged[..5]).unwrap();
        assert!(reader.turn().unwrap().is_empty());
        writer.file.write_all(&staged[5..]).unwrap();
        assert_eq!(reader.turn().unwrap(), [9]);
    }
}
