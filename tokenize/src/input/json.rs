//! Picks the wanted texts out of one JSON object.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::{Absent, Reading};
use crate::error::{Error, FieldFault};

/// The values of one object in the order of the keys; nulls only where allowed.
pub(super) type Texts<'line> = Vec<Option<Cow<'line, str>>>;

/// The texts of one line in the order of the keys.
///
/// `number` is the line that it begins on.
pub(super) fn parse<'line>(
    line: &'line [u8],
    reading: Reading<'_>,
    path: &Path,
    number: u64,
) -> Result<Texts<'line>, Error> {
    let field = |what| Error::Field { path: path.to_owned(), line: number, what };
    let text = std::str::from_utf8(line).map_err(|error| field(FieldFault::NotUtf8(error.valid_up_to() + 1)))?;
    let mut fault = None;
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed =
        Wanted { reading, fault: &mut fault }.deserialize(&mut json).and_then(|texts| json.end().map(|()| texts));
    match (parsed, fault) {
        (_, Some(what)) => Err(field(what)),
        (Ok(texts), None) => Ok(texts),
        (Err(error), None) => {
            // serde_json counts lines from the beginning of this object.
            let place = format!(" at line {} column ", error.line());
            let what = error.to_string().replace(&place, " at column ");
            let line = number + (error.line() as u64).saturating_sub(1);
            // The second message is what half a pair before other text gives.
            if what.contains("surrogate") || what.contains("unexpected end of hex escape") {
                return Err(field(FieldFault::LoneSurrogate(what)));
            }
            Err(Error::Json { path: path.to_owned(), line, what })
        }
    }
}

/// Picks the wanted keys out of one object and skips the rest.
struct Wanted<'keys> {
    reading: Reading<'keys>,
    fault: &'keys mut Option<FieldFault>,
}

impl<'line> DeserializeSeed<'line> for Wanted<'_> {
    type Value = Texts<'line>;

    fn deserialize<D: Deserializer<'line>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'line> Visitor<'line> for Wanted<'_> {
    type Value = Texts<'line>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("one object a line")
    }

    fn visit_map<A: MapAccess<'line>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Reading { keys, absent, .. } = self.reading;
        let mut found: Texts<'line> = vec![None; keys.len()];
        // At most 16 keys: a bit for each that was there.
        let mut seen = 0_u32;
        while let Some(KeyText(name)) = map.next_key()? {
            let Some(position) = keys.iter().position(|key| *key == name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let key = || keys[position].clone();
            let again = seen & 1 << position != 0;
            seen |= 1 << position;
            let fault = match map.next_value::<Field<'line>>()? {
                _ if again => FieldFault::Twice(key()),
                Field::Text(text) => {
                    found[position] = Some(text);
                    continue;
                }
                Field::Null if absent != Absent::Refused => continue,
                Field::Null => FieldFault::Null(key()),
                Field::Other(found) => FieldFault::NotText { key: key(), found },
            };
            *self.fault = Some(fault);
            return Err(A::Error::custom("a field is at fault"));
        }
        let missing = found.iter().position(Option::is_none).filter(|_| absent == Absent::Refused);
        if let Some(position) = missing {
            *self.fault = Some(FieldFault::Missing(keys[position].clone()));
            return Err(A::Error::custom("a field is missing"));
        }
        Ok(found)
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
