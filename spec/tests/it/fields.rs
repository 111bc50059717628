//! Every field with every kind of bad value, and files made to mislead.

use crate::docs::keys::{Key, groups};
use crate::support::{TUTORIAL, parse_with};

/// A file in which every key can be set.
fn base() -> String {
    TUTORIAL.replace("recompute: none", "recompute: { granularity: full }") + "  own: { run: { argv: [echo] } }\n"
}

fn keys() -> impl Iterator<Item = (String, Key)> {
    let all = groups().into_iter().flat_map(|group| group.keys);
    all.filter(|key| !key.path.starts_with("model.download")).map(|key| (key.path.replace("NAME", "own"), key))
}

/// What is wrong with the answer to one value of one field.
fn fault(path: &str, value: &str, must_refuse: bool) -> Option<String> {
    let problems = match parse_with(&base(), &[(path, value)]) {
        Ok(_) if must_refuse => return Some("accepted".to_owned()),
        Ok(_) => return None,
        Err(problems) => problems,
    };
    let said = spec::render(&problems);
    // A value that is no YAML has no path yet; its word on the command line is named then.
    let of_it = |named: &str| named.starts_with(path) || path.starts_with(named);
    if problems.len() > 20 || said.contains("could not be checked") {
        Some(said)
    } else if said.chars().any(|c| c.is_control() && c != '\n') {
        Some(format!("a control character: {said:?}"))
    } else if said.len() > 20_000 {
        Some(format!("{} bytes of words", said.len()))
    } else if must_refuse && !problems.iter().any(|problem| of_it(&problem.path) || problem.message.contains(path)) {
        Some(format!("another key is named: {said}"))
    } else {
        None
    }
}

