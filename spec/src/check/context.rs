//! Collects problems and warnings, and holds the checks of single values.

use std::collections::BTreeSet;
use std::fmt::Display;

use crate::decode::DecodeError;
use crate::origin::Origin;
use crate::problem::Problem;
use crate::tree::{Place, excerpt};

/// Longest path, as Linux has it.
const MAX_PATH: usize = 4096;

pub(super) struct Context<'a> {
    origin: &'a Origin,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    silent: BTreeSet<String>,
}

impl<'a> Context<'a> {
    pub(super) fn new(origin: &'a Origin) -> Self {
        Self { origin, problems: Vec::new(), warnings: Vec::new(), silent: BTreeSet::new() }
    }

    /// Takes over what could not be read at all.
    pub(super) fn decoded(&mut self, errors: Vec<(Place, DecodeError)>, refused: BTreeSet<String>) {
        for (place, error) in errors {
            let path = error.path();
            if !self.is_silent(&path) {
                let hint = error.hint().map(str::to_owned);
                self.problems.push(self.origin.problem_at(place, &path, error.message().to_owned(), hint));
            }
            self.silent.extend(error.meant());
        }
        self.silent.extend(refused);
    }

    pub(super) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.problems, self.warnings)
    }

    /// Notes a problem, the first on its path: what follows from it is not told.
    pub(super) fn refuse(&mut self, path: &str, message: impl Into<String>, hint: Option<String>) {
        if !self.is_silent(path) {
            self.problems.push(self.origin.problem(path, message.into(), hint));
            self.silence(path);
        }
    }

    pub(super) fn warn(&mut self, path: &str, message: impl Into<String>, hint: Option<String>) {
        self.warnings.push(self.origin.problem(path, message.into(), hint));
    }

    /// Says no more about a path and what is below it.
    pub(super) fn silence(&mut self, path: &str) {
        self.silent.insert(path.to_owned());
    }

    /// Whether a value on this path was refused already.
    pub(super) fn is_silent(&self, path: &str) -> bool {
        let mut end = path.len();
        loop {
            if self.silent.contains(&path[..end]) {
                return true;
            }
            match path[..end].rfind('.') {
                Some(dot) => end = dot,
                None => return false,
            }
        }
    }

    /// A value that must be there.
    pub(super) fn required<T>(&mut self, path: &str, value: Option<T>, hint: &str) -> Option<T> {
        if value.is_none() {
            self.refuse(path, "this key is missing", Some(hint.to_owned()));
        }
        value
    }

    /// A number within bounds.
    pub(super) fn number<T: PartialOrd + Display + Copy>(
        &mut self,
        path: &str,
        value: T,
        least: T,
        most: T,
    ) -> Option<T> {
        if value < least || value > most {
            let limits = if value < least { format!("at least {least}") } else { format!("at most {most}") };
            self.refuse(path, format!("{value} is out of range: {limits}"), None);
            return None;
        }
        Some(value)
    }

    /// `[a-z0-9][a-z0-9-]*` of at most `longest` characters.
    pub(super) fn identifier(&mut self, path: &str, name: &str, longest: usize) -> bool {
        let valid = name.len() <= longest
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !name.is_empty()
            && !name.starts_with('-');
        if !valid {
            let better: String = name
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
                .skip_while(|c| *c == '-')
                .take(longest)
                .collect();
            self.refuse(
                path,
                format!(
                    "`{}` is no valid name: lower-case letters, digits and hyphens, at most {longest}",
                    excerpt(name)
                ),
                (!better.is_empty()).then(|| format!("try `{better}`")),
            );
        }
        valid
    }

    /// A path of the file system; relative ones stay below the working directory.
    pub(super) fn path(&mut self, path: &str, value: String) -> Option<String> {
        let (message, hint) = if value.is_empty() {
            ("the path is empty".to_owned(), Some("name a file or a directory".to_owned()))
        } else if value.len() > MAX_PATH {
            (format!("the path has {} bytes; at most {MAX_PATH}", value.len()), Some("is it a path?".to_owned()))
        } else if value.chars().any(char::is_control) {
            ("the path holds a control character".to_owned(), Some("write the name without it".to_owned()))
        } else if value.starts_with('-') {
            (format!("`{value}` would be read as an option"), Some(format!("write `./{value}`")))
        } else if value.starts_with('~') {
            (
                format!("`{value}` is not expanded, since no shell looks at it"),
                Some("write the whole path, from `/`".to_owned()),
            )
        } else if leaves(&value) {
            (format!("`{value}` leaves the working directory"), Some("write an absolute path".to_owned()))
        } else {
            return Some(value);
        };
        self.refuse(path, message, hint);
        None
    }
}

/// Whether a relative path climbs above where it starts.
fn leaves(path: &str) -> bool {
    if path.starts_with('/') {
        return false;
    }
    let mut depth = 0_i64;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::leaves;

    #[test]
    fn relative_paths_stay_below_their_start() {
        for (path, want) in [
            ("a/../b", false),
            ("./a", false),
            ("..", true),
            ("a/../../b", true),
            ("/../etc", false),
            ("a//./..", false),
        ] {
            assert_eq!(leaves(path), want, "{path}");
        }
    }
}
