//! The day-one tour: what docs/tour.md says is what happens.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use stories::lab::Lab;
use stories::program::{built, run, target, workspace};

/// A block of commands and the output that the tour shows for it.
#[derive(Debug, Default)]
struct Step {
    line: usize,
    script: String,
    shown: Vec<String>,
}

/// The `sh` blocks of a document, each with the `text` block that follows it.
fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut block: Option<&str> = None;
    for (number, line) in document.lines().enumerate() {
        match (block, line) {
            (None, "```sh") => {
                steps.push(Step { line: number + 2, ..Step::default() });
                block = Some("sh");
            }
            (None, "```text") => block = Some("text"),
            (Some(_), "```") => block = None,
            (Some("sh"), line) => {
                let step = steps.last_mut().unwrap();
                step.script.push_str(line);
                step.script.push('\n');
            }
            (Some(_), line) => {
                // What comes before the first command is for the reader alone.
                if let Some(step) = steps.last_mut() {
                    step.shown.push(line.to_owned());
                }
            }
            (None, _) => {}
        }
    }
    steps
}

/// A line without what differs from run to run: job ids, numbers, the width of columns.
fn shape(line: &str) -> String {
    let id = |word: &str| {
        let word = word.strip_prefix('j')?;
        let fits = word.len() == 8 && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        fits.then_some(())
    };
    let mut shaped = String::new();
    let mut rest = line.trim();
    while let Some(first) = rest.chars().next() {
        let word: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
        if first.is_whitespace() {
            shaped.push(' ');
            rest = rest.trim_start();
        } else if word.is_empty() {
            shaped.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
            if id(&word).is_some() {
                shaped.push_str("JOB");
            } else if digits(&word) {
                // `1.50` is one number.
                shaped.truncate(shaped.strip_suffix("0.").map_or(shaped.len(), |head| head.len()));
                shaped.push('0');
            } else {
                shaped.push_str(&word);
            }
            rest = &rest[word.len()..];
        }
    }
    // `1 m 20 s` and `3 s` are both times.
    shaped.replace("0 m 0 s", "0 s")
}

/// Whether `line` is as `shown`, where `…` stands for anything.
fn alike(shown: &str, line: &str) -> bool {
    let (shown, line) = (shape(shown), shape(line));
    let mut parts = shown.split('…').map(str::trim);
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut last = "";
    let mut cut = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        (last, cut) = (part, true);
    }
    rest.is_empty() || (cut && (last.is_empty() || line.ends_with(last)))
}

fn follow(lab: &Lab, home: &Path, step: &Step) {
    let mut shell = Command::new("bash");
    let path = format!("{}:{}", target().display(), std::env::var("PATH").unwrap());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QCTL_") {
            shell.env_remove(name);
        }
    }
    shell
        .args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{}", step.script)])
        .env("PATH", path)
        .env("CHECKOUT", workspace())
        .env("QCTL_STATE_DIR", lab.state())
        .current_dir(home);
    let outcome = run(&mut shell, Duration::from_secs(120));
    let at = format!("docs/tour.md:{}", step.line);
    assert_eq!(outcome.code, 0, "{at}: {outcome}");
    let mut lines = outcome.stdout.lines();
    for shown in step.shown.iter().filter(|line| !line.trim().is_empty()) {
        let found = lines.any(|line| alike(shown, line));
        assert!(found, "{at}: the tour shows `{shown}`, and in its place comes\n{}", outcome.stdout);
    }
}

#[test]
fn the_tour_goes_as_it_is_told() {
    for name in ["qctl", "qctl-controller", "qctl-agent", "qctl-shim", "qctl-convert", "qctl-tokenize"] {
        let _ = built(name);
    }
    let lab = Lab::idle();
    let home = lab.root().join("tour");
    fs::create_dir(&home).unwrap();
    let document = fs::read_to_string(workspace().join("docs/tour.md")).unwrap();
    let steps = steps(&document);
    assert!(steps.len() > 10, "{} blocks of commands", steps.len());
    steps.iter().for_each(|step| follow(&lab, &home, step));
}

#[test]
fn a_shown_line_stands_for_its_like_and_no_other() {
    for (shown, line, same) in [
        ("greet: finished in 0.1 s", "greet: finished in 12 s", true),
        ("a (jm73pw42s) succeeded in 1.4 s", "a (jzzzzzzz1) succeeded in 1 m 20 s", true),
        ("a (jm73pw42s) succeeded in 1.4 s", "a (jzzzzzzz1) failed in 1.4 s", false),
        ("==> work worker_0@… <==", "==> work worker_0@node-2 <==", true),
        ("==> work worker_0@… <==", "==> work stdout@node-2 <==", false),
        ("train: iteration 2/20, …", "train: iteration 14/20, loss 1.5, 3 ms a step", true),
        ("ID  NAME", "ID         NAME", true),
        ("done", "done and more", false),
        ("job", "jobs", false),
    ] {
        assert_eq!(alike(shown, line), same, "{shown} | {line} | {} | {}", shape(shown), shape(line));
    }
}
