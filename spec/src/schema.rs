//! The JSON Schema that editors complete and check a file with.

use serde_json::Value;

use crate::file::SpecFile;

/// Returns the schema of a pipeline file, with all keys and their meaning.
#[must_use]
pub fn schema() -> Value {
    let generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<SpecFile>().to_value();
    drop_empty_defaults(&mut schema);
    schema
}

/// All keys are optional to the reader; that their default is nothing says nothing.
fn drop_empty_defaults(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let empty = object.get("default").is_some_and(|default| match default {
                Value::Null => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(keys) => keys.values().all(|v| v.is_null()),
                Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
            });
            if empty {
                object.remove("default");
            }
            object.values_mut().for_each(drop_empty_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty_defaults),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
