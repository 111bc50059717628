//! The record's files: the newest is `audit.jsonl`, `audit.1.jsonl` the one before.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::Entry;

/// Bytes of a file after which another is begun.
const SIZE: u64 = 8 << 20;
/// Files that are kept.
const KEPT: usize = 8;

/// All files of a record.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    size: u64,
    kept: usize,
    newest: Option<(File, u64)>,
}

impl Files {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), size: SIZE, kept: KEPT, newest: None }
    }

    /// Adds entries, in one write.
    pub(super) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut text = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut text, entry)?;
            text.push(b'\n');
        }
        if self.newest.as_ref().is_some_and(|(_, held)| *held >= self.size) {
            self.turn()?;
        }
        let path = self.path(0);
        let (file, held) = match &mut self.newest {
            Some(newest) => newest,
            none @ None => none.insert(open(&self.dir, &path)?),
        };
        if let Err(error) = file.write_all(&text) {
            self.newest = None;
            return Err(error);
        }
        *held += u64::try_from(text.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.newest.as_ref().map_or(Ok(()), |(file, _)| file.sync_data())
    }

    /// The newest `limit` entries that `takes` takes, oldest first; lines that are none are passed over.
    pub(super) fn read(&self, limit: usize, takes: impl Fn(&Entry) -> bool) -> io::Result<Vec<Entry>> {
        let mut found = VecDeque::new();
        for number in 0..self.kept {
            let lines = match File::open(self.path(number)) {
                Ok(file) => BufReader::new(file).split(b'\n'),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut newest = VecDeque::new();
            for line in lines {
                let Some(entry) = serde_json::from_slice(&line?).ok().filter(&takes) else { continue };
                newest.push_back(entry);
                if newest.len() + found.len() > limit {
                    newest.pop_front();
                }
            }
            newest.append(&mut found);
            found = newest;
            if found.len() >= limit {
                break;
            }
        }
        Ok(found.into())
    }

    /// Each file takes the next one's name; the oldest goes.
    fn turn(&mut self) -> io::Result<()> {
        self.newest = None;
        for number in (1..self.kept).rev() {
            match fs::rename(self.path(number - 1), self.path(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn path(&self, number: usize) -> PathBuf {
        self.dir.join(if number == 0 { "audit.jsonl".to_owned() } else { format!("audit.{number}.jsonl") })
    }
}

fn open(dir: &Path, path: &Path) -> io::Result<(File, u64)> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let held = file.metadata()?.len();
    if held > 0 {
        // A line that was cut by the end of an earlier process stays alone.
        file.write_all(b"\n")?;
    }
    Ok((file, held))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at_ms: u64) -> Entry {
        Entry { at_ms, object: "\u{1b}[2J\n".into(), ..Entry::default() }
    }

    #[test]
    fn files_are_replaced_in_turn_and_a_torn_line_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let made = || Files { size: 1000, kept: 3, ..Files::new(dir.path()) };
        let mut files = made();
        for at in 0..100 {
            files.append(&[entry(at)]).unwrap();
        }
        drop(files);
        let names = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, 3);
        let mut torn = OpenOptions::new().append(true).open(dir.path().join("audit.jsonl")).unwrap();
        torn.write_all(b"{\"at_ms\": 7").unwrap();
        let mut files = made();
        files.append(&[entry(100), entry(101)]).unwrap();
        let newest = files.read(4, |_| true).unwrap();
        assert_eq!(newest.iter().map(|entry| entry.at_ms).collect::<Vec<_>>(), [98, 99, 100, 101]);
        assert_eq!(newest[0].object, "\u{1b}[2J\n");
        let all = files.read(1000, |_| true).unwrap();
        assert!((10..60).contains(&all.len()), "{}", all.len());
        assert!(all.windows(2).all(|pair| pair[0].at_ms + 1 == pair[1].at_ms));
        assert_eq!(files.read(5, |entry| entry.at_ms == 99).unwrap().len(), 1);
    }
}
