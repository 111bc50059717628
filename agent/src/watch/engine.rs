//! The JSON lines that an engine prints.

use proto::v1::{EngineProgress, FileRecord, Output};
use serde::Deserialize;

/// Longest list of files that is taken from an engine.
const MOST_FILES: usize = 4096;

/// One line of an engine's stdout.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// How far it is.
    Progress(EngineProgress),
    /// Something looks wrong.
    Warning(String),
    /// What it made.
    Result(Output),
    /// Why it gave up.
    Error {
        /// One sentence.
        message: String,
        /// The next thing to try; may be empty.
        hint: String,
    },
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Raw {
    Progress {
        #[serde(default)]
        done: u64,
        #[serde(default)]
        total: u64,
        #[serde(default)]
        unit: String,
        #[serde(default)]
        tokens: u64,
        rows_per_s: Option<f64>,
        tokens_per_s: Option<f64>,
        bytes_per_s: Option<f64>,
    },
    Warning {
        message: String,
    },
    Result {
        #[serde(default)]
        path: String,
        #[serde(default)]
        files: Vec<RawFile>,
        #[serde(default)]
        summary: Option<String>,
        rows: Option<u64>,
        tokens: Option<u64>,
    },
    Error {
        message: String,
        #[serde(default)]
        hint: Option<String>,
    },
}

#[derive(Deserialize)]
struct RawFile {
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    digest: String,
}

/// Reads one line; `None` if it is none of an engine's.
#[must_use]
pub fn parse(line: &str) -> Option<Line> {
    let raw: Raw = serde_json::from_str(line.trim()).ok()?;
    Some(match raw {
        Raw::Progress { done, total, unit, tokens, rows_per_s, tokens_per_s, bytes_per_s } => {
            let speed = |speed: Option<f64>| speed.unwrap_or(0.0).max(0.0);
            // Where bytes are not the work itself, they are those of its text.
            let (per_second, text_bytes_per_second) = match unit.as_str() {
                "bytes" => (speed(bytes_per_s), 0.0),
                _ => (speed(rows_per_s), speed(bytes_per_s)),
            };
            Line::Progress(EngineProgress {
                done,
                total,
                unit: super::evidence::clean(&unit),
                tokens,
                per_second,
                tokens_per_second: speed(tokens_per_s),
                text_bytes_per_second,
                seconds_left: None,
            })
        }
        Raw::Warning { message } => Line::Warning(super::evidence::clean(&message)),
        Raw::Result { path, files, summary, rows, tokens } => {
            let file = |f: RawFile| FileRecord { path: f.path, size: f.size, digest: f.digest };
            let files: Vec<FileRecord> = files.into_iter().take(MOST_FILES).map(file).collect();
            let summary = summary.unwrap_or_else(|| summarise(&files, rows, tokens));
            Line::Result(Output { path, files, summary: super::evidence::clean(&summary) })
        }
        Raw::Error { message, hint } => Line::Error {
            message: super::evidence::clean(&message),
            hint: super::evidence::clean(&hint.unwrap_or_default()),
        },
    })
}

fn summarise(files: &[FileRecord], rows: Option<u64>, tokens: Option<u64>) -> String {
    let mut parts = Vec::new();
    parts.extend(rows.map(|n| format!("{n} rows")));
    parts.extend(tokens.map(|n| format!("{n} tokens")));
    let bytes = files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
    parts.push(format!("{bytes} bytes in {} files", files.len()));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_four_kinds_are_read_and_others_are_none() {
        let progress = parse(r#"{"type":"progress","done":5,"total":10,"unit":"bytes"}"#);
        let known = EngineProgress { done: 5, total: 10, unit: "bytes".to_owned(), ..EngineProgress::default() };
        assert_eq!(progress, Some(Line::Progress(known.clone())));
        let fast = parse(r#"{"type":"progress","done":5,"total":10,"unit":"bytes","bytes_per_s":2.5}"#);
        assert_eq!(fast, Some(Line::Progress(EngineProgress { per_second: 2.5, ..known.clone() })));
        let rows = r#"{"type":"progress","done":5,"total":10,"unit":"rows","rows_per_s":3,"tokens_per_s":-1,"bytes_per_s":9,"seconds_left":null}"#;
        let unit = "rows".to_owned();
        let rates = EngineProgress { unit, per_second: 3.0, text_bytes_per_second: 9.0, ..known };
        assert_eq!(parse(rows), Some(Line::Progress(rates)));
        assert_eq!(parse(r#"{"type":"warning","message":"w"}"#), Some(Line::Warning("w".into())));
        let error = Line::Error { message: "m".into(), hint: String::new() };
        assert_eq!(parse(r#"{"type":"error","message":"m","hint":null}"#), Some(error));
        let result =
            r#"{"type":"result","path":"/o","files":[{"path":"/o/a","size":3,"digest":"blake3:00"}],"summary":"s"}"#;
        let Some(Line::Result(output)) = parse(result) else { panic!("no result") };
        assert_eq!((output.files.len(), output.files[0].size, output.summary.as_str()), (1, 3, "s"));
        let counted = parse(r#"{"type":"result","rows":7,"tokens":90,"skipped":0,"files":[]}"#);
        let summary = "7 rows, 90 tokens, 0 bytes in 0 files".to_owned();
        assert_eq!(counted, Some(Line::Result(Output { summary, ..Output::default() })));
        let lies = r#"{"type":"result","files":[{"path":"a","size":18446744073709551615},{"path":"b","size":1}]}"#;
        let Some(Line::Result(output)) = parse(lies) else { panic!("no result") };
        assert_eq!(output.summary, "18446744073709551615 bytes in 2 files");
        for other in ["", "plain text", "{}", r#"{"type":"other"}"#, r#"{"type":"progress""#] {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }
}
