//! Joins the pairs of consecutive slices into one.

mod removal;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::index::{Index, Pair, PairWriter};
use crate::output::{directory, remove_if_present, sync_directory};
use crate::pack::{Packing, pack};
use crate::recipe::PACKED;
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
    /// Pack the joined sequences of an instruction run.
    pub pack: Option<PackMerge>,
    /// Hash the files (blake3).
    pub digests: bool,
}

/// How a merge packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackMerge {
    /// The length of each packed row, in ids.
    pub seq_length: u32,
    /// Fills up the ids: [`Tokenizer::packing_pad_id`](crate::Tokenizer::packing_pad_id).
    pub pad_id: u32,
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
    if let Some(summary) = removal::take_up(merge)? {
        remove(merge)?;
        removal::forget(merge)?;
        return Ok(summary);
    }
    let made = removal::Made::find(merge)?;
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
    let mut writers = Vec::new();
    let (mut done, mut tokens) = (0, 0);
    for (target, parts) in &columns {
        let mut writer = PairWriter::create(target, merge.digests)?;
        for part in parts {
            writer.append(part)?;
            done += 1;
            watch(done, tokens + writer.ids());
        }
        tokens += writer.ids();
        writers.push(writer);
    }
    if let Some(PackMerge { seq_length, pad_id }) = merge.pack {
        if merge.keys != PACKED || seq_length == 0 {
            let what = format!("`--pack` joins `--json-keys {}` and needs `--seq-length`", PACKED.join(" "));
            return Err(Error::Options { what });
        }
        let outputs = columns.iter().map(|(target, _)| PairWriter::create(target, merge.digests));
        let packing = Packing { seq_length, pad_id, parts: 1 };
        (writers, summary.skipped) = pack(writers, outputs.collect::<Result<_, _>>()?, packing)?;
    }
    for writer in &writers {
        summary.sequences += writer.sequences();
        summary.documents += writer.documents();
        summary.tokens += writer.ids();
    }
    let sealed = writers.into_iter().map(PairWriter::seal).collect::<Result<Vec<_>, _>>()?;
    summary.files = publish(sealed, merge.digests)?;
    if merge.remove_parts {
        removal::begin(merge, &made, &summary)?;
        remove(merge)?;
        removal::forget(merge)?;
    }
    Ok(summary)
}

/// Joins, for each key, all pairs of `folder` whose name contains the key, by
/// name: the reference's `--merge-group-keys`. The results are
/// `<output_prefix>_<key>.bin/.idx`.
///
/// # Errors
///
/// As [`merge`]; also if a key finds nothing, or half of a pair.
pub fn merge_groups(
    folder: &Path,
    keys: &[String],
    output_prefix: &Path,
    digests: bool,
    watch: &mut dyn FnMut(usize, u64),
) -> Result<Summary, Error> {
    if !folder.is_dir() {
        return Err(Error::NoInput { path: folder.to_owned() });
    }
    check_output(output_prefix, keys)?;
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let ours = path.extension().is_some_and(|suffix| suffix == "bin" || suffix == "idx") && path.is_file();
        if let (true, Some(name)) = (ours, path.file_stem().and_then(|stem| stem.to_str())) {
            names.insert(name.to_owned());
        }
    }
    let mut groups = Vec::new();
    for key in keys {
        let target = Pair::of_group(output_prefix, key);
        let mut parts = Vec::new();
        for name in names.iter().filter(|name| name.contains(key.as_str())) {
            let pair = Pair::of_prefix(&folder.join(name));
            if pair == target || is_same(&pair.bin, &target.bin) {
                let what = format!("`{}` is an older result: it would be joined to itself", pair.bin.display());
                return Err(Error::Options { what });
            }
            parts.push(Index::open(&pair)?);
        }
        if parts.is_empty() {
            return Err(Error::NothingToRead { path: folder.join(format!("*{key}*.idx")) });
        }
        groups.push((target, parts));
    }
    let mut summary = Summary::default();
    let mut sealed = Vec::new();
    let mut done = 0;
    for (target, parts) in &groups {
        let mut writer = PairWriter::create(target, digests)?;
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
    summary.files = publish(sealed, digests)?;
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

fn is_same(one: &Path, other: &Path) -> bool {
    one.canonicalize().ok().zip(other.canonicalize().ok()).is_some_and(|(one, other)| one == other)
}
