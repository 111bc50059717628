//! Which keys and values etcd holds, and how a batch becomes transactions.
//!
//! An entry's value is one value of etcd's, or, beyond [`PART`], a head and
//! parts. A batch that one transaction cannot take is laid down in chunks
//! first; the marker that names them makes all of it true at once, and readers
//! lay chunks that are not worked in yet over what they read.

use std::collections::BTreeMap;

use model::Epoch;
use prost::Message;

use super::wire::{self, RequestOp, TxnRequest, request_op::Request};
use crate::{Batch, Error, Kind};

/// Most operations of a transaction: etcd takes 128 unless told otherwise.
pub(super) const OPS: usize = 100;
/// Most bytes of a transaction: etcd takes 1.5 MiB unless told otherwise.
pub(super) const BYTES: usize = 1 << 20;
/// Most bytes of a value of etcd's.
pub(super) const PART: usize = 512 << 10;
/// What is stored, and how: grows when an older program would misread it.
pub(super) const FORMAT: u64 = 1;

/// First byte of an entry's value: all of it follows.
const WHOLE: u8 = 0;
/// The number of parts follows.
const PARTS: u8 = 1;

/// Keys under one prefix.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: String,
}

/// Epoch of the newest leader, and the format of all else.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Meta {
    #[prost(uint64, tag = "1")]
    pub(super) format: u64,
    #[prost(uint64, tag = "2")]
    pub(super) incarnation: u64,
    #[prost(uint64, tag = "3")]
    pub(super) term: u64,
    /// What is remembered here was taken over elsewhere: nobody leads it any more.
    #[prost(bool, tag = "4")]
    pub(super) moved: bool,
}

/// Who leads.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Leader {
    #[prost(string, tag = "1")]
    pub(super) address: String,
    #[prost(uint64, tag = "2")]
    pub(super) incarnation: u64,
    #[prost(uint64, tag = "3")]
    pub(super) term: u64,
}

/// The newest batch that is true.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Marker {
    #[prost(uint64, tag = "1")]
    pub(super) incarnation: u64,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(uint64, tag = "3")]
    pub(super) seq: u64,
    /// Chunks that it was laid down in; those that are there still are to be worked in.
    #[prost(uint64, tag = "4")]
    pub(super) chunks: u64,
}

impl Meta {
    pub(super) fn of(epoch: Epoch, moved: bool) -> Self {
        Self { format: FORMAT, incarnation: epoch.incarnation, term: epoch.term, moved }
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch { incarnation: self.incarnation, term: self.term }
    }
}

impl Leader {
    pub(super) fn epoch(&self) -> Epoch {
        Epoch { incarnation: self.incarnation, term: self.term }
    }
}

impl Marker {
    pub(super) fn new(epoch: Epoch, seq: u64, chunks: usize) -> Self {
        let chunks = u64::try_from(chunks).unwrap_or(u64::MAX);
        Self { incarnation: epoch.incarnation, term: epoch.term, seq, chunks }
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch { incarnation: self.incarnation, term: self.term }
    }

    pub(super) fn is(&self, epoch: Epoch, seq: u64) -> bool {
        (self.epoch(), self.seq) == (epoch, seq)
    }
}

