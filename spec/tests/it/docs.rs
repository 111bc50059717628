//! The pages of `docs/` say what the code says.

pub(crate) mod keys;
mod page;

use spec::arguments::corrections::CORRECTIONS;
use spec::arguments::msrun::MSRUN_CORRECTIONS;

use crate::examples::{self, Scenario};
use page::Page;

#[test]
fn the_reference_of_the_file_is_true() {
    let example = format!("```yaml\n{}\n```", Scenario::NoRecompute.text().trim_end());
    Page::read("spec.md").holds(&[("example", example), ("keys", keys::tables())]);
}

#[test]
fn complete_files_in_the_reference_are_accepted_without_a_warning() {
    let page = Page::read("spec.md");
    let blocks = page.blocks("yaml");
    assert!(blocks.len() > 1, "{} files", blocks.len());
    for block in blocks {
        let spec = spec::parse(block, "docs/spec.md").unwrap_or_else(|problems| panic!("{}", spec::render(&problems)));
        assert_eq!(spec.warnings, [], "{block}");
    }
}

#[test]
fn the_reference_of_corrections_is_true() {
    Page::read("corrections.md").holds(&[
        ("train", corrections()),
        ("msrun", msrun_corrections()),
        ("differences", differences()),
    ]);
}

fn corrections() -> String {
    let rows = CORRECTIONS.iter().map(|entry| row(&[&format!("`{}`", entry.id), entry.when, entry.reason]));
    format!("| id | when | what and why |\n|---|---|---|\n{}", rows.collect::<Vec<_>>().join("\n"))
}

fn msrun_corrections() -> String {
    let rows = MSRUN_CORRECTIONS.iter().map(|(id, reason)| row(&[&format!("`{id}`"), reason]));
    format!("| id | what and why |\n|---|---|\n{}", rows.collect::<Vec<_>>().join("\n"))
}

fn row(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |", cells.join(" | "))
}

/// What each example's training line has and lacks, compared with the tutorial's.
fn differences() -> String {
    let mut lines = vec!["| example | corrections | tutorial | qctl |".to_owned(), "|---|---|---|---|".to_owned()];
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    for scenario in Scenario::ALL {
        let (ids, changes) = examples::changes(scenario);
        let ids: Vec<String> = ids.into_iter().map(code).collect();
        let mut head = (code(scenario.file()), ids.join(", "));
        for change in changes {
            lines.push(row(&[&head.0, &head.1, &code(&change.before), &code(&change.after)]));
            head = Default::default();
        }
    }
    lines.join("\n")
}
