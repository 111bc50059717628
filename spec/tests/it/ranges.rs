//! Ranges and defaults of the schema are those of the checks.

use spec::{Problem, Spec};

use crate::docs::keys::{Absent, Key, groups};
use crate::support::{Set, TUTORIAL, parse_with};

/// A file in which every key can be set.
fn base() -> String {
    TUTORIAL.replace("recompute: none", "recompute: { granularity: full }") + "  own: { run: { argv: [echo] } }\n"
}

fn set(overrides: &[Set<'_>]) -> Result<Spec, Vec<Problem>> {
    parse_with(&base(), overrides)
}

/// All keys that can be set, under a path that exists in [`base`].
fn keys() -> Vec<(String, Key)> {
    let all = groups().into_iter().flat_map(|group| group.keys);
    let settable = all.filter(|key| !key.path.starts_with("model.download"));
    settable.map(|key| (key.path.replace("NAME", "own"), key)).collect()
}

/// What the file means, without where it was written.
fn meaning(spec: &Spec) -> String {
    format!(
        "{:?}",
        (
            (&spec.name, &spec.workdir, &spec.parallel, &spec.hf_dir, &spec.dataset),
            (&spec.runtime, &spec.storage, &spec.priority, &spec.stages)
        )
    )
}

#[test]
fn each_default_means_what_the_absent_key_means() {
    let mut compared = 0;
    for (path, key) in keys() {
        let Absent::Default(value) = &key.absent else { continue };
        let said = |overrides: &[Set<'_>]| {
            meaning(&set(overrides).unwrap_or_else(|problems| panic!("{path}: {}", spec::render(&problems))))
        };
        assert_eq!(said(&[(&path, "")]), said(&[(&path, value)]), "{path}");
        compared += 1;
    }
    assert!(compared > 40, "{compared} defaults");
}

#[test]
fn each_required_key_is_missed() {
    let mut missed = 0;
    for (path, key) in keys() {
        let required = match &key.absent {
            Absent::Required => true,
            Absent::Sentence(said) => said.starts_with("required "),
            Absent::Default(_) | Absent::Nothing => false,
        };
        if required {
            let problems = set(&[(&path, "")]).unwrap_err();
            assert!(problems.iter().any(|problem| problem.path == path), "{path}: {}", spec::render(&problems));
            missed += 1;
        } else {
            // Taking away what is not required is never called missing.
            let problems = set(&[(&path, "")]).err().unwrap_or_default();
            assert!(problems.iter().all(|problem| problem.path != path), "{path}: {}", spec::render(&problems));
        }
    }
    assert!(missed > 8, "{missed} required keys");
}

#[test]
fn each_number_and_choice_has_a_range_and_something_where_it_is_absent() {
    for (path, key) in keys() {
        if key.is("integer") || key.is("number") && !key.is("string") {
            assert!(!key.range().is_empty(), "{path} has no range");
        }
        let simple = !key.is("string") && !key.is("object") && !key.is("array");
        assert!(!simple || key.absent != Absent::Nothing, "{path}: nothing is said of its absence");
    }
}

#[test]
fn each_range_is_the_checks_range() {
    let mut probed = 0;
    for (path, key) in keys() {
        for (value, fits) in probes(&key) {
            let refusal = set(&[(&path, &value)])
                .err()
                .unwrap_or_default()
                .into_iter()
                .find(|problem| problem.path == path && is_about_size(&problem.message));
            let short: String = value.chars().take(40).collect();
            assert_eq!(refusal.is_none(), fits, "{path}={short}: {refusal:?}");
            probed += 1;
        }
    }
    assert!(probed > 100, "{probed} probes");
}

/// Values at both ends of a key's range and just beyond them.
fn probes(key: &Key) -> Vec<(String, bool)> {
    let ends = |least: &str, most: &str| (key.limit(least), key.limit(most));
    let mut probes = Vec::new();
    let number = |value: f64| value.to_string();
    if let (_, Some(most)) = ends("minimum", "maximum") {
        probes.extend([(number(most), true), (number(most + 1.0), false)]);
    }
    if let Some(least) = key.limit("minimum") {
        probes.extend([(number(least), true), (number(least - 1.0), false)]);
    }
    if let Some(above) = key.limit("exclusiveMinimum") {
        probes.extend([(number(above), false), (number(above + 1.0), true)]);
    }
    for (least, most, make) in [
        ("minItems", "maxItems", if key.lists("integer") { numbers } else { list as fn(usize) -> String }),
        ("minProperties", "maxProperties", variables),
        ("minLength", "maxLength", name),
    ] {
        let (least, most) = ends(least, most);
        // The number of stages is probed apart: each needs keys of its own.
        if key.path == "stages" {
            continue;
        }
        if let Some(most) = most {
            probes.extend([(make(count(most)), true), (make(count(most) + 1), false)]);
        }
        if let Some(least) = least {
            probes.extend([(make(count(least)), true), (make(count(least) - 1), false)]);
        }
    }
    probes
}

fn count(limit: f64) -> usize {
    limit.to_string().parse().unwrap()
}

fn list(entries: usize) -> String {
    let entries: Vec<String> = (0..entries).map(|index| format!("a{index}")).collect();
    format!("[{}]", entries.join(", "))
}

fn numbers(entries: usize) -> String {
    let entries: Vec<String> = (1..=entries).map(|number| number.to_string()).collect();
    format!("[{}]", entries.join(", "))
}

fn variables(entries: usize) -> String {
    let entries: Vec<String> = (0..entries).map(|index| format!("A{index}: 1")).collect();
    format!("{{{}}}", entries.join(", "))
}

fn name(length: usize) -> String {
    format!("\"{}\"", "a".repeat(length))
}

/// Whether a message is about a value's size, not about what else it contradicts.
fn is_about_size(message: &str) -> bool {
    ["out of range", "at most", "between", "expected", "no learning rate", "no program"]
        .iter()
        .any(|words| message.contains(words))
}

#[test]
fn a_file_has_at_most_as_many_stages_as_the_schema_says() {
    let groups = groups();
    let stages = groups[0].keys.iter().find(|key| key.path == "stages").unwrap();
    let most = count(stages.limit("maxProperties").unwrap());
    let file = |count: usize| {
        let stages = (0..count).map(|index| format!("  s{index}: {{ run: {{ argv: [x] }} }}\n"));
        format!("name: x\nstages:\n{}", stages.collect::<String>())
    };
    assert!(parse_with(&file(most), &[]).is_ok());
    assert!(spec::render(&parse_with(&file(most + 1), &[]).unwrap_err()).contains("at most 64"));
}
