//! One value that does not fit, told in a user's words.

use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

use crate::nearest::nearest;
use crate::tree::{Node, Place, excerpt};

/// Why a value was refused, and its path.
#[derive(Debug)]
pub(crate) struct DecodeError {
    segments: Vec<String>,
    place: Option<Place>,
    expected: Option<String>,
    message: String,
    hint: Option<String>,
    meant: Option<String>,
}

impl DecodeError {
    pub(crate) fn new(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { segments: Vec::new(), place: None, expected: None, message: message.into(), hint, meant: None }
    }

    /// Puts a segment before the path: called while the error travels outwards.
    pub(crate) fn within(mut self, segment: &str) -> Self {
        self.segments.insert(0, segment.to_owned());
        self
    }

    /// Names the value that was found, where serde only said what it wanted.
    pub(crate) fn found(mut self, node: &Node) -> Self {
        if self.place.is_none() {
            self.place = Some(node.place);
            if let Some(expected) = self.expected.take() {
                self.message = format!("expected {expected}, found {}", node.describe());
            }
        }
        self
    }

    /// Fixes the place, for errors about a key and not its value.
    pub(crate) fn placed(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }

    pub(crate) fn segments(&self) -> &[String] {
        &self.segments
    }

    pub(crate) fn path(&self) -> String {
        self.segments.join(".")
    }

    pub(crate) fn place(&self) -> Option<Place> {
        self.place
    }

    /// Path of the key that a mistyped one stands for: that key is not missing.
    pub(crate) fn meant(&self) -> Option<String> {
        let (_, parents) = self.segments.split_last()?;
        let mut path = parents.to_vec();
        path.push(self.meant.clone()?);
        Some(path.join("."))
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string(), None)
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = in_words(&expected.to_string());
        Self { expected: Some(expected.clone()), ..Self::new(format!("expected {expected}"), None) }
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let meant = nearest(field, expected.iter().copied()).map(str::to_owned);
        let hint = one_of("the key", field, expected);
        Self { meant, ..Self::new(format!("unknown key `{}`", excerpt(field)), Some(hint)) }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(
            format!("`{}` is no value for this key", excerpt(variant)),
            Some(one_of("the value", variant, expected)),
        )
    }
}

/// The nearest of some words, or all of them.
pub(crate) fn one_of(what: &str, given: &str, known: &[&str]) -> String {
    match nearest(given, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "there is nothing to set here".to_owned(),
        None => format!("{what} may be {}", list(known)),
    }
}

/// `a`, `b` or `c`.
pub(crate) fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

/// serde's names of types, as a user would say them.
fn in_words(expected: &str) -> String {
    match expected {
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "u64" => "a whole number, 0 or more".to_owned(),
        "i32" => "a whole number from -2147483648 to 2147483647".to_owned(),
        "i64" => "a whole number".to_owned(),
        "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        other if other.starts_with("struct ") => "a mapping of keys".to_owned(),
        other if other.starts_with("enum ") || other.starts_with("variant ") => "one word".to_owned(),
        other => other.to_owned(),
    }
}
