//! How long texts and lists from the wire may be.

use super::WireError;

/// Longest path, in bytes: the kernel's own limit.
pub(super) const PATH: usize = 4096;
/// Most files that one output may name.
pub(super) const FILES: usize = 4096;
/// Most evidence lines of a failure.
pub(super) const EVIDENCE: usize = 20;
/// Longest sentence or evidence line, in characters.
pub(super) const SENTENCE: usize = 1000;
/// Most attempts that one agent may claim to run.
pub(super) const LIVE: usize = 100_000;

/// Refuses `text` beyond `limit` bytes.
pub(super) fn text(field: &'static str, text: String, limit: usize) -> Result<String, WireError> {
    if text.len() > limit { Err(WireError::TooLong { field, given: text.len(), limit }) } else { Ok(text) }
}

/// Refuses a list beyond `limit` entries.
pub(super) fn list<T>(field: &'static str, list: Vec<T>, limit: usize) -> Result<Vec<T>, WireError> {
    if list.len() > limit { Err(WireError::TooLong { field, given: list.len(), limit }) } else { Ok(list) }
}

/// Cuts a sentence meant for people: too much of it is no reason to refuse a report.
pub(super) fn sentence(text: &str) -> String {
    text.chars().take(SENTENCE).collect()
}
