//! serde's view of a tree.

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::error::DecodeError;
use crate::tree::{Entry, Node, Value};

/// Newtype name that asks for any scalar as the text the file has.
pub(crate) const SCALAR_AS_WRITTEN: &str = "$scalar-as-written";

/// Newtype name that asks for a number as the text the file has.
pub(crate) const NUMBER_AS_WRITTEN: &str = "$number-as-written";

/// Reads one node.
pub(crate) struct Reader<'de> {
    node: &'de Node,
}

impl<'de> Reader<'de> {
    pub(crate) fn new(node: &'de Node) -> Self {
        Self { node }
    }

    fn refuse(&self, expected: &str, hint: Option<String>) -> DecodeError {
        DecodeError::new(format!("expected {expected}, found {}", self.node.describe()), hint).found(self.node)
    }

    /// What a text field says to a value that looks like a number.
    fn text_hint(&self) -> Option<String> {
        match &self.node.value {
            Value::Int { spelled, .. } | Value::Float { spelled, .. } => {
                Some(format!("put it in quotes: \"{spelled}\""))
            }
            Value::Bool(value) => Some(format!("put it in quotes: \"{value}\"")),
            Value::Null | Value::Text(_) | Value::List(_) | Value::Map(_) => None,
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let node = self.node;
        match &node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int { value, spelled } => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (Err(_), Ok(value)) => visitor.visit_i64(value),
                (Err(_), Err(_)) => Err(DecodeError::new(format!("the number `{spelled}` is beyond 64 bits"), None)),
            },
            Value::Float { value, .. } => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Value::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), current: None }),
        }
        .map_err(|error: DecodeError| error.found(node))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            Value::Bool(_)
            | Value::Int { .. }
            | Value::Float { .. }
            | Value::Text(_)
            | Value::List(_)
            | Value::Map(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_borrowed_str(text).map_err(|error: DecodeError| error.found(self.node)),
            Value::Null | Value::Bool(_) | Value::Int { .. } | Value::Float { .. } | Value::List(_) | Value::Map(_) => {
                Err(self.refuse("text", self.text_hint()))
            }
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.node.value {
            // `preflight:` with nothing behind it means a stage with all defaults.
            Value::Null => visitor.visit_map(Entries { entries: [].iter(), current: None }),
            Value::Bool(_) | Value::Int { .. } | Value::Float { .. } | Value::Text(_) | Value::List(_) => {
                Err(self.refuse("a mapping of keys", None))
            }
            Value::Map(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name != SCALAR_AS_WRITTEN && name != NUMBER_AS_WRITTEN {
            return visitor.visit_newtype_struct(self);
        }
        match &self.node.value {
            Value::Int { spelled, .. } | Value::Float { spelled, .. } => visitor.visit_str(spelled),
            Value::Bool(value) if name == SCALAR_AS_WRITTEN => visitor.visit_str(if *value { "true" } else { "false" }),
            Value::Text(text) if name == SCALAR_AS_WRITTEN => visitor.visit_str(text),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                return Err(self.refuse(if name == NUMBER_AS_WRITTEN { "a number" } else { "text" }, None));
            }
        }
        .map_err(|error: DecodeError| error.found(self.node))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_enum(Word(text)).map_err(|error: DecodeError| error.found(self.node)),
            Value::Null | Value::Bool(_) | Value::Int { .. } | Value::Float { .. } | Value::List(_) | Value::Map(_) => {
                Err(self.refuse(&super::error::list(variants), None))
            }
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        seed.deserialize(Reader::new(node)).map(Some).map_err(|error| error.found(node).within(&index.to_string()))
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, Entry>,
    current: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.current = Some(entry);
        let key: StrDeserializer<'_, DecodeError> = de::IntoDeserializer::into_deserializer(entry.key.as_str());
        seed.deserialize(key).map(Some).map_err(|error| error.placed(entry.place).within(&entry.key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let Some(entry) = self.current.take() else {
            return Err(DecodeError::new("a value was asked for before its key", None));
        };
        seed.deserialize(Reader::new(&entry.node)).map_err(|error| error.found(&entry.node).within(&entry.key))
    }
}

/// A word of a fixed set.
struct Word<'de>(&'de str);

impl<'de> EnumAccess<'de> for Word<'de> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), DecodeError> {
        let word: StrDeserializer<'_, DecodeError> = de::IntoDeserializer::into_deserializer(self.0);
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, DecodeError> {
        Err(DecodeError::new("expected one word", None))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, DecodeError> {
        Err(DecodeError::new("expected one word", None))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, DecodeError> {
        Err(DecodeError::new("expected one word", None))
    }
}
