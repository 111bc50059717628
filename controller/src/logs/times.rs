//! When the bytes of a log arrived.
//!
//! Beside `<source>.log`, `<source>.times` holds pairs of little-endian `u64`:
//! an offset, and the time in milliseconds since 1970 at which what lies there
//! arrived. There is at most one pair a second, so a time is that of arrival
//! here, up to [`PRECISION_MS`] too early.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use proto::v1::LogMark;

/// Least time between two marks.
pub(super) const PRECISION_MS: u64 = 1000;
/// Size of a mark on disk.
const SIZE: usize = 16;
/// Marks that are read of one source, the newest: more than a month of a loud one.
const MOST: u64 = 4 << 20;

/// The marks of one source, by offset.
#[derive(Clone, Debug, Default)]
pub(super) struct Times(Vec<LogMark>);

impl Times {
    /// Reads a file of marks; without one, nothing is known.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let whole = file.metadata()?.len() / SIZE as u64;
        file.seek(SeekFrom::Start(whole.saturating_sub(MOST) * SIZE as u64))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (pairs, _) = bytes.as_chunks::<SIZE>();
        Ok(Self(pairs.iter().map(decode).collect()))
    }

    /// Where that begins which arrived at `since_ms` or later; `None` if nothing did.
    pub(super) fn begin(&self, since_ms: u64) -> Option<u64> {
        let recent = |mark: &&LogMark| mark.at_ms.saturating_add(PRECISION_MS) > since_ms;
        self.0.iter().find(recent).map(|mark| mark.offset)
    }

    /// Where that begins which arrived after `until_ms`; `None` if nothing did.
    pub(super) fn end(&self, until_ms: u64) -> Option<u64> {
        self.0.iter().find(|mark| mark.at_ms > until_ms).map(|mark| mark.offset)
    }

    /// The marks that tell the times of the bytes from `begin` to `end`.
    pub(super) fn within(&self, begin: u64, end: u64) -> Vec<LogMark> {
        let first = self.0.partition_point(|mark| mark.offset <= begin).saturating_sub(1);
        self.0[first..].iter().take_while(|mark| mark.offset < end.max(begin + 1)).copied().collect()
    }

    /// Whether anything is known.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Notes that what is appended at `offset` arrived at `at_ms`, unless a mark of the last second says so already.
pub(super) fn note(path: &Path, offset: u64, at_ms: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let length = file.metadata()?.len();
    let whole = length - length % SIZE as u64;
    if whole != length {
        // A crash cut the last one.
        file.set_len(whole)?;
    }
    if whole > 0 {
        let mut last = [0; SIZE];
        file.seek(SeekFrom::Start(whole - SIZE as u64))?;
        file.read_exact(&mut last)?;
        let last = decode(&last);
        if last.offset > offset {
            // A crash took bytes that were marked: so were these marks.
            forget(&mut file, offset)?;
        } else if last.at_ms <= at_ms && at_ms - last.at_ms < PRECISION_MS {
            return Ok(());
        }
    }
    let mut mark = [0; SIZE];
    mark[..8].copy_from_slice(&offset.to_le_bytes());
    mark[8..].copy_from_slice(&at_ms.to_le_bytes());
    file.write_all(&mark)
}

/// Takes away the marks behind `offset`.
fn forget(file: &mut File, offset: u64) -> io::Result<()> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    let kept = bytes.as_chunks::<SIZE>().0.iter().take_while(|mark| decode(mark).offset <= offset).count();
    file.set_len((kept * SIZE) as u64)
}

fn decode(mark: &[u8; SIZE]) -> LogMark {
    let number = |at: usize| mark[at..at + 8].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
    LogMark { offset: number(0), at_ms: number(8) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(marks: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.times");
        marks.iter().for_each(|(offset, at)| note(&path, *offset, *at).unwrap());
        Times::load(&path).unwrap().0.iter().map(|mark| (mark.offset, mark.at_ms)).collect()
    }

    #[test]
    fn there_is_at_most_one_mark_a_second() {
        assert_eq!(noted(&[(0, 5000), (10, 5999), (20, 6000), (30, 90_000)]), [(0, 5000), (20, 6000), (30, 90_000)]);
        assert_eq!(noted(&[(0, 5000), (10, 4000)]), [(0, 5000), (10, 4000)], "a clock that was set back is believed");
    }

    #[test]
    fn what_a_crash_took_is_marked_again() {
        assert_eq!(noted(&[(0, 1000), (50, 3000), (90, 5000), (60, 9000)]), [(0, 1000), (50, 3000), (60, 9000)]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.times");
        note(&path, 0, 1000).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"torn").unwrap();
        note(&path, 7, 9000).unwrap();
        assert_eq!(
            Times::load(&path).unwrap().0,
            [LogMark { offset: 0, at_ms: 1000 }, LogMark { offset: 7, at_ms: 9000 }]
        );
    }

    #[test]
    fn times_are_found_by_offset_and_offsets_by_time() {
        let marks = [(0, 1000), (50, 3000), (90, 5000)].map(|(offset, at_ms)| LogMark { offset, at_ms });
        let times = Times(marks.to_vec());
        let table = [(0, Some(0)), (1999, Some(0)), (2000, Some(50)), (3999, Some(50)), (5999, Some(90)), (6000, None)];
        for (since, begin) in table {
            assert_eq!(times.begin(since), begin, "since {since}");
        }
        assert_eq!(
            [999, 1000, 2999, 3000, 5000].map(|until| times.end(until)),
            [Some(0), Some(50), Some(50), Some(90), None]
        );
        let within = |begin, end| times.within(begin, end).iter().map(|mark| mark.offset).collect::<Vec<_>>();
        assert_eq!(within(0, 50), [0]);
        assert_eq!(within(49, 51), [0, 50]);
        assert_eq!(within(60, 200), [50, 90]);
        assert_eq!(within(200, 200), [90]);
        assert!(Times::default().within(0, 10).is_empty() && Times::default().is_empty());
    }
}
