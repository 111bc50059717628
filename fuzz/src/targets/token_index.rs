//! A token index and its `.bin`: what is let through agrees with itself.

use std::path::PathBuf;
use std::sync::LazyLock;

use tokenize::{Index, Pair};

static DIR: LazyLock<PathBuf> = LazyLock::new(|| crate::home("token_index"));

pub(crate) fn run(bytes: &[u8]) {
    let pair = Pair::of_stem(&DIR.join("stem"));
    crate::put(&pair.idx, Some(bytes));
    // As many ids as there are bytes left of the last length, so that the two sizes can agree.
    let ids = bytes.get(34..38).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]).min(64));
    crate::put(&pair.bin, Some(&vec![0; 4 * ids as usize]));
    if let Ok(index) = Index::open(&pair) {
        assert_eq!(index.ids(), u64::from(ids));
        assert!(index.sequences() <= bytes.len() as u64 / 12);
    }
}
