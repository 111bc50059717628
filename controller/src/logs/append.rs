//! Writing what agents push.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::PoisonError;

use super::{Logs, Source};

/// A piece of one source.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Which source.
    pub source: Source,
    /// Where the piece begins.
    pub offset: u64,
    /// The bytes; may be empty.
    pub data: Vec<u8>,
    /// Whether the source ends behind this piece.
    pub done: bool,
}

impl Logs {
    /// Appends what is new of `chunks` and returns, for each source that they
    /// name, how many bytes are held durably.
    ///
    /// What is held already falls out; a piece beyond the end is left for the
    /// agent to send again from there. Blocks on the disk: one flush a source.
    ///
    /// # Errors
    ///
    /// Whatever the file system says; then nothing is said to be held.
    pub fn append(&self, chunks: Vec<Chunk>) -> io::Result<Vec<(Source, u64)>> {
        let mut by_source: BTreeMap<Source, Vec<Chunk>> = BTreeMap::new();
        for chunk in chunks {
            by_source.entry(chunk.source.clone()).or_default().push(chunk);
        }
        let mut held = Vec::with_capacity(by_source.len());
        for (source, chunks) in by_source {
            let length = self.append_to(&source, &chunks)?;
            self.grown.touch(&source.attempt.task.job);
            held.push((source, length));
        }
        Ok(held)
    }

    fn append_to(&self, source: &Source, chunks: &[Chunk]) -> io::Result<u64> {
        let writer = self.writers.entry(source.clone()).or_default().clone();
        let outcome = {
            // A panic of another writer leaves a file whose length is what it holds.
            let _alone = writer.lock().unwrap_or_else(PoisonError::into_inner);
            self.write(source, chunks)
        };
        drop(writer);
        self.writers.remove_if(source, |_, writer| std::sync::Arc::strong_count(writer) == 1);
        outcome
    }

    fn write(&self, source: &Source, chunks: &[Chunk]) -> io::Result<u64> {
        let path = self.path(source);
        let writes = chunks.iter().any(|chunk| !chunk.data.is_empty() || chunk.done);
        let file = match OpenOptions::new().write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !writes => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(&path)?,
            Err(error) => return Err(error),
        };
        let mut held = file.metadata()?.len();
        let mut done = false;
        let new = |chunk: &Chunk| chunk.offset <= held && chunk.offset.saturating_add(chunk.data.len() as u64) > held;
        if chunks.iter().any(new) {
            super::times::note(&self.times_path(source), held, runtime::clock::now_ms())?;
        }
        for chunk in chunks {
            let end = chunk.offset.saturating_add(chunk.data.len() as u64);
            if chunk.offset <= held && end > held {
                let skip = usize::try_from(held - chunk.offset).unwrap_or(usize::MAX);
                file.write_all_at(&chunk.data[skip.min(chunk.data.len())..], held)?;
                held = end;
            }
            done |= chunk.done && end <= held;
        }
        if writes {
            file.sync_data()?;
        }
        if done {
            File::create(self.done_path(source))?;
        }
        Ok(held)
    }
}

/// Makes the file and makes its name durable, with those of its directories.
fn create(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    // File, node, attempt, job: each may be new.
    for new in path.ancestors().take(4) {
        runtime::files::sync_parent(new)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::SourceName;
    use model::NodeId;

    fn source() -> Source {
        Source {
            attempt: "j1.train.0.1".parse().unwrap(),
            node: NodeId::new("n1").unwrap(),
            name: SourceName::new("worker_0").unwrap(),
        }
    }

    fn chunk(offset: u64, data: &str) -> Chunk {
        Chunk { source: source(), offset, data: data.as_bytes().to_vec(), done: false }
    }

    fn held(logs: &Logs, chunks: Vec<Chunk>) -> u64 {
        logs.append(chunks).unwrap()[0].1
    }

    #[test]
    fn duplicates_fall_out_and_gaps_wait() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().join("logs"));
        assert_eq!(held(&logs, vec![chunk(0, "")]), 0);
        assert!(!logs.path(&source()).exists(), "a question makes no file");
        assert_eq!(held(&logs, vec![chunk(0, "hello "), chunk(6, "world\n")]), 12);
        assert_eq!(held(&logs, vec![chunk(3, "lo world\nand")]), 15);
        assert_eq!(held(&logs, vec![chunk(0, "other")]), 15);
        assert_eq!(held(&logs, vec![chunk(20, "far")]), 15);
        assert_eq!(std::fs::read(logs.path(&source())).unwrap(), b"hello world\nand");
    }

    #[test]
    fn what_a_crash_took_is_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().join("logs"));
        assert_eq!(held(&logs, vec![chunk(0, "0123456789")]), 10);
        OpenOptions::new().write(true).open(logs.path(&source())).unwrap().set_len(4).unwrap();
        let logs = Logs::new(dir.path().join("logs"));
        assert_eq!(held(&logs, vec![chunk(10, "ab")]), 4);
        assert_eq!(held(&logs, vec![chunk(4, "456789ab")]), 12);
        assert_eq!(std::fs::read(logs.path(&source())).unwrap(), b"0123456789ab");
    }

    #[test]
    fn a_source_is_done_only_once_all_of_it_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().join("logs"));
        logs.append(vec![chunk(0, "ab"), Chunk { done: true, ..chunk(5, "") }]).unwrap();
        assert!(!logs.done_path(&source()).exists());
        logs.append(vec![chunk(2, "cde"), Chunk { done: true, ..chunk(5, "") }]).unwrap();
        assert!(logs.done_path(&source()).exists());
    }
}
