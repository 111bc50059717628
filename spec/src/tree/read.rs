//! YAML or JSON text to a tree, within fixed bounds.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Budget, Location, Options, Spanned};

use super::{Entry, Node, Place, Value, excerpt};
use crate::problem::Problem;

/// Largest file that is read, in bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// Deepest nesting of lists and mappings.
const MAX_DEPTH: usize = 32;

/// Most values in one file, aliases expanded.
const MAX_NODES: usize = 100_000;

/// Reads one document.
///
/// # Errors
///
/// The first thing that is no YAML, repeats a key, or leaves the bounds.
pub(crate) fn read(text: &str, source_name: &str) -> Result<Node, Box<Problem>> {
    let problem = |line, column, message: String, hint: Option<String>| {
        Box::new(Problem { source_name: source_name.to_owned(), line, column, path: String::new(), message, hint })
    };
    if text.len() > MAX_BYTES {
        return Err(problem(
            0,
            0,
            format!("the file has {} bytes; at most {MAX_BYTES} are read", text.len()),
            Some("is this the right file?".to_owned()),
        ));
    }
    if let Some((line, column, c)) = control_character(text) {
        return Err(problem(
            line,
            column,
            format!("the file holds the control character U+{:04X}", u32::from(c)),
            Some("remove it, or write it as an escape in double quotes where it belongs to a value".to_owned()),
        ));
    }
    let draft: Draft = serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        let location = error.location().unwrap_or(Location::UNKNOWN);
        let (message, hint) = explain(&error);
        let line = narrow(location.line());
        let hint = hint.unwrap_or_else(|| mend(text, line));
        problem(line, narrow(location.column()), message, Some(hint))
    })?;
    let mut nodes = 0;
    draft.settle(text, &mut nodes).map_err(|(place, message)| {
        let (line, column) = match place {
            Place::File { line, column } => (line, column),
            Place::Set(_) => (0, 0),
        };
        problem(line, column, message, None)
    })
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: budget(),
        strict_booleans: true,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::Reject,
        with_snippet: false,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES, max_replay_stack_depth: 16 },
    }
}

fn budget() -> Option<Budget> {
    serde_saphyr::budget! {
        max_reader_input_bytes: Some(MAX_BYTES),
        max_depth: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH,
        max_events: 4 * MAX_NODES,
        max_nodes: MAX_NODES,
        max_aliases: 1000,
        max_anchors: 1000,
        max_recorded_anchor_events: MAX_NODES,
        max_recorded_anchor_bytes: 4 * MAX_BYTES,
        max_documents: 2,
        max_total_scalar_bytes: 4 * MAX_BYTES,
        max_merge_keys: 100,
    }
}

/// The parser's error in this project's words.
fn explain(error: &serde_saphyr::Error) -> (String, Option<String>) {
    use serde_saphyr::Error as E;
    // The parser's list of errors is open; what is not named here speaks for itself.
    #[allow(clippy::wildcard_enum_match_arm)]
    match error {
        E::DuplicateMappingKey { key, .. } => (
            match key {
                Some(key) => format!("the key `{}` is given twice", excerpt(key)),
                None => "a key is given twice".to_owned(),
            },
            Some("keep one of them".to_owned()),
        ),
        E::MultipleDocuments { .. } => {
            ("there is more than one document".to_owned(), Some("remove the second `---` and what follows".to_owned()))
        }
        E::NonFiniteFloat { value, .. } => (format!("`{}` is no finite number", excerpt(value)), None),
        E::UnknownAnchor { .. } => (
            "an alias names no anchor before it".to_owned(),
            Some("quote the value if its `*` is meant as text".to_owned()),
        ),
        E::Budget { breach, .. } => (too_much(breach), Some("write the values out, shorter or flatter".to_owned())),
        E::AliasReplayLimitExceeded { .. }
        | E::AliasExpansionLimitExceeded { .. }
        | E::AliasReplayStackDepthExceeded { .. }
        | E::AliasReplayCounterOverflow { .. } => {
            ("aliases expand to more values than are read".to_owned(), Some("write the values out".to_owned()))
        }
        E::AliasError { error, .. } => explain(error),
        other => {
            let text = other.to_string();
            let first = text.lines().next().unwrap_or_default();
            // The place is told apart from the sentence.
            let sentence = first.rsplit_once(" at line ").map_or(first, |(sentence, _)| sentence);
            let short: String = sentence.chars().take(240).map(|c| if c.is_control() { ' ' } else { c }).collect();
            (format!("this is no valid YAML: {short}"), None)
        }
    }
}

