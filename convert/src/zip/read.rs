//! Reads an archive's directory without trust.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::{CENTRAL, END, END64, LARGE, LOCAL, LOCATOR64};
use crate::error::{Error, Result};

/// Longest comment after the last record.
const LONGEST_COMMENT: usize = 0xffff;

/// Most entries that are read.
const MOST_ENTRIES: u64 = 1 << 20;

/// One stored entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Full name, with the top directory.
    pub name: String,
    /// The payload's bytes in the file.
    pub range: Range<usize>,
    crc: u32,
}

/// An archive's directory.
#[derive(Debug)]
pub struct Archive {
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

impl Archive {
    /// Reads the directory at the end of a file's bytes.
    ///
    /// # Errors
    ///
    /// If the file is truncated, or an entry is compressed, encrypted, out of
    /// bounds, listed twice, or overlaps another.
    pub fn parse(path: &Path, file: &[u8]) -> Result<Self> {
        let entries = directory(file).and_then(|central| read_entries(file, central));
        let mut entries = entries.map_err(|reason| {
            Error::bad(path, format!("is no intact checkpoint archive: {reason}"))
                .with_hint("the file may be half written or damaged; make or fetch it again")
        })?;
        entries.sort_by_key(|e| e.range.start);
        let by_name = entries.iter().enumerate().map(|(i, e)| (e.name.clone(), i)).collect();
        Ok(Self { entries, by_name })
    }

    /// All entries, sorted by position.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of that full name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).map(|i| &self.entries[*i])
    }

    /// Whether the payload still has its checksum.
    #[must_use]
    pub fn check(&self, file: &[u8], entry: &Entry) -> bool {
        let mut crc = crc32fast::Hasher::new();
        for chunk in file[entry.range.clone()].chunks(1 << 20) {
            crc.update(chunk);
        }
        crc.finalize() == entry.crc
    }
}

type Step<T> = std::result::Result<T, String>;

struct Central {
    start: usize,
    end: usize,
    count: u64,
}

fn directory(file: &[u8]) -> Step<Central> {
    let end = find_end(file).ok_or_else(|| "the end record is missing".to_owned())?;
    let (mut count, mut size, mut start) =
        (u64::from(u16_at(file, end + 10)?), u64::from(u32_at(file, end + 12)?), u64::from(u32_at(file, end + 16)?));
    let mut stop = end;
    if end >= 20 && u32_at(file, end - 20)? == LOCATOR64 {
        let at = usize::try_from(u64_at(file, end - 12)?).map_err(|_| "the 64-bit end record is out of bounds")?;
        if u32_at(file, at)? != END64 {
            return Err("the 64-bit end record is missing".to_owned());
        }
        (count, size, start) = (u64_at(file, at + 32)?, u64_at(file, at + 40)?, u64_at(file, at + 48)?);
        stop = at;
    }
    let stated = start.checked_add(size).filter(|end| *end == stop as u64);
    if stated.is_none() {
        return Err("the directory is not where the end record says".to_owned());
    }
    if count > MOST_ENTRIES {
        return Err(format!("{count} entries are more than {MOST_ENTRIES}"));
    }
    let start = usize::try_from(start).map_err(|_| "the directory is out of bounds")?;
    Ok(Central { start, end: stop, count })
}

/// The end record is 22 bytes plus a comment that reaches the end of the file.
fn find_end(file: &[u8]) -> Option<usize> {
    let last = file.len().checked_sub(22)?;
    let first = last.saturating_sub(LONGEST_COMMENT);
    (first..=last).rev().find(|at| {
        u32_at(file, *at) == Ok(END) && u16_at(file, at + 20).is_ok_and(|c| at + 22 + usize::from(c) == file.len())
    })
}

fn read_entries(file: &[u8], central: Central) -> Step<Vec<Entry>> {
    let mut at = central.start;
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..central.count {
        let (entry, next) = read_entry(file, at, &central)?;
        at = next;
        entries.push(entry);
    }
    if at != central.end {
        return Err("the directory has another length than its entries".to_owned());
    }
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by_key(|e| (e.range.start, e.range.end));
    for pair in sorted.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            return Err(format!("entries `{}` and `{}` overlap", pair[0].name, pair[1].name));
        }
    }
    let mut names: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("entry `{}` is listed twice", pair[0])),
        None => Ok(entries),
    }
}

