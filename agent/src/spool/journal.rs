//! The spool's file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use prost::Message as _;
use proto::v1::Report;

const REPORT: u8 = b'r';
const ACK: u8 = b'a';
const BASE: u8 = b'b';
/// A file below this size is never worth rewriting.
const SMALL: u64 = 1 << 20;
/// Largest record that is believed.
const LARGEST: usize = 64 << 20;

/// An append-only file of reports and acknowledgements.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes in the file that are whole records.
    length: u64,
    /// Bytes that a rewrite would leave, at the last one.
    live: u64,
    /// Whether a failed write may have left a part behind `length`.
    torn: bool,
    staged: Vec<u8>,
    seq: u64,
}

impl Journal {
    /// Opens or makes the file, cuts a torn end off, and rewrites it small.
    pub(super) fn open(path: &Path) -> io::Result<(Self, BTreeMap<u64, Report>)> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let (reports, seq) = replay(&bytes);
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let mut journal =
            Self { path: path.to_owned(), file, length: 0, live: 0, torn: false, staged: Vec::new(), seq };
        journal.compact(&reports.values().cloned().collect::<Vec<_>>())?;
        Ok((journal, reports))
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.seq
    }

    /// Gives the report its number and stages it.
    pub(super) fn stage_report(&mut self, report: &Report) -> u64 {
        self.seq += 1;
        let numbered = Report { seq: self.seq, ..report.clone() };
        frame(&mut self.staged, REPORT, &numbered.encode_to_vec());
        self.seq
    }

    pub(super) fn stage_ack(&mut self, seq: u64) {
        frame(&mut self.staged, ACK, &seq.to_le_bytes());
    }

    /// Writes what was staged; `durable` also syncs it. On an error nothing of
    /// it counts, and the call may be repeated.
    pub(super) fn commit(&mut self, durable: bool) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.length)?;
        }
        self.torn = true;
        self.file.write_all(&self.staged)?;
        if durable {
            self.file.sync_data()?;
        }
        self.torn = false;
        self.length += u64::try_from(self.staged.len()).unwrap_or(0);
        self.staged.clear();
        Ok(())
    }

    pub(super) fn wants_compaction(&self) -> bool {
        self.length > SMALL && self.length > 4 * self.live
    }

    /// Replaces the file by one that holds only `kept`.
    pub(super) fn compact(&mut self, kept: &[Report]) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame(&mut bytes, BASE, &self.seq.to_le_bytes());
        for report in kept {
            frame(&mut bytes, REPORT, &report.encode_to_vec());
        }
        runtime::files::write_durably(&self.path, &bytes)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.live = self.length;
        self.torn = false;
        Ok(())
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(payload);
    let length = u32::try_from(payload.len() + 1).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&hasher.finalize().to_le_bytes());
    out.push(kind);
    out.extend_from_slice(payload);
}

/// Reads whole records up to the first that is torn or damaged.
fn replay(mut bytes: &[u8]) -> (BTreeMap<u64, Report>, u64) {
    let mut reports = BTreeMap::new();
    let mut newest = 0;
    while let Some((kind, payload, rest)) = record(bytes) {
        let number = || payload.try_into().map(u64::from_le_bytes).ok();
        match kind {
            REPORT => {
                if let Ok(report) = Report::decode(payload) {
                    newest = newest.max(report.seq);
                    reports.insert(report.seq, report);
                }
            }
            ACK => drop(number().and_then(|seq| reports.remove(&seq))),
            BASE => newest = newest.max(number().unwrap_or(0)),
            _ => {}
        }
        bytes = rest;
    }
    (reports, newest)
}

fn record(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(8)?;
    let length = usize::try_from(u32::from_le_bytes(head[..4].try_into().ok()?)).ok()?;
    let crc = u32::from_le_bytes(head[4..].try_into().ok()?);
    if length == 0 || length > LARGEST {
        return None;
    }
    let (body, rest) = rest.split_at_checked(length)?;
    (crc32fast::hash(body) == crc).then(|| (body[0], &body[1..], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_torn_at_any_byte_keeps_every_whole_record() {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for seq in 1..=3 {
            frame(&mut bytes, REPORT, &Report { seq, attempt: "a".into(), what: None }.encode_to_vec());
            ends.push(bytes.len());
        }
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|e| **e <= cut).count();
            assert_eq!(replay(&bytes[..cut]).0.len(), whole, "cut at {cut}");
        }
        let flipped = ends[0] + 9;
        bytes[flipped] ^= 1;
        assert_eq!(replay(&bytes).0.len(), 1, "nothing behind a damaged record is believed");
    }

    #[test]
    fn a_rewrite_keeps_the_numbers_going() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let (mut journal, _) = Journal::open(&path).unwrap();
        let seq = journal.stage_report(&Report::default());
        journal.commit(true).unwrap();
        journal.stage_ack(seq);
        journal.commit(false).unwrap();
        journal.compact(&[]).unwrap();
        let (journal, kept) = Journal::open(&path).unwrap();
        assert_eq!((journal.last_seq(), kept.len()), (seq, 0));
    }
}
