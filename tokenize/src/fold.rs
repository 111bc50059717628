//! From encoded rows to sequences and documents, by the reference's rules.

use crate::error::Error;
use crate::index::PairWriter;

/// The rows that the reference looks at together.
pub(crate) const GROUP_ROWS: usize = 50;

/// Some consecutive rows as ids, key by key.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    pub(crate) keys: Vec<KeyIds>,
    pub(crate) rows: u64,
    /// A bit for each column that had a value.
    pub(crate) present: u32,
    /// The texts, in bytes.
    pub(crate) text_bytes: u64,
    /// What was read for it, in bytes.
    pub(crate) input_bytes: u64,
}

/// One key's ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyIds {
    /// Little-endian i32, row after row.
    pub(crate) bytes: Vec<u8>,
    /// Ids of each row; [`NO_DOCUMENT`] for an empty text.
    pub(crate) lengths: Vec<i32>,
}

/// The length of a row that yields nothing at all.
pub(crate) const NO_DOCUMENT: i32 = -1;

/// Writes rows as sequences, one document each.
///
/// Empty texts yield nothing. With a length limit, longer sequences are left
/// out but their documents stay, empty. The reference finds the rows to leave
/// out by position, among the non-empty texts of each key in a group of
/// [`GROUP_ROWS`] rows: with several keys a long text also takes away what has
/// the same position under another key, even where that is another row.
#[derive(Debug)]
pub(crate) struct Fold {
    writers: Vec<PairWriter>,
    /// Sequences of this length or more are left out.
    limit: Option<i32>,
    /// Several keys whose texts decide about each other.
    grouped: Option<Grouped>,
    skipped: u64,
}

/// The rows that are looked at together.
#[derive(Debug)]
struct Grouped {
    keys: Vec<KeyIds>,
    /// A group also ends after each so many rows.
    stretch: u64,
    /// Rows since then.
    rows: u64,
}

impl Fold {
    /// `grouped` where each key has texts of its own: rows in one stretch.
    pub(crate) fn new(writers: Vec<PairWriter>, limit: Option<i32>, grouped: Option<u64>) -> Self {
        let keys = vec![KeyIds::default(); writers.len()];
        let grouped = grouped.map(|stretch| Grouped { keys, stretch, rows: 0 });
        Self { writers, limit, grouped, skipped: 0 }
    }

    /// Takes the next rows.
    pub(crate) fn take(&mut self, encoded: &Encoded) -> Result<(), Error> {
        match (self.limit, &self.grouped) {
            (None, _) => {
                for (writer, key) in self.writers.iter_mut().zip(&encoded.keys) {
                    writer.write_ids(&key.bytes)?;
                    for &length in key.lengths.iter().filter(|&&length| length != NO_DOCUMENT) {
                        writer.add_sequence(length)?;
                        writer.end_document()?;
                    }
                }
                Ok(())
            }
            (Some(limit), None) => {
                for (writer, key) in self.writers.iter_mut().zip(&encoded.keys) {
                    let keep: Vec<bool> = key.lengths.iter().map(|&length| length < limit).collect();
                    self.skipped += write_kept(writer, key, &keep)?;
                }
                Ok(())
            }
            (Some(limit), Some(_)) => self.take_grouped(encoded, limit),
        }
    }

    /// Ends the last group. Returns the writers and how many sequences were
    /// left out, over all keys.
    pub(crate) fn finish(mut self) -> Result<(Vec<PairWriter>, u64), Error> {
        if let Some(limit) = self.limit {
            self.flush_group(limit)?;
        }
        Ok((self.writers, self.skipped))
    }

    /// Token ids so far.
    pub(crate) fn ids(&self) -> u64 {
        self.writers.iter().map(PairWriter::ids).sum()
    }

    fn take_grouped(&mut self, encoded: &Encoded, limit: i32) -> Result<(), Error> {
        let rows = encoded.keys.first().map_or(0, |key| key.lengths.len());
        let mut at = vec![0; encoded.keys.len()];
        for row in 0..rows {
            let Some(grouped) = &mut self.grouped else {
                return Ok(());
            };
            for ((group, key), at) in grouped.keys.iter_mut().zip(&encoded.keys).zip(&mut at) {
                let length = key.lengths[row];
                let size = byte_length(length);
                group.lengths.push(length);
                group.bytes.extend_from_slice(&key.bytes[*at..*at + size]);
                *at += size;
            }
            grouped.rows += 1;
            let over = grouped.rows == grouped.stretch;
            if over {
                grouped.rows = 0;
            }
            if over || grouped.keys.first().is_some_and(|group| group.lengths.len() == GROUP_ROWS) {
                self.flush_group(limit)?;
            }
        }
        Ok(())
    }

    fn flush_group(&mut self, limit: i32) -> Result<(), Error> {
        let Some(Grouped { keys, .. }) = &mut self.grouped else {
            return Ok(());
        };
        let mut long = [false; GROUP_ROWS];
        for key in &*keys {
            let texts = key.lengths.iter().filter(|&&length| length != NO_DOCUMENT);
            for (position, _) in texts.enumerate().filter(|&(_, &length)| length >= limit) {
                long[position] = true;
            }
        }
        for (writer, key) in self.writers.iter_mut().zip(keys) {
            let mut position = 0;
            let mut keep = Vec::with_capacity(key.lengths.len());
            for &length in &key.lengths {
                keep.push(!long.get(position).copied().unwrap_or(false));
                position += usize::from(length != NO_DOCUMENT);
            }
            self.skipped += write_kept(writer, key, &keep)?;
            key.bytes.clear();
            key.lengths.clear();
        }
        Ok(())
    }
}

/// Writes the rows to keep, and a document for each text. Returns how many
/// texts were left out.
fn write_kept(writer: &mut PairWriter, key: &KeyIds, keep: &[bool]) -> Result<u64, Error> {
    let (mut begin, mut at) = (0, 0);
    let mut left_out = 0;
    for (&length, &keep) in key.lengths.iter().zip(keep) {
        if length == NO_DOCUMENT {
            continue;
        }
        let end = at + byte_length(length);
        if keep {
            writer.add_sequence(length)?;
        } else {
            writer.write_ids(&key.bytes[begin..at])?;
            begin = end;
            left_out += 1;
        }
        writer.end_document()?;
        at = end;
    }
    writer.write_ids(&key.bytes[begin..at])?;
    Ok(left_out)
}

fn byte_length(length: i32) -> usize {
    usize::try_from(length).unwrap_or(0) * size_of::<i32>()
}