impl Layout {
    /// Keys below `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { root: format!("{}/v1/", prefix.trim_end_matches('/')) }
    }

    pub(super) fn meta(&self) -> Vec<u8> {
        self.key("meta")
    }

    pub(super) fn leader(&self) -> Vec<u8> {
        self.key("leader")
    }

    pub(super) fn marker(&self) -> Vec<u8> {
        self.key("batch")
    }

    /// All chunks of any batch.
    pub(super) fn chunks(&self) -> Vec<u8> {
        self.key("chunks/")
    }

    /// From where to where the chunks of a marked batch are.
    pub(super) fn marked_chunks(&self, marker: &Marker) -> (Vec<u8>, Vec<u8>) {
        let count = usize::try_from(marker.chunks).unwrap_or(usize::MAX);
        (self.chunks_of(marker), self.chunk(marker, count))
    }

    /// All chunks that a batch of this number was ever laid down in.
    pub(super) fn chunks_of(&self, marker: &Marker) -> Vec<u8> {
        self.key(&format!("chunks/{}.{}.{}/", marker.incarnation, marker.term, marker.seq))
    }

    pub(super) fn chunk(&self, marker: &Marker, at: usize) -> Vec<u8> {
        let mut key = self.chunks_of(marker);
        key.extend(format!("{at:08}").into_bytes());
        key
    }

    /// Entries whose key starts with `prefix`.
    pub(super) fn entry(&self, prefix: &str) -> Vec<u8> {
        self.key(&format!("entries/{prefix}"))
    }

    /// The store's key of an entry of etcd's.
    pub(super) fn entry_key(&self, key: &[u8]) -> Option<String> {
        let key = key.strip_prefix(self.entry("").as_slice())?;
        String::from_utf8(key.to_vec()).ok()
    }

    /// All parts of an entry.
    pub(super) fn parts(&self, key: &str) -> Vec<u8> {
        // No key of the store's contains a zero byte, so none's parts are another's.
        self.key(&format!("parts/{key}\0"))
    }

    fn part(&self, key: &str, at: usize) -> Vec<u8> {
        let mut part = self.parts(key);
        part.extend(format!("{at:08}").into_bytes());
        part
    }

    fn key(&self, rest: &str) -> Vec<u8> {
        format!("{}{rest}", self.root).into_bytes()
    }

    /// A batch as operations, each key in one of them only, as etcd asks.
    ///
    /// # Errors
    ///
    /// [`Kind::Io`] for a key that etcd or this layout cannot hold.
    pub(super) fn operations(&self, batch: Batch) -> Result<Vec<RequestOp>, Error> {
        let puts: BTreeMap<String, Vec<u8>> = batch.puts.into_iter().collect();
        let mut operations = Vec::with_capacity(puts.len() + 2 * batch.deletes.len());
        let mut deletes = batch.deletes;
        deletes.sort_unstable();
        deletes.dedup();
        for key in deletes.iter().filter(|key| !puts.contains_key(*key)) {
            operations.push(wire::delete(&self.entry(key)));
            let parts = self.parts(key);
            operations.push(wire::delete_range(parts.clone(), wire::prefix_end(&parts)));
        }
        for (key, value) in puts {
            if key.contains('\0') || key.len() > 4096 {
                let shown: String = key.chars().take(64).collect();
                return Err(Error::new(Kind::Io, format!("`{}` is no key of a store", shown.escape_debug())));
            }
            if value.len() < PART {
                let mut whole = Vec::with_capacity(value.len() + 1);
                whole.push(WHOLE);
                whole.extend(value);
                operations.push(wire::put(&self.entry(&key), whole));
            } else {
                let parts = value.chunks(PART);
                let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
                let mut head = vec![PARTS];
                head.extend(count.to_be_bytes());
                for (at, part) in parts.enumerate() {
                    operations.push(wire::put(&self.part(&key, at), part.to_vec()));
                }
                operations.push(wire::put(&self.entry(&key), head));
            }
        }
        Ok(operations)
    }
}

/// What an entry's value says.
pub(super) enum Value {
    Whole(Vec<u8>),
    Parts(usize),
}

impl Value {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&WHOLE, value) => Some(Self::Whole(value.to_vec())),
            (&PARTS, count) => {
                let count = u32::from_be_bytes(count.try_into().ok()?);
                Some(Self::Parts(usize::try_from(count).ok()?))
            }
            _ => None,
        }
    }
}

/// Operations in groups that one transaction takes each.
pub(super) fn split(operations: Vec<RequestOp>) -> Vec<Vec<RequestOp>> {
    let mut groups = Vec::new();
    let (mut group, mut bytes) = (Vec::new(), 0);
    for operation in operations {
        let size = operation.encoded_len() + 16;
        if !group.is_empty() && (group.len() == OPS || bytes + size > BYTES) {
            groups.push(std::mem::take(&mut group));
            bytes = 0;
        }
        bytes += size;
        group.push(operation);
    }
    groups.push(group);
    groups
}