/// What to look for where the parser gave up, in that line or one beside it.
fn mend(text: &str, line: u32) -> String {
    let at = usize::try_from(line).unwrap_or(usize::MAX);
    let near = text.lines().enumerate().skip(at.saturating_sub(2)).take(3);
    let indent = |line: &str| line.len() - line.trim_start().len();
    let tabbed = near.filter(|(_, line)| line[..indent(line)].contains('\t')).map(|(index, _)| index + 1).last();
    match tabbed {
        Some(number) => format!("YAML indents with spaces: line {number} begins with a tab"),
        None => "look at the indentation, the brackets and the quotes of this line and the one before".to_owned(),
    }
}

fn too_much(breach: &serde_saphyr::budget::BudgetBreach) -> String {
    use serde_saphyr::budget::BudgetBreach as B;
    #[allow(clippy::wildcard_enum_match_arm)]
    match breach {
        B::Depth { .. } => format!("values are nested deeper than {MAX_DEPTH} levels"),
        B::Aliases { .. } | B::Anchors { .. } | B::AliasAnchorRatio { .. } | B::MergeKeys { .. } => {
            "there are more anchors and aliases than are read".to_owned()
        }
        B::RecordedAnchorEvents { .. } | B::RecordedAnchorBytes { .. } => {
            "anchors hold more values than are read".to_owned()
        }
        _ => "there are more values than are read".to_owned(),
    }
}

fn control_character(text: &str) -> Option<(u32, u32, char)> {
    let (mut line, mut column) = (1_u32, 0_u32);
    for (index, c) in text.chars().enumerate() {
        column += 1;
        match c {
            '\n' => {
                line += 1;
                column = 0;
            }
            '\t' | '\r' => {}
            // A byte order mark is one of Windows editors' habits.
            '\u{feff}' if index == 0 => {}
            c if c.is_control() => return Some((line, column, c)),
            _ => {}
        }
    }
    None
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A node as the parser hands it over, before spelling and bounds are looked at.
struct Draft {
    referenced: Location,
    defined: Location,
    value: Loose,
}

enum Loose {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Draft>),
    Map(Vec<(Spanned<String>, Draft)>),
}

impl Draft {
    fn settle(self, text: &str, nodes: &mut usize) -> Result<Node, (Place, String)> {
        let place = place(&self.referenced);
        *nodes += 1;
        if *nodes > MAX_NODES {
            return Err((place, format!("the file holds more than {MAX_NODES} values")));
        }
        let spelled = || spelling(text, &self.defined);
        let value = match self.value {
            Loose::Null => Value::Null,
            Loose::Bool(value) => Value::Bool(value),
            Loose::Int(value) => Value::Int { value, spelled: spelled().unwrap_or_else(|| value.to_string()) },
            Loose::Float(value) => Value::Float { value, spelled: spelled().unwrap_or_else(|| value.to_string()) },
            Loose::Text(value) => {
                if let Some(c) = value.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
                    return Err((place, format!("a value holds the control character U+{:04X}", u32::from(c))));
                }
                Value::Text(value)
            }
            Loose::List(items) => {
                Value::List(items.into_iter().map(|item| item.settle(text, nodes)).collect::<Result<_, _>>()?)
            }
            Loose::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, draft)| {
                        let place = self::place(&key.referenced);
                        if key.value.chars().any(char::is_control) {
                            return Err((place, "a key holds a control character".to_owned()));
                        }
                        Ok(Entry { place, key: key.value, node: draft.settle(text, nodes)? })
                    })
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(Node { place, value })
    }
}

fn place(location: &Location) -> Place {
    Place::File { line: narrow(location.line()), column: narrow(location.column()) }
}

/// The characters of a plain scalar, as the file has them.
fn spelling(text: &str, location: &Location) -> Option<String> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let length = usize::try_from(span.byte_len()?).ok()?;
    let slice = text.get(start..start.checked_add(length)?)?.trim();
    let plain = !slice.is_empty() && slice.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b));
    plain.then(|| slice.to_owned())
}

