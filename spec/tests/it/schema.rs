//! The JSON Schema names every key, and every key is described.

use std::collections::BTreeSet;

use serde_json::Value;

/// All keys of the schema as `Type.key`, sorted.
fn keys(schema: &Value) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut collect = |name: &str, object: &Value| {
        let properties = object.get("properties").and_then(Value::as_object);
        for (key, value) in properties.into_iter().flatten() {
            let described = value.get("description").is_some() || name == "Stages";
            assert!(described, "{name}.{key} has no description");
            keys.insert(format!("{name}.{key}"));
        }
    };
    collect("Pipeline", schema);
    for (name, object) in schema["$defs"].as_object().unwrap() {
        collect(name, object);
    }
    keys
}

#[test]
fn the_schema_has_exactly_these_keys() {
    let want = include_str!("schema_keys.txt");
    let have: Vec<String> = keys(&spec::schema()).into_iter().collect();
    assert_eq!(have, want.lines().collect::<Vec<_>>(), "\n{}", have.join("\n"));
}

#[test]
fn unknown_keys_are_refused_by_the_schema_too() {
    let schema = spec::schema();
    assert_eq!(schema["additionalProperties"], Value::Bool(false));
    assert_eq!(schema["title"], "Pipeline");
    assert_eq!(schema["required"], serde_json::json!(["name", "stages"]));
    assert_eq!(schema["$defs"]["Train"]["additionalProperties"], Value::Bool(false));
}
