//! Writes an archive front to back, each payload at a multiple of 64 bytes.

use super::{CENTRAL, DESCRIPTOR, END, END64, LARGE, LOCAL, LOCATOR64};
use crate::error::{Error, Result};

/// Torch aligns payloads so that they can be mapped as tensors.
const ALIGNMENT: u64 = 64;

/// UTF-8 names, and sizes that follow the payload.
const FLAGS: u16 = 0x0808;

/// Where an archive's bytes go.
pub trait Sink {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    fn put(&mut self, bytes: &[u8]) -> Result<()>;
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

#[derive(Debug)]
struct Entry {
    name: String,
    offset: u64,
    size: u64,
    crc: u32,
}

/// An archive under construction.
#[derive(Debug)]
pub struct Writer<S> {
    sink: S,
    at: u64,
    entries: Vec<Entry>,
    open: Option<(crc32fast::Hasher, u64)>,
}

impl<S: Sink> Writer<S> {
    /// Begins an archive at the start of `sink`.
    pub fn new(sink: S) -> Self {
        Self { sink, at: 0, entries: Vec::new(), open: None }
    }

    /// Writes a whole entry.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn entry(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.begin(name, bytes.len() as u64)?;
        self.write(bytes)?;
        self.end()
    }

    /// Begins an entry of exactly `size` bytes.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn begin(&mut self, name: &str, size: u64) -> Result<()> {
        let header = local_header(name, self.at, size);
        self.entries.push(Entry { name: name.to_owned(), offset: self.at, size, crc: 0 });
        self.raw(&header)?;
        self.open = Some((crc32fast::Hasher::new(), 0));
        Ok(())
    }

    /// Adds bytes to the begun entry.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some((crc, written)) = &mut self.open {
            crc.update(bytes);
            *written += bytes.len() as u64;
        }
        self.raw(bytes)
    }

    /// Ends the begun entry.
    ///
    /// # Errors
    ///
    /// Those of the sink, and if the entry's bytes are not as many as announced.
    pub fn end(&mut self) -> Result<()> {
        let (Some((crc, written)), Some(entry)) = (self.open.take(), self.entries.last_mut()) else {
            return Err(Error::Internal("an archive entry was ended that was never begun".to_owned()));
        };
        if written != entry.size {
            return Err(Error::Internal(format!(
                "`{}` was given {written} bytes instead of {}",
                entry.name, entry.size
            )));
        }
        entry.crc = crc.finalize();
        let record = descriptor(entry);
        self.raw(&record)
    }

    /// Combines names and checksums of all entries so far.
    ///
    /// Equal content gives equal text: 40 digits, as torch's serialisation id has.
    #[must_use]
    pub fn identity(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for entry in &self.entries {
            hash.update(entry.name.as_bytes()).update(&entry.crc.to_le_bytes());
        }
        let bytes = hash.finalize();
        let (halves, _) = bytes.as_bytes().as_chunks::<8>();
        halves.iter().take(2).map(|half| format!("{:020}", u64::from_le_bytes(*half))).collect()
    }

    /// Writes the central directory and gives the sink back.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn finish(mut self) -> Result<S> {
        let start = self.at;
        for i in 0..self.entries.len() {
            let record = central_header(&self.entries[i]);
            self.raw(&record)?;
        }
        let end = end_records(self.entries.len() as u64, start, self.at - start);
        self.raw(&end)?;
        Ok(self.sink)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        self.sink.put(bytes)
    }
}

/// Bytes of an archive with these entries, in this order.
#[must_use]
pub fn archive_size<'a>(entries: impl Iterator<Item = (&'a str, u64)>) -> u64 {
    let (mut at, mut directory, mut count) = (0, 0, 0);
    for (name, size) in entries {
        let entry = Entry { name: name.to_owned(), offset: at, size, crc: 0 };
        at += local_header(name, at, size).len() as u64 + size + descriptor(&entry).len() as u64;
        directory += central_header(&entry).len() as u64;
        count += 1;
    }
    at + directory + end_records(count, at, directory).len() as u64
}

/// Header with the extra field `FB` that moves the payload to the next multiple of 64.
fn local_header(name: &str, at: u64, size: u64) -> Vec<u8> {
    let mut extra = Vec::new();
    if size >= LARGE {
        push(&mut extra, &[&1u16.to_le_bytes(), &16u16.to_le_bytes(), &size.to_le_bytes(), &size.to_le_bytes()]);
    }
    let before = at + 30 + name.len() as u64 + extra.len() as u64 + 4;
    let padding = before.next_multiple_of(ALIGNMENT) - before;
    push(&mut extra, &[b"FB", &short(padding).to_le_bytes()]);
    extra.resize(extra.len() + usize::from(short(padding)), b'Z');
    let mut out = Vec::with_capacity(128);
    let stated = if size >= LARGE { u32::MAX } else { 0 };
    push(&mut out, &[&LOCAL.to_le_bytes(), &version(size).to_le_bytes(), &FLAGS.to_le_bytes(), &[0; 6], &[0; 4]]);
    push(&mut out, &[&stated.to_le_bytes(), &stated.to_le_bytes()]);
    push(&mut out, &[&short(name.len() as u64).to_le_bytes(), &short(extra.len() as u64).to_le_bytes()]);
    push(&mut out, &[name.as_bytes(), &extra]);
    out
}

fn descriptor(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    push(&mut out, &[&DESCRIPTOR.to_le_bytes(), &entry.crc.to_le_bytes()]);
    match u32::try_from(entry.size) {
        Ok(size) if entry.size < LARGE => push(&mut out, &[&size.to_le_bytes(), &size.to_le_bytes()]),
        _ => push(&mut out, &[&entry.size.to_le_bytes(), &entry.size.to_le_bytes()]),
    }
    out
}

