//! Reading entries as they were at one moment.

use std::collections::BTreeMap;

use tonic::{Code, Status};

use super::Etcd;
use super::client::trouble;
use super::layout::{Marker, Value, damaged, decode, lay_over, unpack};
use super::wire::{self, KeyValue, RangeRequest};
use crate::Error;

/// Entries of one page.
const PAGE: i64 = 512;
/// Pages of larger things.
const LARGE_PAGE: i64 = 4;
/// How often a reading that compaction overtook is begun again.
const TRIES: u32 = 5;

/// A part of the world at one revision.
struct Reading<'e> {
    etcd: &'e Etcd,
    revision: i64,
    /// Groups that are true, and not worked in yet.
    over: Vec<Vec<wire::RequestOp>>,
}

enum Failed {
    Compacted(Status),
    Store(Error),
}

impl Etcd {
    pub(super) async fn load_now(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut tries = 0;
        loop {
            match self.load_once(prefix).await {
                Ok(entries) => return Ok(entries),
                Err(Failed::Store(error)) => return Err(error),
                Err(Failed::Compacted(status)) if tries + 1 == TRIES => {
                    return Err(trouble("keep history for as long as it was read", status));
                }
                Err(Failed::Compacted(_)) => tries += 1,
            }
        }
    }

    async fn load_once(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Failed> {
        let reading = self.begin().await?;
        let from = self.layout.entry(prefix);
        let found = reading.entries(&from, PAGE).await?;
        let mut entries = Vec::with_capacity(found.len());
        for (key, value) in found {
            let key = self.layout.entry_key(&key).ok_or_else(|| Failed::Store(damaged("an entry")))?;
            let value = match Value::read(&value).ok_or_else(|| Failed::Store(damaged("an entry")))? {
                Value::Whole(value) => value,
                Value::Parts(count) => reading.parts(&key, count).await?,
            };
            entries.push((key, value));
        }
        Ok(entries)
    }

    /// Chooses the moment: the newest marked batch, and all of its chunks that are not worked in.
    async fn begin(&self) -> Result<Reading<'_>, Failed> {
        let range = RangeRequest { key: self.layout.marker().into(), ..RangeRequest::default() };
        let answer = self.client.range(range).await.map_err(failed)?;
        let revision = answer.header.map_or(0, |header| header.revision);
        let mut reading = Reading { etcd: self, revision, over: Vec::new() };
        if let Some(entry) = answer.kvs.first() {
            let marker: Marker = decode("the marker of the newest batch", &entry.value).map_err(Failed::Store)?;
            if marker.chunks > 0 {
                let (from, end) = self.layout.marked_chunks(&marker);
                for chunk in reading.range(from, end, LARGE_PAGE).await? {
                    reading.over.push(unpack(&chunk.value).map_err(Failed::Store)?);
                }
            }
        }
        Ok(reading)
    }
}

impl Reading<'_> {
    /// All below `prefix`, in key order.
    async fn entries(&self, prefix: &[u8], page: i64) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Failed> {
        let found = self.range(prefix.to_vec(), wire::prefix_end(prefix), page).await?;
        let mut entries = found.into_iter().map(|entry| (entry.key.to_vec(), entry.value.to_vec())).collect();
        for group in &self.over {
            lay_over(&mut entries, group.clone(), prefix);
        }
        Ok(entries)
    }

    async fn parts(&self, key: &str, count: usize) -> Result<Vec<u8>, Failed> {
        let parts = self.entries(&self.etcd.layout.parts(key), LARGE_PAGE).await?;
        // Of a value that had more parts once, the last ones may still be there.
        if parts.len() < count {
            return Err(Failed::Store(damaged("an entry of several parts")));
        }
        Ok(parts.into_values().take(count).flatten().collect())
    }

    async fn range(&self, mut from: Vec<u8>, end: Vec<u8>, page: i64) -> Result<Vec<KeyValue>, Failed> {
        let mut all = Vec::new();
        loop {
            let range = RangeRequest {
                key: from.into(),
                range_end: end.clone().into(),
                limit: page,
                revision: self.revision,
                serializable: false,
            };
            let answer = self.etcd.client.range(range).await.map_err(failed)?;
            let next = answer.kvs.last().map(|last| [&last.key[..], b"\0"].concat());
            all.extend(answer.kvs);
            match next {
                Some(next) if answer.more => from = next,
                Some(_) | None => return Ok(all),
            }
        }
    }
}

fn failed(status: Status) -> Failed {
    if status.code() == Code::OutOfRange {
        Failed::Compacted(status)
    } else {
        Failed::Store(trouble("read what was saved", status))
    }
}
