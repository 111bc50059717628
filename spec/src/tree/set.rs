//! `--set a.b.c=value`: changes to a file made on the command line.

use super::{Entry, Node, Place, Value, excerpt, read};
use crate::problem::Problem;

/// Most segments of an override's path.
const MAX_SEGMENTS: usize = 16;

/// Puts overrides into a tree, in order.
///
/// A value is read as YAML would read it after `key:`. Mappings that are not
/// there yet are made; a number addresses an entry of an existing list; an empty
/// value takes a key away.
pub(crate) fn apply(tree: &mut Node, overrides: &[(String, String)]) -> Vec<Problem> {
    overrides.iter().enumerate().filter_map(|(index, (path, value))| one(tree, index, path, value).err()).collect()
}

/// How an override is named in messages.
pub(crate) fn label(path: &str, value: &str) -> String {
    format!("--set {}={}", excerpt(path), excerpt(value))
}

fn one(tree: &mut Node, index: usize, path: &str, value: &str) -> Result<(), Problem> {
    let problem = |message: String, hint: Option<&str>| Problem {
        source_name: label(path, value),
        line: 0,
        column: 0,
        path: String::new(),
        message,
        hint: hint.map(str::to_owned),
    };
    let segments: Vec<&str> = path.split('.').collect();
    if path.is_empty() || segments.iter().any(|s| s.is_empty() || s.chars().any(char::is_control)) {
        return Err(problem(
            "the path is no list of keys joined by dots".to_owned(),
            Some("as in --set stages.train.lr=1e-5"),
        ));
    }
    if segments.len() > MAX_SEGMENTS {
        return Err(problem(format!("the path has more than {MAX_SEGMENTS} keys"), None));
    }
    if value.trim().is_empty() {
        tree.remove(&segments.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        return Ok(());
    }
    let mut new =
        read(value, "value").map_err(|inner| problem(inner.message, Some("quote a value that is meant as text")))?;
    mark(&mut new, index);

    let mut node = tree;
    for (depth, segment) in segments.iter().enumerate() {
        if node.value == Value::Null {
            node.value = Value::Map(Vec::new());
        }
        let found = node.describe();
        node = match &mut node.value {
            Value::Map(entries) => {
                let at = match entries.iter().position(|e| e.key == *segment) {
                    Some(at) => at,
                    None => {
                        entries.push(Entry {
                            key: (*segment).to_owned(),
                            place: Place::Set(index),
                            node: Node { place: Place::Set(index), value: Value::Null },
                        });
                        entries.len() - 1
                    }
                };
                if depth + 1 == segments.len() {
                    entries[at].place = Place::Set(index);
                }
                &mut entries[at].node
            }
            Value::List(items) => {
                let length = items.len();
                match segment.parse::<usize>().ok().and_then(|at| items.get_mut(at)) {
                    Some(item) => item,
                    None => {
                        return Err(problem(
                            format!(
                                "`{}` is a list of {length}; `{segment}` is no position in it",
                                segments[..depth].join(".")
                            ),
                            Some("count from 0, or set the whole list: --set key='[a, b]'"),
                        ));
                    }
                }
            }
            Value::Bool(_) | Value::Int { .. } | Value::Float { .. } | Value::Text(_) | Value::Null => {
                return Err(problem(
                    format!("`{}` is {found}, which has no `{segment}` in it", segments[..depth].join(".")),
                    None,
                ));
            }
        };
    }
    *node = new;
    Ok(())
}

fn mark(node: &mut Node, index: usize) {
    node.place = Place::Set(index);
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| mark(item, index)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| {
            entry.place = Place::Set(index);
            mark(&mut entry.node, index);
        }),
        Value::Null | Value::Bool(_) | Value::Int { .. } | Value::Float { .. } | Value::Text(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, path: &str, value: &str) -> Result<Node, Problem> {
        let mut tree = read(text, "t").map_err(|problem| *problem)?;
        match apply(&mut tree, &[(path.to_owned(), value.to_owned())]).pop() {
            Some(problem) => Err(problem),
            None => Ok(tree),
        }
    }

    #[test]
    fn overrides_replace_create_and_index() {
        let tree = set("a: {b: 1}", "a.b", "2.50").unwrap();
        assert_eq!(tree.at(["a", "b"]).unwrap().value, Value::Float { value: 2.5, spelled: "2.50".into() });
        assert_eq!(tree.place_of("a.b"), Place::Set(0));
        assert!(matches!(tree.place_of("a"), Place::File { line: 1, .. }));
        let tree = set("a: 1", "x.y.z", "text").unwrap();
        assert_eq!(tree.at(["x", "y", "z"]).unwrap().value, Value::Text("text".into()));
        let tree = set("a: [p, q]", "a.1", "r").unwrap();
        assert_eq!(tree.at(["a", "1"]).unwrap().value, Value::Text("r".into()));
        let tree = set("a: 1", "a", "").unwrap();
        assert_eq!(tree.at(["a"]), None);
        let tree = set("a: 1", "a", "[--x, 3]").unwrap();
        assert!(matches!(&tree.at(["a"]).unwrap().value, Value::List(items) if items.len() == 2));
    }

    #[test]
    fn bad_overrides_name_themselves() {
        for (path, value, message) in [
            ("", "1", "the path is no list of keys"),
            ("a..b", "1", "the path is no list of keys"),
            ("a.b", "1", "`a` is the number `1`, which has no `b` in it"),
            ("l.5", "1", "`l` is a list of 1; `5` is no position in it"),
            ("b", "[1, 2", "this is no valid YAML"),
            (&"k.".repeat(20), "1", "the path is no list"),
            (&vec!["k"; 20].join("."), "1", "more than 16 keys"),
        ] {
            let problem = set("a: 1\nl: [x]", path, value).unwrap_err();
            assert!(problem.message.contains(message), "{problem}");
            assert!(problem.to_string().starts_with("--set "), "{problem}");
        }
    }
}