fn central_header(entry: &Entry) -> Vec<u8> {
    let mut wide = Vec::new();
    if entry.size >= LARGE {
        push(&mut wide, &[&entry.size.to_le_bytes(), &entry.size.to_le_bytes()]);
    }
    if entry.offset >= LARGE {
        push(&mut wide, &[&entry.offset.to_le_bytes()]);
    }
    let mut extra = Vec::new();
    if !wide.is_empty() {
        push(&mut extra, &[&1u16.to_le_bytes(), &short(wide.len() as u64).to_le_bytes(), &wide]);
    }
    let mut out = Vec::with_capacity(96);
    push(&mut out, &[&CENTRAL.to_le_bytes(), &[0; 2], &version(entry.size.max(entry.offset)).to_le_bytes()]);
    push(&mut out, &[&FLAGS.to_le_bytes(), &[0; 6], &entry.crc.to_le_bytes()]);
    push(&mut out, &[&clamp(entry.size).to_le_bytes(), &clamp(entry.size).to_le_bytes()]);
    push(&mut out, &[&short(entry.name.len() as u64).to_le_bytes(), &short(extra.len() as u64).to_le_bytes()]);
    push(&mut out, &[&[0; 10], &clamp(entry.offset).to_le_bytes(), entry.name.as_bytes(), &extra]);
    out
}

fn end_records(count: u64, start: u64, size: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(98);
    push(
        &mut out,
        &[&END64.to_le_bytes(), &44u64.to_le_bytes(), &0x031eu16.to_le_bytes(), &45u16.to_le_bytes(), &[0; 8]],
    );
    push(&mut out, &[&count.to_le_bytes(), &count.to_le_bytes(), &size.to_le_bytes(), &start.to_le_bytes()]);
    push(&mut out, &[&LOCATOR64.to_le_bytes(), &[0; 4], &(start + size).to_le_bytes(), &1u32.to_le_bytes()]);
    let entries = u16::try_from(count).unwrap_or(u16::MAX);
    push(&mut out, &[&END.to_le_bytes(), &[0; 4], &entries.to_le_bytes(), &entries.to_le_bytes()]);
    push(&mut out, &[&clamp(size).to_le_bytes(), &clamp(start).to_le_bytes(), &[0; 2]]);
    out
}

fn push(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// The version of the format that a reader needs: 4.5 for the 64-bit records.
fn version(largest: u64) -> u16 {
    if largest >= LARGE { 45 } else { 0 }
}

/// A 32-bit field; its maximum says "see the 64-bit record".
fn clamp(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Lengths of names and extra fields; both are far below 64 KiB.
fn short(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zip::Archive;
    use std::path::Path;

    #[test]
    fn payloads_are_aligned_and_the_size_is_known_beforehand() {
        let entries: Vec<(String, Vec<u8>)> =
            (0..20usize).map(|i| (format!("top/data/{i}"), vec![7; i * 37])).collect();
        let mut writer = Writer::new(Vec::new());
        for (name, bytes) in &entries {
            writer.entry(name, bytes).unwrap();
        }
        assert_eq!(writer.identity().len(), 40);
        let out = writer.finish().unwrap();
        assert_eq!(out.len() as u64, archive_size(entries.iter().map(|(n, b)| (n.as_str(), b.len() as u64))));
        let archive = Archive::parse(Path::new("a"), &out).unwrap();
        assert_eq!(archive.entries().len(), 20);
        for (name, bytes) in &entries {
            let entry = archive.find(name).unwrap();
            assert_eq!(entry.range.start % 64, 0);
            assert_eq!(&out[entry.range.clone()], &bytes[..]);
            assert!(archive.check(&out, entry));
        }
    }

    #[test]
    fn an_entry_of_the_wrong_size_is_refused() {
        let mut writer = Writer::new(Vec::new());
        writer.begin("a", 5).unwrap();
        writer.write(b"abc").unwrap();
        assert!(writer.end().unwrap_err().to_string().contains("3 bytes instead of 5"));
    }

    /// Keeps headers and drops payloads, so that 5 GiB need no storage.
    struct Counter(u64);

    impl Sink for Counter {
        fn put(&mut self, bytes: &[u8]) -> Result<()> {
            self.0 += bytes.len() as u64;
            Ok(())
        }
    }

    #[test]
    fn large_entries_use_the_64_bit_records() {
        let size = LARGE + 10;
        let entry = Entry { name: "a".into(), offset: LARGE + 64, size, crc: 1 };
        assert_eq!(descriptor(&entry).len(), 24);
        let central = central_header(&entry);
        assert_eq!(&central[20..28], &[0xff; 8]);
        assert_eq!(&central[47..51], &[1, 0, 24, 0], "sizes and offset in the extra field");
        let local = local_header("a", 0, size);
        assert_eq!(local.len() % 64, 0);
        assert_eq!(&local[31..35], &[1, 0, 16, 0]);
        let mut writer = Writer::new(Counter(0));
        let block = vec![0u8; 64 << 20];
        writer.begin("t/data/0", size).unwrap();
        let mut left = size;
        while left > 0 {
            let take = usize::try_from(left.min(block.len() as u64)).unwrap();
            writer.write(&block[..take]).unwrap();
            left -= take as u64;
        }
        writer.end().unwrap();
        writer.entry("t/version", b"3\n").unwrap();
        let written = writer.finish().unwrap().0;
        assert_eq!(written, archive_size([("t/data/0", size), ("t/version", 2)].into_iter()));
    }
}
