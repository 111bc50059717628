//! Small words of the command line: lists of ranks, points of time, durations; one to a line.
//!
//! Their readers belong to a program that has no library, so the files themselves are taken.

use std::str::from_utf8;

#[allow(dead_code, reason = "the command line uses the rest")]
#[path = "../../../cli/src/moment.rs"]
mod moment;
#[path = "../../../cli/src/ranks.rs"]
mod ranks;

use moment::{Moment, span};

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = from_utf8(bytes) else { return };
    for word in text.lines().take(16) {
        match ranks::parse(word) {
            Ok(list) => assert!(!list.is_empty() && list.is_sorted_by(|a, b| a < b), "{list:?}"),
            Err(said) => assert!(!said.is_empty()),
        }
        if let Ok(ms) = span(word) {
            assert!(ms <= 86_400_000, "{word}: {ms}");
        }
        if let Ok(moment) = Moment::read(word) {
            let at = moment.on(1_900_000_000_000);
            assert!(at > 0 || moment == Moment::At(0), "{word}: {at}");
        }
    }
}
