//! A merge that was interrupted while it removed its parts is over all the same.
//!
//! Before the first part goes, a note beside the result says which parts were
//! joined into it. A merge of the same parts that finds the note and the whole
//! result removes what is left, and is done. Parts that were made anew since
//! are not those parts, whatever their names.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Merge;
use crate::error::Error;
use crate::index::{Index, Pair};
use crate::output::{OutputFile, Temp, digest_file, directory, remove_if_present, sync_directory};
use crate::run::Summary;

/// What tells each file of the parts from one that was made anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Made(BTreeMap<String, Value>);

impl Made {
    /// As the files are, those that are there.
    pub(super) fn find(merge: &Merge) -> Result<Self, Error> {
        let mut made = BTreeMap::new();
        for prefix in &merge.parts {
            for key in &merge.keys {
                let pair = Pair::of_key(prefix, key);
                for path in [pair.bin, pair.idx] {
                    if let Some(identity) = identity(&path)? {
                        made.insert(path.display().to_string(), identity);
                    }
                }
            }
        }
        Ok(Self(made))
    }

    /// Whether each of these files is also one of the note's.
    fn is_in(&self, note: &Value) -> bool {
        self.0.iter().all(|(path, identity)| note.get(path) == Some(identity))
    }
}

/// Size, time and place of a file; a file that is replaced changes the last, one that is written over the second.
fn identity(path: &Path) -> Result<Option<Value>, Error> {
    match fs::metadata(path) {
        Ok(data) => Ok(Some(json!([data.len(), data.mtime(), data.mtime_nsec(), data.ino()]))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io("open", path)(source)),
    }
}

/// Writes the note; `made` are the parts as they were before they were read.
pub(super) fn begin(merge: &Merge, made: &Made, summary: &Summary) -> Result<(), Error> {
    let path = note(merge);
    let mut content = content(merge, &summary.files);
    content["made"] = json!(made.0);
    let mut file = Temp::create(&path)?;
    file.write_all(content.to_string().as_bytes())?;
    file.sync()?;
    file.publish()?;
    sync_directory(&directory(&path))
}

/// Takes the note away, for good: it must not come back when the host goes down.
pub(super) fn forget(merge: &Merge) -> Result<(), Error> {
    let path = note(merge);
    remove_if_present(&path)?;
    sync_directory(&directory(&path))
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
    let Ok(mut found) = serde_json::from_slice::<Value>(&found) else {
        return Ok(None);
    };
    let theirs = found.as_object_mut().and_then(|found| found.remove("made")).unwrap_or_default();
    let ours = found == content(merge, &summary.files) && Made::find(merge)?.is_in(&theirs);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::index::PairWriter;
    use crate::merge::merge;
    use crate::run::publish;

    fn part(prefix: &Path, id: u32) {
        let mut writer = PairWriter::create(&Pair::of_key(prefix, "text"), false).unwrap();
        writer.write_ids(&id.to_le_bytes()).unwrap();
        writer.add_sequence(1).unwrap();
        writer.end_document().unwrap();
        publish(vec![writer.seal().unwrap()], false).unwrap();
    }

    #[test]
    fn parts_that_were_made_anew_are_joined_and_not_removed_unread() {
        let place = tempfile::tempdir().unwrap();
        let parts = ["a", "b"].map(|name| place.path().join(name));
        let job = Merge {
            output_prefix: place.path().join("x"),
            keys: vec!["text".to_owned()],
            parts: parts.to_vec(),
            remove_parts: true,
            pack: None,
            digests: false,
        };
        part(&parts[0], 1);
        part(&parts[1], 2);
        let made = Made::find(&job).unwrap();
        let summary = merge(&Merge { remove_parts: false, ..job.clone() }, &mut |_, _| {}).unwrap();
        begin(&job, &made, &summary).unwrap();
        assert_eq!(take_up(&job).unwrap().unwrap().files, summary.files);

        // Killed between the two files of a part: the rest is what was joined.
        fs::remove_file(Pair::of_key(&parts[0], "text").idx).unwrap();
        assert!(take_up(&job).unwrap().is_some());
        for anew in [&parts[0], &parts[1]] {
            part(anew, 3);
            assert!(take_up(&job).unwrap().is_none(), "{}", anew.display());
        }
        merge(&job, &mut |_, _| {}).unwrap();
        let result = fs::read(Pair::of_key(&job.output_prefix, "text").bin).unwrap();
        assert_eq!(result, [3_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "the result alone is left");
    }
}
