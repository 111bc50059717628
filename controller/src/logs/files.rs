//! Names and paths of log files.

use std::path::{Path, PathBuf};

use model::{AttemptId, NameError, NodeId};

use super::Logs;

/// Name of a source within an attempt and node: `scheduler`, `worker_3`, `stdout`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(String);

impl SourceName {
    /// Checks and wraps `text`: 1 to 64 of a-z, 0-9, `_`, `.` and `-`, not
    /// starting with a dot, so that it is one plain file name.
    ///
    /// # Errors
    ///
    /// [`NameError`] with the rule.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let fits = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(b);
        let bytes = text.as_bytes();
        if bytes.is_empty() || bytes.len() > 64 || bytes[0] == b'.' || !bytes.iter().all(fits) {
            return Err(NameError {
                what: "log source",
                rule: "1 to 64 of a-z, 0-9, `_`, `.` and `-`, not starting with a dot",
                given: text.chars().take(64).collect(),
            });
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Sorts `worker_2` before `worker_10`.
    #[must_use]
    pub fn order(&self) -> (String, u64) {
        let head = self.0.trim_end_matches(|c: char| c.is_ascii_digit());
        (head.to_owned(), self.0[head.len()..].parse().unwrap_or(0))
    }
}

/// One log file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The attempt.
    pub attempt: AttemptId,
    /// The node that writes it.
    pub node: NodeId,
    /// Its name there.
    pub name: SourceName,
}

impl Logs {
    pub(super) fn attempt_dir(&self, attempt: &AttemptId) -> PathBuf {
        self.root.join(attempt.task.job.as_str()).join(attempt.to_string())
    }

    pub(super) fn path(&self, source: &Source) -> PathBuf {
        self.attempt_dir(&source.attempt).join(source.node.as_str()).join(format!("{}.log", source.name.as_str()))
    }

    /// Exists once the source will not grow any more.
    pub(super) fn done_path(&self, source: &Source) -> PathBuf {
        self.path(source).with_extension("done")
    }

    /// Where it is kept when the source's bytes arrived.
    pub(super) fn times_path(&self, source: &Source) -> PathBuf {
        self.path(source).with_extension("times")
    }

    /// Sources of an attempt, by node and natural order of their names.
    pub(super) fn sources(&self, attempt: &AttemptId) -> Vec<Source> {
        let mut found = Vec::new();
        for node in names(&self.attempt_dir(attempt)) {
            let Ok(node_id) = NodeId::new(node.clone()) else { continue };
            for file in names(&self.attempt_dir(attempt).join(&node)) {
                let Some(name) = file.strip_suffix(".log").and_then(|name| SourceName::new(name).ok()) else {
                    continue;
                };
                found.push(Source { attempt: attempt.clone(), node: node_id.clone(), name });
            }
        }
        found.sort_by_cached_key(|source| (source.name.order(), source.node.clone()));
        found
    }
}

/// Entries of a directory; none if it is not there yet.
fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_names_are_plain_file_names_in_natural_order() {
        for bad in ["", ".", "..", "a/b", "A", ".x", "a b", &"x".repeat(65)] {
            assert!(SourceName::new(bad).is_err(), "{bad:?}");
        }
        let mut names: Vec<SourceName> =
            ["worker_10", "worker_2", "scheduler", "stdout"].iter().map(|n| SourceName::new(n).unwrap()).collect();
        names.sort_by_cached_key(SourceName::order);
        let names: Vec<&str> = names.iter().map(SourceName::as_str).collect();
        assert_eq!(names, ["scheduler", "stdout", "worker_2", "worker_10"]);
    }
}