impl<'de> Deserialize<'de> for Draft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Loose>::deserialize(deserializer)?;
        Ok(Self { referenced: spanned.referenced, defined: spanned.defined, value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Loose, E> {
        Ok(Loose::Null)
    }

    fn visit_none<E>(self) -> Result<Loose, E> {
        Ok(Loose::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Loose, E> {
        Ok(Loose::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Loose, E> {
        Ok(Loose::Int(i128::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Loose, E> {
        Ok(Loose::Int(i128::from(value)))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Loose, E> {
        Ok(Loose::Int(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Loose, E> {
        i128::try_from(value).map(Loose::Int).map_err(|_| E::custom(format_args!("the number {value} is too large")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Loose, E> {
        Ok(Loose::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Loose, E> {
        Ok(Loose::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Loose, E> {
        Ok(Loose::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Loose, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Draft>()? {
            items.push(item);
        }
        Ok(Loose::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Loose, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry::<Spanned<String>, Draft>()? {
            entries.push(entry);
        }
        Ok(Loose::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".to_owned(),
            Value::Bool(b) => format!("bool {b}"),
            Value::Int { value, spelled } => format!("int {value} as {spelled}"),
            Value::Float { value, spelled } => format!("float {value} as {spelled}"),
            Value::Text(text) => format!("text {text}"),
            Value::List(items) => format!("[{}]", items.iter().map(shape).collect::<Vec<_>>().join(", ")),
            Value::Map(entries) => {
                let list: Vec<String> = entries.iter().map(|e| format!("{}: {}", e.key, shape(&e.node))).collect();
                format!("{{{}}}", list.join(", "))
            }
        }
    }

    #[test]
    fn scalars_keep_their_spelling() {
        let cases = [
            ("1.25e-6", "float 0.00000125 as 1.25e-6"),
            ("1e-5", "float 0.00001 as 1e-5"),
            ("3.10", "float 3.1 as 3.10"),
            ("42", "int 42 as 42"),
            ("-7", "int -7 as -7"),
            ("\"42\"", "text 42"),
            ("'3.10'", "text 3.10"),
            ("true", "bool true"),
            ("yes", "text yes"),
            ("~", "null"),
            ("2.7.1", "text 2.7.1"),
            ("[1, two, {a: 3.5}]", "[int 1 as 1, text two, {a: float 3.5 as 3.5}]"),
            ("{\"a\": [1, 2.50], \"b\": null}", "{a: [int 1 as 1, float 2.5 as 2.50], b: null}"),
            ("a: &x 1.50\nb: *x", "{a: float 1.5 as 1.50, b: float 1.5 as 1.50}"),
        ];
        for (text, want) in cases {
            assert_eq!(shape(&read(text, "t").unwrap()), want, "{text}");
        }
    }

    #[test]
    fn nodes_know_their_lines() {
        let node = read("name: a\n\nstages:\n  train:\n    lr: 1\n    args: [x,\n      y]\n", "t").unwrap();
        for (path, line) in [("name", 1), ("stages", 3), ("stages.train.lr", 5), ("stages.train.args.1", 7)] {
            assert!(matches!(node.place_of(path), Place::File { line: l, .. } if l == line), "{path}");
        }
        assert_eq!(node.place_of("stages.train.missing"), node.place_of("stages.train"));
    }

    #[test]
    fn what_leaves_the_bounds_is_refused() {
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        let bomb = {
            let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
            for i in 1..9 {
                let previous = format!("*a{}", i - 1);
                text += &format!("a{i}: &a{i} [{}]\n", vec![previous; 9].join(", "));
            }
            text
        };
        let cases = [
            ("a: 1\nb: 2\na: 3\n".to_owned(), 3, "the key `a` is given twice"),
            (deep, 1, "this is no valid YAML"),
            (bomb, 0, "than are read"),
            ("a: 1\n---\nb: 2\n".to_owned(), 0, "there is more than one document"),
            (format!("a: {}", "x".repeat(MAX_BYTES)), 0, "at most 1048576 are read"),
            ("a: x\u{7}y".to_owned(), 1, "control character U+0007"),
            ("a: \"x\\u0000y\"".to_owned(), 1, "control character U+0000"),
            ("a: .inf".to_owned(), 1, "`.inf` is no finite number"),
            ("a: *nobody".to_owned(), 1, "an alias names no anchor before it"),
            ("a: [1, 2".to_owned(), 0, "this is no valid YAML"),
            ("a: 99999999999999999999999999999999999999999999".to_owned(), 0, ""),
        ];
        for (text, line, message) in cases {
            let short: String = text.chars().take(40).collect();
            let problem = match read(&text, "t") {
                Err(problem) => problem,
                // Numbers beyond 128 bits are floats; no field takes such a one.
                Ok(node) if message.is_empty() => {
                    assert!(shape(&node).contains("float"), "{short}");
                    continue;
                }
                Ok(_) => panic!("accepted: {short}"),
            };
            assert!(problem.message.contains(message), "{short}: {problem}");
            assert!(line == 0 || problem.line == line, "{short}: {problem}");
        }
    }
}