fn read_entry(file: &[u8], at: usize, central: &Central) -> Step<(Entry, usize)> {
    if at + 46 > central.end || u32_at(file, at)? != CENTRAL {
        return Err("a directory record is missing".to_owned());
    }
    let (flags, method) = (u16_at(file, at + 8)?, u16_at(file, at + 10)?);
    let lengths = [u16_at(file, at + 28)?, u16_at(file, at + 30)?, u16_at(file, at + 32)?].map(usize::from);
    let next = at + 46 + lengths.iter().sum::<usize>();
    if next > central.end {
        return Err("a directory record is cut off".to_owned());
    }
    let name = std::str::from_utf8(&file[at + 46..at + 46 + lengths[0]]).map_err(|_| "an entry's name is no UTF-8")?;
    if flags & 1 != 0 {
        return Err(format!("entry `{name}` is encrypted"));
    }
    if method != 0 {
        return Err(format!("entry `{name}` is compressed"));
    }
    let extra = &file[at + 46 + lengths[0]..at + 46 + lengths[0] + lengths[1]];
    let fields = [u32_at(file, at + 24)?, u32_at(file, at + 20)?, u32_at(file, at + 42)?].map(u64::from);
    let [size, packed, offset] = widen(fields, extra)?;
    if size != packed {
        return Err(format!("entry `{name}` is stored, but states two sizes"));
    }
    let range = payload(file, name, offset, size, central.start)?;
    Ok((Entry { name: name.to_owned(), range, crc: u32_at(file, at + 16)? }, next))
}

/// Replaces fields at their maximum by those of the 64-bit extra field.
fn widen(mut fields: [u64; 3], extra: &[u8]) -> Step<[u64; 3]> {
    let mut at = 0;
    while at + 4 <= extra.len() {
        let (id, length) = (u16_at(extra, at)?, usize::from(u16_at(extra, at + 2)?));
        if id == 1 {
            let mut inner = at + 4;
            for field in fields.iter_mut().filter(|f| **f == LARGE) {
                if inner + 8 > at + 4 + length {
                    return Err("a 64-bit extra field is too short".to_owned());
                }
                *field = u64_at(extra, inner)?;
                inner += 8;
            }
            break;
        }
        at += 4 + length;
    }
    Ok(fields)
}

fn payload(file: &[u8], name: &str, offset: u64, size: u64, limit: usize) -> Step<Range<usize>> {
    let out = || format!("entry `{name}` is out of bounds");
    let at =
        usize::try_from(offset).ok().filter(|at| at.checked_add(30).is_some_and(|e| e <= limit)).ok_or_else(out)?;
    if u32_at(file, at)? != LOCAL {
        return Err(format!("entry `{name}` has no local header"));
    }
    let lengths = [usize::from(u16_at(file, at + 26)?), usize::from(u16_at(file, at + 28)?)];
    let start = at + 30 + lengths[0] + lengths[1];
    let size = usize::try_from(size).map_err(|_| out())?;
    let end = start.checked_add(size).filter(|end| *end <= limit).ok_or_else(out)?;
    if file.get(at + 30..at + 30 + lengths[0]) != Some(name.as_bytes()) {
        return Err(format!("entry `{name}` has another name in its local header"));
    }
    Ok(start..end)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Step<[u8; N]> {
    at.checked_add(N)
        .and_then(|end| bytes.get(at..end))
        .and_then(|part| part.try_into().ok())
        .ok_or_else(|| "a record is out of bounds".to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Step<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Step<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Step<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zip::Writer;

    fn archive() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.entry("t/data.pkl", b"pickle").unwrap();
        writer.entry("t/data/0", &[1; 200]).unwrap();
        writer.finish().unwrap()
    }

    fn error(bytes: &[u8]) -> String {
        Archive::parse(Path::new("a.pt"), bytes).unwrap_err().to_string()
    }

    #[test]
    fn every_truncation_is_noticed() {
        let whole = archive();
        for cut in 0..whole.len() {
            assert!(Archive::parse(Path::new("a.pt"), &whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(error(&whole[..whole.len() - 1]).contains("end record"));
    }

    #[test]
    fn damage_never_panics_and_payload_damage_changes_the_checksum() {
        let whole = archive();
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                if let Ok(archive) = Archive::parse(Path::new("a.pt"), &bytes) {
                    let entries: Vec<bool> = archive.entries().iter().map(|e| archive.check(&bytes, e)).collect();
                    let payload = archive.entries().iter().any(|e| e.range.contains(&at));
                    assert!(!payload || entries.contains(&false), "flip at {at} went unnoticed");
                }
            }
        }
    }

    #[test]
    fn bytes_before_or_after_the_archive_are_refused() {
        let whole = archive();
        assert!(
            error(&[&b"junk"[..], &whole].concat()).contains("not where the end record says")
                || error(&[&b"junk"[..], &whole].concat()).contains("64-bit end record")
        );
        assert!(error(&[&whole[..], b"junk"].concat()).contains("end record is missing"));
        assert!(error(b"<!doctype html>").contains("end record is missing"));
    }
}