#[test]
fn every_field_refuses_what_it_cannot_be() {
    let long = format!("\"{}\"", "x".repeat(100_000));
    let mut wrong = Vec::new();
    let mut tried = 0;
    for (path, key) in keys() {
        let (number, text) = (key.is("integer") || key.is("number"), key.is("string"));
        let (list, mapping) = (key.is("array"), key.is("object"));
        let table = [
            // Another type than any of the key's.
            ("{ zzz: 1 }", !mapping || key.path == "stages"),
            ("[[1]]", !list),
            ("{ zzz: { zzz: [1] } }", true),
            ("7", !number && !text),
            ("ten", !text && !list),
            // No number of any range.
            ("-99999999999999999999", number && !text),
            ("99999999999999999999999999999999999999999", number && !text),
            (".nan", true),
            (".inf", true),
            ("1e400", number && !text),
            // Texts that go nowhere, or to somebody's terminal.
            ("\"\\u001b[2J\"", true),
            ("\"a\\0b\"", true),
            (&long, false),
            ("\"\"", number && !text),
            ("&a [*a]", true),
            ("*a", true),
            ("!!binary aGk=", false),
            ("[", true),
        ];
        for (value, must_refuse) in table {
            // Text of one's own is what these hold.
            let free = key.path.ends_with(".env");
            tried += 1;
            let short: String = value.chars().take(40).collect();
            wrong.extend(fault(&path, value, must_refuse && !free).map(|fault| format!("{path}={short}: {fault}")));
        }
    }
    assert!(tried > 1000, "{tried} values");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_path_stays_inside_or_says_where_it_goes() {
    let paths = [
        "model.hf_dir",
        "dataset.files.0",
        "stages.convert.save_dir",
        "stages.preprocess.output_prefix",
        "stages.train.save_dir",
        "stages.train.load_dir",
    ];
    let table = [
        ("../../etc", "leaves the working directory"),
        ("./a/../../b", "leaves the working directory"),
        ("a/../../../b", "leaves the working directory"),
        ("..", "leaves the working directory"),
        ("\"~/x\"", "is not expanded"),
        ("\"~root/x\"", "is not expanded"),
        ("\"\"", "is empty"),
        ("\"a\\nb\"", "control character"),
        ("\"a\\u001b[2Jb\"", "control character"),
        ("\"a\\u0000b\"", "control character"),
        ("-x", "would be read as an option"),
    ];
    let mut wrong = Vec::new();
    for path in paths {
        for (value, says) in table {
            let said = parse_with(&base(), &[(path, value)]).err().map(|problems| spec::render(&problems));
            if !said.as_ref().is_some_and(|said| said.contains(says)) {
                wrong.push(format!("{path}={value} lacks `{says}`: {said:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_made_to_mislead_are_refused_with_line_sentence_and_next_step() {
    let own = "name: x\nstages:\n  a: { run: { argv: [x] } }\n";
    let billion = {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let inner = vec![format!("*a{}", level - 1); 10].join(", ");
            text += &format!("a{level}: &a{level} [{inner}]\n");
        }
        text + own
    };
    let quadratic = format!("a: &a \"{}\"\nb: [{}]\n{own}", "x".repeat(300_000), vec!["*a"; 900].join(", "));
    let table: Vec<(&str, String, u32, &str)> = vec![
        ("a tab", own.replace("  a:", "\ta:"), 3, "line 3 begins with a tab"),
        ("a tab further in", TUTORIAL.replace("    script:", "\t\tscript:"), 0, "begins with a tab"),
        ("a billion laughs", billion, 0, "than are read"),
        ("long texts many times", quadratic, 0, "than are read"),
        ("an anchor in itself", format!("a: &a [*a]\n{own}"), 1, ""),
        ("an alias of nothing", own.replace("[x]", "[*x]"), 3, "an alias names no anchor"),
        ("a key twice", own.replace("name: x", "name: x\nname: y"), 2, "is given twice"),
        ("a stage twice", format!("{own}  a: {{ run: {{ argv: [y] }} }}\n"), 4, "is given twice"),
        ("two documents", format!("{own}---\n{own}"), 0, "more than one document"),
        ("an end in the middle", format!("{own}...\n{own}"), 0, ""),
        ("a bell", own.replace("[x]", "[x\u{7}]"), 3, "U+0007"),
        ("an escape", own.replace("[x]", "[\"\\e[2J\"]"), 3, "U+001B"),
        ("a NUL", own.replace("[x]", "[x\0]"), 3, "U+0000"),
        ("a C1 control", own.replace("[x]", "[x\u{9b}]"), 3, "U+009B"),
        ("too deep", own.replace("[x]", &format!("{}x{}", "[".repeat(5000), "]".repeat(5000))), 3, "YAML"),
        ("deep by indentation", (0..200).map(|i| format!("{}a:\n", " ".repeat(i))).collect(), 0, ""),
        ("an open bracket", own.replace("[x] }", "[x"), 0, "is no valid YAML"),
        ("an open quote", own.replace("[x]", "[\"x]"), 0, "is no valid YAML"),
        ("a million keys", (0..90_000).map(|i| format!("k{i}: 1\n")).collect(), 0, ""),
        ("more than a megabyte", format!("# {}\n{own}", "x".repeat(1 << 20)), 0, "at most 1048576"),
        ("an object of Python's", own.replace("[x]", "!!python/object/apply:os.system [id]"), 0, ""),
        ("a number for a key", format!("1: 2\n{own}"), 1, "unknown key `1`"),
        ("a list for a key", format!("? [a, b]\n: 2\n{own}"), 1, ""),
        ("nothing", String::new(), 1, "the file is empty"),
        ("a comment", "# nothing\n".to_owned(), 0, "the file is empty"),
        ("HTML", "<!DOCTYPE html><html><body>404</body></html>\n".to_owned(), 0, ""),
        ("a word", "hello\n".to_owned(), 1, "expected a mapping"),
        ("UTF-16 read as text", "\u{fffd}\u{fffd}n\0a\0m\0e\0".to_owned(), 1, "U+0000"),
    ];
    let mut wrong = Vec::new();
    for (what, text, line, says) in table {
        let Err(problems) = spec::parse(&text, "job.yaml") else {
            // The parser passes over tags and what follows an end; neither does more than a plain value would.
            if !says.is_empty() || line != 0 {
                wrong.push(format!("{what}: accepted"));
            }
            continue;
        };
        let said = spec::render(&problems);
        let first = &problems[0];
        let stranger = first.hint.is_some() || !first.path.is_empty() || first.message.contains("control character");
        if !said.contains(says) || line != 0 && first.line != line || !stranger || said.len() > 20_000 {
            let said: String = said.chars().take(600).collect();
            wrong.push(format!("{what}, line {line}, `{says}`: {said}"));
        }
        if said.chars().any(|c| c.is_control() && c != '\n') {
            wrong.push(format!("{what}: a control character"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
