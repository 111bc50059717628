//! Joins the pairs of consecutive slices into one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::error::Error;
use crate::index::{Index, Pair, PairWriter};
use crate::output::{directory, remove_if_present, sync_directory};
use crate::run::{Summary, check_output, publish};

/// What to join.
#[derive(Clone, Debug)]
pub struct Merge {
    pub output_prefix: PathBuf,
    pub keys: Vec<String>,
    /// Output prefixes of the slices, in input order.
    pub parts: Vec<PathBuf>,
    /// Remove the parts once the result stands.
    pub remove_parts: bool,
    /// Hash the files (blake3).
    pub digests: bool,
}

/// Checks all parts, then joins them; `watch` hears of each part done.
///
/// # Errors
///
/// [`Error::Index`] for a part that is not sound; then nothing is written.
pub fn merge(merge: &Merge, watch: &mut dyn FnMut(usize, u64)) -> Result<Summary, Error> {
    check_output(&merge.output_prefix, &merge.keys)?;
    if merge.parts.is_empty() {
        return Err(Error::Options { what: "there are no parts to merge".to_owned() });
    }
    let mut columns = Vec::new();
    for key in &merge.keys {
        let target = Pair::of_key(&merge.output_prefix, key);
        let mut parts = Vec::new();
        for prefix in &merge.parts {
            let pair = Pair::of_key(prefix, key);
            if pair == target {
                let what = format!("the part `{}` is also the result", prefix.display());
                return Err(Error::Options { what });
            }
            parts.push(Index::open(&pair)?);
        }
        columns.push((target, parts));
    }

    let mut summary = Summary::default();
    let mut sealed = Vec::new();
    let mut done = 0;
    for (target, parts) in &columns {
        let mut writer = PairWriter::create(target, merge.digests)?;
        for part in parts {
            writer.append(part)?;
            done += 1;
            watch(done, summary.tokens + writer.ids());
        }
        summary.sequences += writer.sequences();
        summary.documents += writer.documents();
        summary.tokens += writer.ids();
        sealed.push(writer.seal()?);
    }
    summary.files = publish(sealed, merge.digests)?;
    if merge.remove_parts {
        remove(merge)?;
    }
    Ok(summary)
}

/// Removes the parts, each index first: a part without one is visibly none.
fn remove(merge: &Merge) -> Result<(), Error> {
    let root = directory(&merge.output_prefix).canonicalize();
    for prefix in &merge.parts {
        for key in &merge.keys {
            let pair = Pair::of_key(prefix, key);
            remove_if_present(&pair.idx)?;
            remove_if_present(&pair.bin)?;
        }
        sync_directory(&directory(prefix))?;
    }
    let folders: BTreeSet<PathBuf> =
        merge.parts.iter().filter_map(|prefix| directory(prefix).canonicalize().ok()).collect();
    for folder in folders {
        if root.as_ref().is_ok_and(|root| folder != *root && folder.starts_with(root)) {
            // Made for the parts alone; one that still holds something stays.
            let _ = std::fs::remove_dir(folder);
        }
    }
    Ok(())
}
