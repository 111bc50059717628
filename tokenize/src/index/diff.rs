//! Where two pairs first differ, in constant memory.

use std::fs::File;
use std::io::{BufReader, Read};

use super::reader::Section;
use super::{ID_BYTES, Index};
use crate::error::Error;

/// The first difference of two pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// An id, by its sequence and its place in it.
    Id { sequence: u64, position: u64, left: i32, right: i32 },
    /// The length of a sequence, in ids.
    Length { sequence: u64, left: u64, right: u64 },
    /// One has more sequences; what the other has is equal.
    Sequences { left: u64, right: u64 },
    /// The sequences before the end of a document.
    Document { document: u64, left: u64, right: u64 },
    /// One has more documents; what the other has is equal.
    Documents { left: u64, right: u64 },
}

/// Compares ids, lengths and documents. `None` if the pairs are equal.
///
/// # Errors
///
/// [`Error::Io`] if a file cannot be read.
pub fn diff(left: &Index, right: &Index) -> Result<Option<Difference>, Error> {
    if let Some(found) = sequences(left, right)? {
        return Ok(Some(found));
    }
    if left.sequences() != right.sequences() {
        return Ok(Some(Difference::Sequences { left: left.sequences(), right: right.sequences() }));
    }
    let mut ends = [left.section(Section::Documents)?, right.section(Section::Documents)?];
    for document in 0..=left.documents().min(right.documents()) {
        let end = [word::<8>(&mut ends[0], left)?, word::<8>(&mut ends[1], right)?].map(u64::from_le_bytes);
        if end[0] != end[1] {
            return Ok(Some(Difference::Document { document, left: end[0], right: end[1] }));
        }
    }
    let (left, right) = (left.documents(), right.documents());
    Ok((left != right).then_some(Difference::Documents { left, right }))
}

/// The first sequence that both have and that differs.
fn sequences(left: &Index, right: &Index) -> Result<Option<Difference>, Error> {
    let mut lengths = [left.section(Section::Lengths)?, right.section(Section::Lengths)?];
    let mut ids = [ids(left)?, ids(right)?];
    for sequence in 0..left.sequences().min(right.sequences()) {
        let length = [word::<4>(&mut lengths[0], left)?, word::<4>(&mut lengths[1], right)?];
        let length = length.map(|length| u64::from(u32::from_le_bytes(length)));
        for position in 0..length[0].min(length[1]) {
            let id = [word::<4>(&mut ids[0], left)?, word::<4>(&mut ids[1], right)?];
            if id[0] != id[1] {
                let [left, right] = id.map(i32::from_le_bytes);
                return Ok(Some(Difference::Id { sequence, position, left, right }));
            }
        }
        if length[0] != length[1] {
            return Ok(Some(Difference::Length { sequence, left: length[0], right: length[1] }));
        }
    }
    Ok(None)
}

fn ids(index: &Index) -> Result<BufReader<File>, Error> {
    let path = index.bin_path();
    Ok(BufReader::with_capacity(1 << 20, File::open(path).map_err(Error::io("open", path))?))
}

fn word<const SIZE: usize>(input: &mut impl Read, index: &Index) -> Result<[u8; SIZE], Error> {
    debug_assert!(SIZE as u64 >= ID_BYTES);
    let mut bytes = [0; SIZE];
    input.read_exact(&mut bytes).map_err(Error::io("read", index.path()))?;
    Ok(bytes)
}
