//! Orders and records of a pooled shim: `O` or `R`, then the file.
//!
//! `o` and `r` stand for a file of one record whose length and checksum are right, since nothing else is decoded.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use agent::shim::pool::{Order, Reader, Record, Writer};
use serde::Serialize;
use serde::de::DeserializeOwned;

static DIR: LazyLock<PathBuf> = LazyLock::new(|| crate::home("pool_journal"));

pub(crate) fn run(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let file = match kind {
        b'o' | b'r' => framed(rest),
        _ => rest.to_vec(),
    };
    match kind {
        b'O' | b'o' => check::<Order>(&file),
        b'R' | b'r' => check::<Record>(&file),
        _ => {}
    }
}

/// Whoever opens the file for writing cuts off what a reader did not believe, and both then see the same.
fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let path: &Path = &DIR.join("journal");
    crate::put(path, Some(bytes));
    let Ok(records) = Reader::<T>::open(path).and_then(|mut reader| reader.turn()) else { return };
    let (mut writer, kept) = Writer::<T>::open(path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(kept, records);
    let Some(first) = records.first() else { return };
    writer.stage(first).and_then(|()| writer.commit()).unwrap_or_else(|error| panic!("{error}"));
    let again = Reader::<T>::open(path).and_then(|mut reader| reader.turn()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((again.len(), again.last()), (records.len() + 1, Some(first)));
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes()[..], &crc32fast::hash(payload).to_le_bytes(), payload].concat()
}
