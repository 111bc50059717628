//! A number of new tries, or a budget in full.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::Written;

/// A number, or what it is made of.
#[derive(Clone, Debug)]
pub(crate) enum RetriesFile {
    Max(u64),
    Keys(RetriesKeys),
}

/// How often a failed task is tried again, within which time, and after which pauses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Retries")]
pub(crate) struct RetriesKeys {
    /// New tries within the window. Default: as without `retries`.
    #[schemars(range(max = 100))]
    pub(crate) max: Option<u32>,
    /// Failures that are older than this are forgotten: `1s` to `30d`; long enough for all the pauses. Default `24h`.
    pub(crate) window: Option<Time>,
    /// Pause before the first new try, `100ms` to `1h`; doubles with each failure within the window, up to 60 s. Default `1s`.
    pub(crate) backoff: Option<Time>,
}

/// A whole number and its unit, as the file spells it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Time(pub(crate) Written);

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9]{1,15}(ms|s|m|h|d)$" })
    }
}

impl<'de> Deserialize<'de> for RetriesFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RetriesVisitor)
    }
}

struct RetriesVisitor;

impl<'de> Visitor<'de> for RetriesVisitor {
    type Value = RetriesFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, 0 or more, or { max: 3, window: 24h, backoff: 1s }")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<RetriesFile, E> {
        Ok(RetriesFile::Max(number))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RetriesFile, A::Error> {
        RetriesKeys::deserialize(MapAccessDeserializer::new(map)).map(RetriesFile::Keys)
    }
}

impl JsonSchema for RetriesFile {
    fn schema_name() -> Cow<'static, str> {
        "RetriesOrNumber".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keys = generator.subschema_for::<RetriesKeys>();
        schemars::json_schema!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 100 }, keys] })
    }
}
