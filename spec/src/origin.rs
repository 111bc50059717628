//! Where a spec came from, for messages that point at a line.

use crate::problem::Problem;
use crate::tree::{Node, Place, label};

/// The tree, its file's name and the overrides that went into it.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    source_name: String,
    overrides: Vec<(String, String)>,
    tree: Node,
}

impl Origin {
    pub(crate) fn new(source_name: &str, overrides: &[(String, String)], tree: Node) -> Self {
        Self { source_name: source_name.to_owned(), overrides: overrides.to_vec(), tree }
    }

    pub(crate) fn tree(&self) -> &Node {
        &self.tree
    }

    /// A problem at the deepest existing value of a path.
    pub(crate) fn problem(&self, path: &str, message: String, hint: Option<String>) -> Problem {
        self.problem_at(self.tree.place_of(path), path, message, hint)
    }

    pub(crate) fn problem_at(&self, place: Place, path: &str, message: String, hint: Option<String>) -> Problem {
        let (source_name, line, column) = match place {
            Place::File { line, column } => (self.source_name.clone(), line, column),
            Place::Set(index) => {
                let (path, value) = &self.overrides[index];
                (label(path, value), 0, 0)
            }
        };
        Problem { source_name, line, column, path: path.to_owned(), message, hint }
    }
}
