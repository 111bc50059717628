//! The keys of a file, as the JSON Schema lists them.

use serde_json::{Map, Value};

/// A mapping of the file and its keys.
pub(crate) struct Group {
    /// Dotted path; empty for the file itself. `NAME` stands for a stage of one's own.
    pub(crate) path: String,
    pub(crate) description: String,
    pub(crate) keys: Vec<Key>,
}

/// One key.
pub(crate) struct Key {
    /// Dotted path.
    pub(crate) path: String,
    pub(crate) kind: String,
    /// What holds where it is absent.
    pub(crate) absent: Absent,
    pub(crate) meaning: String,
    /// The property's schemas: its own, and what it refers to.
    pub(crate) schemas: Vec<Value>,
}

/// What holds where a key is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// The same as with this value.
    Default(String),
    /// What a sentence says.
    Sentence(String),
    /// The file is refused.
    Required,
    /// Nothing is said, checked or set.
    Nothing,
}

impl Key {
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap()
    }

    /// Value of a keyword such as `maximum`, where the key or an alternative of it has one.
    pub(crate) fn limit(&self, keyword: &str) -> Option<f64> {
        self.schemas.iter().find_map(|schema| schema.get(keyword)).and_then(Value::as_f64)
    }

    /// Whether a value may have this type.
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.schemas.iter().any(|schema| match &schema["type"] {
            Value::String(one) => one == kind,
            Value::Array(many) => many.iter().any(|one| one == kind),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
        })
    }

    /// Whether its value is a list of this kind of values.
    pub(crate) fn lists(&self, kind: &str) -> bool {
        self.schemas.iter().any(|schema| schema["items"]["type"] == kind)
    }

    pub(crate) fn range(&self) -> String {
        let pair = |least: &str, most: &str, unit: &str| {
            let most = self.limit(most)?;
            Some(match self.limit(least) {
                Some(least) => format!("{least} to {most}{unit}"),
                None => format!("at most {most}{unit}"),
            })
        };
        if let (Some(above), Some(most)) = (self.limit("exclusiveMinimum"), self.limit("maximum")) {
            return format!("above {above}, to {most}");
        }
        pair("minimum", "maximum", "")
            .or_else(|| pair("minItems", "maxItems", " entries"))
            .or_else(|| pair("minLength", "maxLength", " characters"))
            .or_else(|| pair("minProperties", "maxProperties", " entries"))
            .unwrap_or_default()
    }
}

/// All mappings of the file, each before those inside it.
pub(crate) fn groups() -> Vec<Group> {
    let schema = spec::schema();
    let mut groups = Vec::new();
    collect(&schema, &schema, "", &mut groups);
    groups
}

fn collect(root: &Value, object: &Value, path: &str, groups: &mut Vec<Group>) {
    let required: Vec<&str> =
        object["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap()).collect();
    let empty = Map::new();
    let mut properties: Vec<(&str, &Value)> =
        object["properties"].as_object().unwrap_or(&empty).iter().map(|(name, value)| (name.as_str(), value)).collect();
    // Stages of one's own.
    let own = &object["additionalProperties"];
    if own.is_object() {
        properties.push(("NAME", own));
    }
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    groups.push(Group {
        path: path.to_owned(),
        description: text(object, "description").to_owned(),
        keys: properties.iter().map(|(name, value)| key(root, below(name), value, required.contains(name))).collect(),
    });
    for (name, value) in properties {
        for inner in alternatives(root, value).iter().filter(|inner| inner.get("properties").is_some()) {
            collect(root, inner, &below(name), groups);
        }
    }
}

fn key(root: &Value, path: String, property: &Value, required: bool) -> Key {
    let schemas = alternatives(root, property);
    let own = text(property, "description");
    let description = if own.is_empty() {
        schemas.iter().map(|schema| text(schema, "description")).find(|text| !text.is_empty()).unwrap_or_default()
    } else {
        own
    };
    let (mut absent, mut meaning) = (Absent::Nothing, Vec::new());
    for sentence in description.trim_end_matches('.').split(". ") {
        if let Some(said) = sentence.strip_prefix("Default: ") {
            absent = Absent::Sentence(said.to_owned());
        } else if let Some(value) = sentence.strip_prefix("Default ") {
            absent = Absent::Default(value.trim_matches('`').to_owned());
        } else if sentence.starts_with("Required ") {
            absent = Absent::Sentence(sentence.replacen('R', "r", 1));
        } else {
            meaning.push(sentence);
        }
    }
    if required {
        absent = Absent::Required;
    }
    let kind = kind(root, property);
    Key { path, kind, absent, meaning: meaning.join(". "), schemas }
}

/// The property itself and, where it refers or gives a choice, what it means.
fn alternatives(root: &Value, property: &Value) -> Vec<Value> {
    let mut found = vec![property.clone()];
    if let Some(reference) = property["$ref"].as_str() {
        found.extend(alternatives(root, resolve(root, reference)));
    }
    for choice in property["anyOf"].as_array().into_iter().flatten() {
        found.extend(alternatives(root, choice));
    }
    found
}

fn resolve<'a>(root: &'a Value, reference: &str) -> &'a Value {
    root.pointer(reference.trim_start_matches('#')).unwrap()
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_default()
}

/// A type in a user's words.
fn kind(root: &Value, schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return kind(root, resolve(root, reference));
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("`{word}`");
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let kinds: Vec<String> =
                choices.iter().filter(|choice| choice["type"] != "null").map(|choice| kind(root, choice)).collect();
            return either(&kinds);
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        return either(&words);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).filter(|one| *one != "null").collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    };
    match types[..] {
        ["string"] => "text".to_owned(),
        ["integer"] => "whole number".to_owned(),
        ["number"] => "number".to_owned(),
        ["boolean"] => "true or false".to_owned(),
        // A scalar that reaches its command line as the file spells it.
        ["string", "number", "boolean"] => "text or number".to_owned(),
        ["array"] => format!("list of {}", kind(root, &schema["items"])),
        ["object"] if schema.get("properties").is_none() => {
            format!("mapping of names to {}", kind(root, &schema["additionalProperties"]))
        }
        ["object"] => "mapping".to_owned(),
        ref other => panic!("no words for {other:?} in {schema}"),
    }
}

/// `a`, `b` or `c`.
fn either(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

/// The reference: a heading and a table for each mapping.
pub(crate) fn tables() -> String {
    let mut page = String::new();
    for group in groups() {
        let title = if group.path.is_empty() { "The file".to_owned() } else { format!("`{}`", group.path) };
        page += &format!("### {title}\n\n");
        if !group.description.is_empty() {
            page += &format!("{}\n\n", group.description);
        }
        page += "| key | type | default | range | meaning |\n|---|---|---|---|---|\n";
        for key in group.keys {
            let absent = match &key.absent {
                Absent::Default(value) => format!("`{value}`"),
                Absent::Sentence(said) => said.clone(),
                Absent::Required => "**required**".to_owned(),
                Absent::Nothing => String::new(),
            };
            let cells = [format!("`{}`", key.name()), key.kind.clone(), absent, key.range(), key.meaning.clone()];
            let row = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " ")).join(" | ");
            assert!(!row.contains('\n'), "a row of a table is one line: {row}");
            page += &format!("| {row} |\n");
        }
        page.push('\n');
    }
    page.trim_end().to_owned()
}