/// A group as the value of a chunk.
pub(super) fn pack(group: &[RequestOp]) -> Vec<u8> {
    TxnRequest { success: group.to_vec(), ..TxnRequest::default() }.encode_to_vec()
}

/// The group that a chunk's value holds.
pub(super) fn unpack(value: &[u8]) -> Result<Vec<RequestOp>, Error> {
    Ok(decode::<TxnRequest>("a chunk of a batch", value)?.success)
}

/// Lays a group over entries that were read.
pub(super) fn lay_over(entries: &mut BTreeMap<Vec<u8>, Vec<u8>>, group: Vec<RequestOp>, within: &[u8]) {
    for operation in group {
        match operation.request {
            Some(Request::RequestPut(put)) if put.key.starts_with(within) => {
                entries.insert(put.key.to_vec(), put.value.to_vec());
            }
            Some(Request::RequestDeleteRange(range)) if range.range_end.is_empty() => {
                entries.remove(range.key.as_ref());
            }
            Some(Request::RequestDeleteRange(range)) => {
                entries.retain(|key, _| key.as_slice() < &range.key[..] || key.as_slice() >= &range.range_end[..]);
            }
            Some(Request::RequestPut(_) | Request::RequestRange(_)) | None => {}
        }
    }
}

/// One of our own values.
///
/// # Errors
///
/// [`Kind::Corrupt`] if it is none.
pub(super) fn decode<M: Message + Default>(what: &str, value: &[u8]) -> Result<M, Error> {
    M::decode(value).map_err(|error| damaged(what).caused(error))
}

pub(super) fn damaged(what: &str) -> Error {
    Error::new(Kind::Corrupt, format!("{what} in etcd is damaged, or is something else's"))
        .hinted("choose another --etcd-prefix, or restore a backup: qctl-controller restore")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(puts: Vec<(String, Vec<u8>)>, deletes: &[&str]) -> Batch {
        Batch { seq: 1, puts, deletes: deletes.iter().map(|key| (*key).to_owned()).collect() }
    }

    #[test]
    fn groups_stay_below_what_etcd_takes() {
        let layout = Layout::new("/qctl/");
        for (count, size) in [(1, 0), (1000, 10), (7, PART - 1), (3, PART), (1, 5 * PART + 1), (300, 9000)] {
            let puts = (0..count).map(|at| (format!("k{at:04}"), vec![7; size])).collect();
            let groups = split(layout.operations(batch(puts, &["gone"])).unwrap());
            for group in &groups {
                assert!(group.len() <= OPS, "{count} of {size}");
                assert!(pack(group).len() <= BYTES + 4096, "{count} of {size}: {}", pack(group).len());
                assert_eq!(&unpack(&pack(group)).unwrap(), group);
            }
            assert_eq!(groups.len() == 1, count * (size + 40) < BYTES && count < OPS - 2, "{count} of {size}");
        }
    }

    #[test]
    fn a_key_is_written_or_deleted_but_never_both() {
        let layout = Layout::new("/qctl/");
        let puts = vec![("a".to_owned(), vec![1]), ("a".to_owned(), vec![2])];
        let operations = layout.operations(batch(puts, &["a", "b", "b"])).unwrap();
        let mut entries = BTreeMap::from([(layout.entry("b"), vec![WHOLE, 9]), (layout.entry("c"), vec![WHOLE, 3])]);
        assert_eq!(operations.len(), 3);
        lay_over(&mut entries, operations, &layout.entry(""));
        let left: Vec<_> = entries.iter().map(|(key, value)| (layout.entry_key(key).unwrap(), value[1])).collect();
        assert_eq!(left, [("a".to_owned(), 2), ("c".to_owned(), 3)]);
    }

    #[test]
    fn keys_that_would_mix_with_others_are_refused() {
        let layout = Layout::new("/qctl");
        assert!(layout.operations(batch(vec![("a\0b".to_owned(), vec![])], &[])).is_err());
        assert!(layout.operations(batch(vec![("k".repeat(5000), vec![])], &[])).is_err());
        assert!(Value::read(&[]).is_none() && Value::read(&[PARTS, 1]).is_none() && Value::read(&[9]).is_none());
    }
}
