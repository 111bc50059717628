//! Scripts of inputs with everything that comes of them, kept as text.
//!
//! A script is the lines that start with `> ` in `golden/*.txt`; the rest is
//! what the planner answered. `BLESS=1` writes the answers anew.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "the bans are for the planner, not for what drives it"
)]

mod common;
mod script;

#[test]
fn scripts_play_as_recorded() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "the scripts are missing: {paths:?}");
    let mut wrong = Vec::new();
    for path in paths {
        let kept = std::fs::read_to_string(&path).unwrap();
        let played = script::play(&kept);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &played).unwrap();
        } else if played != kept {
            let line = kept.lines().zip(played.lines()).position(|(a, b)| a != b).unwrap_or(0);
            wrong.push(format!(
                "{}: line {}: kept `{}`, played `{}`",
                path.display(),
                line + 1,
                kept.lines().nth(line).unwrap_or(""),
                played.lines().nth(line).unwrap_or("")
            ));
        }
    }
    assert!(wrong.is_empty(), "BLESS=1 takes these over:\n{}", wrong.join("\n"));
}
