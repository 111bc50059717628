//! The manifest of a merge: which task made which part.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::report::Failure;

/// A manifest of a hundred thousand parts stays well below.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    task: u64,
    path: PathBuf,
}

/// Reads a manifest: the parts in the order of their tasks, `0..` without gaps.
pub(crate) fn read(manifest: &Path) -> Result<Vec<PathBuf>, Failure> {
    let hint = "a manifest is a JSON list of {\"task\": N, \"path\": PREFIX}, tasks counted from 0";
    let fault = |what: String| Failure::new(format!("the manifest `{}` {what}", manifest.display()), hint);
    let file = File::open(manifest).map_err(|error| fault(format!("cannot be opened: {error}")))?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| fault(format!("cannot be read: {error}")))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(fault(format!("is larger than {MAX_BYTES} bytes")));
    }
    let mut parts: Vec<Part> = serde_json::from_str(&text).map_err(|error| fault(format!("is not one: {error}")))?;
    parts.sort_by_key(|part| part.task);
    for (expected, part) in (0..).zip(&parts) {
        if part.task != expected {
            let what = if part.task < expected { "twice" } else { "but not the one before" };
            return Err(fault(format!("names task {} {what}", part.task)));
        }
    }
    Ok(parts.into_iter().map(|part| part.path).collect())
}
