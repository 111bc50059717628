//! The user's file: YAML or JSON in, a checked spec and exact command lines out.
//!
//! Knows no file system, no clock and no network: text in, plain data out.

pub mod arguments;
mod check;
mod decode;
mod file;
mod nearest;
mod origin;
pub mod plan;
pub mod problem;
mod schema;
pub mod spec;
mod tree;
pub mod words;

pub use problem::{Problem, render};
pub use schema::schema;
pub use spec::Spec;

use origin::Origin;

/// Reads and checks a file, YAML or JSON.
///
/// `source_name` is what messages call the file. At most 1 MiB is read.
///
/// # Errors
///
/// Everything that is wrong and could be found in one pass, at most twenty.
pub fn parse(text: &str, source_name: &str) -> Result<Spec, Vec<Problem>> {
    parse_with_overrides(text, source_name, &[])
}

/// Reads a file, replaces values by `--set path=value`, and checks the result.
///
/// A value is read as YAML would read it behind `path:`; an empty one takes the
/// key away. Later overrides win.
///
/// # Errors
///
/// As [`parse`]; what is wrong with an overridden value names the override.
pub fn parse_with_overrides(
    text: &str,
    source_name: &str,
    overrides: &[(String, String)],
) -> Result<Spec, Vec<Problem>> {
    let mut tree = tree::read(text, source_name).map_err(|problem| vec![*problem])?;
    let problems = tree::apply(&mut tree, overrides);
    if !problems.is_empty() {
        return Err(problems);
    }
    check::check(Origin::new(source_name, overrides, tree))
}
