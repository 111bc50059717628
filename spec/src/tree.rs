//! The file as a tree of values that know their place.
//!
//! YAML and JSON are read by one reader. Every later complaint looks up its
//! line here, so checks work on plain paths.

mod read;
mod set;

pub(crate) use read::read;
pub(crate) use set::{apply, label};

/// Where a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// 1-based line and column of the file.
    File { line: u32, column: u32 },
    /// Position in the list of overrides.
    Set(usize),
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// A value as YAML's core schema reads it.
///
/// Scalars that are no text keep their spelling: `1.25e-6` must reach a command
/// line as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int { value: i128, spelled: String },
    Float { value: f64, spelled: String },
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One `key: value` of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

impl Node {
    /// Returns the node at a dotted path's segments; list positions are numbers.
    pub(crate) fn at<'a, I>(&self, path: I) -> Option<&Self>
    where
        I: IntoIterator<Item = &'a str>,
    {
        path.into_iter().try_fold(self, |node, segment| node.child(segment))
    }

    /// Returns the place of the deepest existing node on a path.
    ///
    /// For an entry of a mapping this is its key's place, where a reader looks first.
    pub(crate) fn place_of(&self, path: &str) -> Place {
        let mut node = self;
        let mut place = self.place;
        for segment in path.split('.').filter(|s| !s.is_empty()) {
            let Some(child) = node.child(segment) else { break };
            place = match &node.value {
                Value::Map(entries) => entries.iter().find(|e| e.key == segment).map_or(child.place, |e| e.place),
                Value::Null
                | Value::Bool(_)
                | Value::Int { .. }
                | Value::Float { .. }
                | Value::Text(_)
                | Value::List(_) => child.place,
            };
            node = child;
        }
        place
    }

    /// Takes the value at a path out of the tree; false if there is none.
    pub(crate) fn remove(&mut self, path: &[String]) -> bool {
        let Some((last, parents)) = path.split_last() else { return false };
        let Some(parent) = parents.iter().try_fold(self, |node, segment| node.child_mut(segment)) else {
            return false;
        };
        match &mut parent.value {
            Value::Map(entries) => {
                let before = entries.len();
                entries.retain(|e| e.key != *last);
                entries.len() < before
            }
            Value::List(items) => match last.parse::<usize>() {
                // The place is kept, so that later complaints name the right position.
                Ok(index) if index < items.len() && items[index].value != Value::Null => {
                    items[index].value = Value::Null;
                    true
                }
                Ok(_) | Err(_) => false,
            },
            Value::Null | Value::Bool(_) | Value::Int { .. } | Value::Float { .. } | Value::Text(_) => false,
        }
    }

    /// What this is, in a user's words.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("`{value}`"),
            Value::Int { spelled, .. } | Value::Float { spelled, .. } => format!("the number `{spelled}`"),
            Value::Text(text) => format!("the text `{}`", excerpt(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    fn child(&self, segment: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == segment).map(|e| &e.node),
            Value::List(items) => segment.parse::<usize>().ok().and_then(|index| items.get(index)),
            Value::Null | Value::Bool(_) | Value::Int { .. } | Value::Float { .. } | Value::Text(_) => None,
        }
    }

    fn child_mut(&mut self, segment: &str) -> Option<&mut Self> {
        match &mut self.value {
            Value::Map(entries) => entries.iter_mut().find(|e| e.key == segment).map(|e| &mut e.node),
            Value::List(items) => segment.parse::<usize>().ok().and_then(|index| items.get_mut(index)),
            Value::Null | Value::Bool(_) | Value::Int { .. } | Value::Float { .. } | Value::Text(_) => None,
        }
    }
}

/// The beginning of a text, fit for one line of a message.
pub(crate) fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() > 60 {
        short.push('…');
    }
    short
}
