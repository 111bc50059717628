//! A merge that was interrupted while it removed its parts is over all the same.
//!
//! Before the first part goes, a note beside the result says whose parts were
//! joined into it. A merge of the same parts that finds the note and the whole
//! result removes what is left, and is done.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::Merge;
use crate::error::Error;
use crate::index::{Index, Pair};
use crate::output::{OutputFile, Temp, digest_file, directory, remove_if_present, sync_directory};
use crate::run::Summary;

/// Writes the note.
pub(super) fn begin(merge: &Merge, summary: &Summary) -> Result<(), Error> {
    let path = note(merge);
    let mut file = Temp::create(&path)?;
    file.write_all(content(merge, &summary.files).to_string().as_bytes())?;
    file.sync()?;
    file.publish()?;
    sync_directory(&directory(&path))
}

/// Takes the note away.
pub(super) fn forget(merge: &Merge) -> Result<(), Error> {
    remove_if_present(&note(merge))
}

/// The result of an earlier run of this merge, if it was removing its parts.
pub(super) fn take_up(merge: &Merge) -> Result<Option<Summary>, Error> {
    let Ok(found) = fs::read(note(merge)) else {
        return Ok(None);
    };
    let mut summary = Summary::default();
    for key in &merge.keys {
        let pair = Pair::of_key(&merge.output_prefix, key);
        let Ok(index) = Index::open(&pair) else {
            return Ok(None);
        };
        summary.sequences += index.sequences();
        summary.documents += index.documents();
        summary.tokens += index.ids();
        for path in [pair.bin, pair.idx] {
            let size = fs::metadata(&path).map_err(Error::io("open", &path))?.len();
            summary.files.push(OutputFile { path, size, digest: None });
        }
    }
    let ours = serde_json::from_slice::<Value>(&found).is_ok_and(|found| found == content(merge, &summary.files));
    if !merge.remove_parts || !ours {
        return Ok(None);
    }
    if merge.digests {
        for file in &mut summary.files {
            file.digest = Some(digest_file(&file.path)?);
        }
    }
    Ok(Some(summary))
}

fn note(merge: &Merge) -> PathBuf {
    let name = merge.output_prefix.file_name().unwrap_or_default().to_string_lossy();
    merge.output_prefix.with_file_name(format!(".{name}.merged"))
}

/// What the note says: the parts, how they were joined, and the result's sizes.
fn content(merge: &Merge, files: &[OutputFile]) -> Value {
    let mut sizes: Vec<(String, u64)> = files.iter().map(|file| (file.path.display().to_string(), file.size)).collect();
    sizes.sort();
    let pack = merge.pack.map(|pack| (pack.seq_length, pack.pad_id));
    let parts: Vec<String> = merge.parts.iter().map(|part| part.display().to_string()).collect();
    json!({"parts": parts, "keys": merge.keys, "pack": pack, "files": sizes})
}
