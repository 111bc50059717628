//! What is wrong with a file, where, and what to try next.

use std::fmt;

/// One thing that is wrong (or, as a warning, doubtful) in a user's file.
///
/// `Display` gives `pipeline.yaml:12: stages.train.seq_length: …` and, where
/// there is one, the hint on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// Name of the file, or `--set path=value` for an override.
    pub source_name: String,
    /// 1-based line; 0 where the file has no line for it.
    pub line: u32,
    /// 1-based column in characters; 0 where the file has none for it.
    pub column: u32,
    /// Dotted path of the value, such as `stages.train.seq_length`; may be empty.
    pub path: String,
    /// What is wrong: lowercase, no full stop.
    pub message: String,
    /// The next thing to try.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source_name)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Writes problems one after the other, as a terminal shows them.
#[must_use]
pub fn render(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_file_line_path_reason_and_hint() {
        let problem = Problem {
            source_name: "pipeline.yaml".into(),
            line: 12,
            column: 5,
            path: "stages.train.seq_length".into(),
            message: "must be at least 1".into(),
            hint: Some("the tutorial uses 10240".into()),
        };
        assert_eq!(
            problem.to_string(),
            "pipeline.yaml:12: stages.train.seq_length: must be at least 1\n  hint: the tutorial uses 10240"
        );
        let bare = Problem { line: 0, path: String::new(), hint: None, ..problem };
        assert_eq!(bare.to_string(), "pipeline.yaml: must be at least 1");
    }
}
