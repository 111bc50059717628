//! Some consecutive rows on their way to a worker.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, StringArray};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::Reading;
use crate::error::{Error, FieldFault};

/// Rows that one worker encodes in one go.
pub(crate) enum Batch {
    /// Text columns in the order of the keys, checked for nulls and length.
    Columns { columns: Vec<StringArray>, size: usize },
    /// Whole lines, not yet parsed: the workers do that in parallel.
    Lines { path: Arc<Path>, bytes: Vec<u8>, first_line: u64 },
}

impl Batch {
    /// About how much memory it holds, in bytes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Columns { size, .. } => *size,
            Self::Lines { bytes, .. } => bytes.len(),
        }
    }

    /// Visits every text of every row: key after key, row after row.
    pub(crate) fn each_text(
        &self,
        reading: Reading<'_>,
        mut visit: impl FnMut(usize, &str) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        match self {
            Self::Columns { columns, .. } => {
                for (key, column) in columns.iter().enumerate() {
                    for row in 0..column.len() {
                        visit(key, column.value(row))?;
                    }
                }
                Ok(columns.first().map_or(0, |column| column.len() as u64))
            }
            Self::Lines { path, bytes, first_line } => {
                let mut rows = 0;
                for (line, number) in lines(bytes).zip(*first_line..) {
                    if line.trim_ascii().is_empty() {
                        continue;
                    }
                    rows += 1;
                    let texts = parse_line(line, reading.keys, path, number)?;
                    for (key, text) in texts.iter().enumerate() {
                        visit(key, text)?;
                    }
                }
                Ok(rows)
            }
        }
    }
}

/// The lines of `bytes`, without their newlines.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(line)
    })
}

/// The texts of one line in the order of the keys.
fn parse_line<'line>(
    line: &'line [u8],
    keys: &[String],
    path: &Path,
    number: u64,
) -> Result<Vec<Cow<'line, str>>, Error> {
    let field = |what| Error::Field { path: path.to_owned(), line: number, what };
    let text = std::str::from_utf8(line).map_err(|error| field(FieldFault::NotUtf8(error.valid_up_to() + 1)))?;
    let mut fault = None;
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = Wanted { keys, fault: &mut fault }.deserialize(&mut json).and_then(|texts| json.end().map(|()| texts));
    match (parsed, fault) {
        (_, Some(what)) => Err(field(what)),
        (Ok(texts), None) => Ok(texts),
        (Err(error), None) => {
            let what = error.to_string();
            // serde_json counts lines inside this one line: only the column helps.
            let what = what.replace(" at line 1 column ", " at column ");
            // The second message is what half a pair before other text gives.
            if what.contains("surrogate") || what.contains("unexpected end of hex escape") {
                return Err(field(FieldFault::LoneSurrogate(what)));
            }
            Err(Error::Json { path: path.to_owned(), line: number, what })
        }
    }
}

/// Picks the wanted keys out of one object and skips the rest.
struct Wanted<'keys> {
    keys: &'keys [String],
    fault: &'keys mut Option<FieldFault>,
}

impl<'line> DeserializeSeed<'line> for Wanted<'_> {
    type Value = Vec<Cow<'line, str>>;

    fn deserialize<D: Deserializer<'line>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'line> Visitor<'line> for Wanted<'_> {
    type Value = Vec<Cow<'line, str>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("one object a line")
    }

    fn visit_map<A: MapAccess<'line>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found: Vec<Option<Cow<'line, str>>> = vec![None; self.keys.len()];
        while let Some(KeyText(name)) = map.next_key()? {
            let Some(position) = self.keys.iter().position(|key| *key == name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let key = || self.keys[position].clone();
            let fault = match map.next_value::<Field<'line>>()? {
                Field::Text(_) if found[position].is_some() => FieldFault::Twice(key()),
                Field::Text(text) => {
                    found[position] = Some(text);
                    continue;
                }
                Field::Null => FieldFault::Null(key()),
                Field::Other(found) => FieldFault::NotText { key: key(), found },
            };
            *self.fault = Some(fault);
            return Err(A::Error::custom("a field is at fault"));
        }
        let mut texts = Vec::with_capacity(found.len());
        for (text, key) in found.into_iter().zip(self.keys) {
            let Some(text) = text else {
                *self.fault = Some(FieldFault::Missing(key.clone()));
                return Err(A::Error::custom("a field is missing"));
            };
            texts.push(text);
        }
        Ok(texts)
    }
}

/// A key, borrowed unless it holds escapes.
struct KeyText<'line>(Cow<'line, str>);

impl<'line> serde::Deserialize<'line> for KeyText<'line> {
    fn deserialize<D: Deserializer<'line>>(deserializer: D) -> Result<Self, D::Error> {
        match Field::deserialize(deserializer)? {
            Field::Text(text) => Ok(Self(text)),
            Field::Null | Field::Other(_) => Err(D::Error::custom("a key is not a string")),
        }
    }
}

/// A value, by what it is.
enum Field<'line> {
    Text(Cow<'line, str>),
    Null,
    Other(&'static str),
}

impl<'line> serde::Deserialize<'line> for Field<'line> {
    fn deserialize<D: Deserializer<'line>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'line> Visitor<'line> for FieldVisitor {
    type Value = Field<'line>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'line str) -> Result<Self::Value, E> {
        Ok(Field::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Field::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Field::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Field::Other("a truth value"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_seq<A: serde::de::SeqAccess<'line>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other("a list"))
    }

    fn visit_map<A: MapAccess<'line>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other("an object"))
    }
}
