//! From the tree to typed structs, with every mistake found in one pass.
//!
//! serde stops at the first error. Here the value it stopped at is noted, taken
//! out of the tree, and reading starts again: all fields are optional in the
//! structs, so a value taken out causes no error of its own.

mod error;
mod reader;

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

pub(crate) use error::{DecodeError, list, one_of};
pub(crate) use reader::{NUMBER_AS_WRITTEN, Reader, SCALAR_AS_WRITTEN};

use crate::tree::{Node, Place};

/// Most mistakes that are told at once.
pub(crate) const MAX_PROBLEMS: usize = 20;

/// What was read, and what could not be.
pub(crate) struct Decoded<T> {
    pub(crate) value: Option<T>,
    pub(crate) errors: Vec<(Place, DecodeError)>,
    /// Paths whose value was refused: nothing more is to be said about them.
    pub(crate) refused: BTreeSet<String>,
}

/// Reads a tree into `T`; refused values end as if they were absent.
pub(crate) fn decode<T: DeserializeOwned>(tree: &Node) -> Decoded<T> {
    let mut tree = tree.clone();
    let mut errors = Vec::new();
    let mut refused = BTreeSet::new();
    loop {
        let error = match T::deserialize(Reader::new(&tree)) {
            Ok(value) => return Decoded { value: Some(value), errors, refused },
            Err(error) => error,
        };
        let path = error.path();
        let removed = tree.remove(error.segments());
        let place = error.place().unwrap_or_else(|| tree.place_of(&path));
        errors.push((place, error));
        refused.insert(path);
        if !removed || errors.len() >= MAX_PROBLEMS {
            return Decoded { value: None, errors, refused };
        }
    }
}
