//! Scalars that keep their spelling, and keys with two forms.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::decode::{NUMBER_AS_WRITTEN, SCALAR_AS_WRITTEN};
use crate::words::{Granularity, Method};

/// Text, or a number or truth value as the file spells it.
///
/// For arguments and variables, where quoting `0.10` would be a trap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written(pub(crate) String);

/// A finite number as the file spells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decimal(pub(crate) String);

/// `none`, or what is recomputed.
#[derive(Clone, Debug)]
pub(crate) enum RecomputeFile {
    None,
    Keys(RecomputeKeys),
}

/// Activations that are computed again instead of kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Recompute", extend("required" = ["granularity"]))]
pub(crate) struct RecomputeKeys {
    /// `full`: whole layers; `selective`: the attention core.
    pub(crate) granularity: Option<Granularity>,
    /// `uniform`: all layers, in blocks of equal size; `block`: the first ones of each pipeline stage; with `full` only. Default `uniform`.
    pub(crate) method: Option<Method>,
    /// Layers of a block; with `full` only. Default 1.
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) num_layers: Option<u32>,
}

/// `latest`, or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IterationFile {
    Latest,
    Number(u64),
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(SCALAR_AS_WRITTEN, TextVisitor).map(Self)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(NUMBER_AS_WRITTEN, TextVisitor).map(Self)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

impl JsonSchema for Written {
    fn schema_name() -> Cow<'static, str> {
        "Written".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

impl JsonSchema for Decimal {
    fn schema_name() -> Cow<'static, str> {
        "Decimal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "number" })
    }
}

impl<'de> Deserialize<'de> for RecomputeFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RecomputeVisitor)
    }
}

struct RecomputeVisitor;

impl<'de> Visitor<'de> for RecomputeVisitor {
    type Value = RecomputeFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`none` or { granularity: full, method: uniform, num_layers: 1 }")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<RecomputeFile, E> {
        match word {
            "none" => Ok(RecomputeFile::None),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RecomputeFile, A::Error> {
        RecomputeKeys::deserialize(MapAccessDeserializer::new(map)).map(RecomputeFile::Keys)
    }
}

impl JsonSchema for RecomputeFile {
    fn schema_name() -> Cow<'static, str> {
        "RecomputeOrNone".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keys = generator.subschema_for::<RecomputeKeys>();
        schemars::json_schema!({ "anyOf": [{ "const": "none" }, keys] })
    }
}

impl<'de> Deserialize<'de> for IterationFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IterationVisitor)
    }
}

struct IterationVisitor;

impl Visitor<'_> for IterationVisitor {
    type Value = IterationFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`latest` or a number of at least 1")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<IterationFile, E> {
        match word {
            "latest" => Ok(IterationFile::Latest),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<IterationFile, E> {
        match number {
            0 => Err(E::invalid_value(de::Unexpected::Unsigned(0), &self)),
            number => Ok(IterationFile::Number(number)),
        }
    }
}

impl JsonSchema for IterationFile {
    fn schema_name() -> Cow<'static, str> {
        "Iteration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "anyOf": [{ "const": "latest" }, { "type": "integer", "minimum": 1, "maximum": 9_999_999 }] })
    }
}
