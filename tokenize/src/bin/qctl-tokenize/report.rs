//! What the process says: JSON lines for a supervisor, or talk.

use std::io::{Write, stderr, stdout};
use std::time::Instant;

use serde_json::{Value, json};
use tokenize::{Error, Progress, Summary};

/// Most bytes of a line for people.
const LONGEST: usize = 4096;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self { message, hint: error.hint() }
    }
}

/// Where words go.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    born: Instant,
    started: Option<Instant>,
    next_line: u64,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, born: Instant::now(), started: None, next_line: 0 }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// A remark that changes nothing.
    pub(crate) fn note(&self, text: &str) {
        say(&format!("note: {text}"));
    }

    /// Something the user should look at.
    pub(crate) fn warning(&self, text: &str) {
        if self.json {
            line(&json!({"type": "warning", "message": text}));
        }
        say(&format!("warning: {text}"));
    }

    /// Talk, for people only.
    pub(crate) fn talk(&self, text: &str) {
        if !self.json {
            say(text);
        }
    }

    /// Encoding begins.
    pub(crate) fn started(&mut self) {
        self.started = Some(Instant::now());
        self.talk(&format!("Time to startup:{:.3}", self.born.elapsed().as_secs_f64()));
    }

    /// How far it is: a JSON line, or the reference's line each `interval` rows.
    pub(crate) fn progress(&mut self, progress: &Progress, interval: u64) {
        let seconds = self.started.map_or(0.0, |start| start.elapsed().as_secs_f64()).max(1e-6);
        if self.json {
            line(&progress_json(progress, seconds));
        } else if progress.rows >= self.next_line + interval {
            let rows = progress.rows / interval * interval;
            self.next_line = rows;
            let (rate, megabytes) =
                (as_f64(rows) / seconds, as_f64(4 * progress.tokens) / seconds / f64::from(1 << 20));
            // The reference's sentence, then what it does not tell.
            let mut text = format!("Processed {rows} documents ({rate:.1} docs/s, {megabytes:.2} MB/s).");
            let (tokens, texts) = (as_f64(progress.tokens) / seconds, as_f64(progress.text_bytes) / seconds / 1e6);
            text.push_str(&format!(" {tokens:.0} tokens/s, {texts:.2} MB/s of text"));
            if let Some(left) = seconds_left(progress, seconds) {
                let share = 100.0 * as_f64(progress.rows) / as_f64(progress.total_rows.max(1));
                text.push_str(&format!(", {share:.0} % done, {left:.0} s left"));
            }
            say(&text);
        }
    }

    /// The end of a merge part.
    pub(crate) fn merged(&self, done: usize, total: usize, tokens: u64) {
        if self.json {
            line(
                &json!({"type": "progress", "done": done, "total": total, "unit": "parts", "tokens": tokens, "bytes": 4 * tokens}),
            );
        }
    }

    /// The end of a run or a merge.
    pub(crate) fn result(&self, summary: &Summary) {
        if self.json {
            let files: Vec<Value> = summary
                .files
                .iter()
                .map(|file| json!({"path": file.path, "size": file.size, "digest": file.digest}))
                .collect();
            line(&json!({
                "type": "result", "rows": summary.rows, "sequences": summary.sequences, "documents": summary.documents,
                "tokens": summary.tokens, "skipped": summary.skipped, "peak_rss_bytes": peak_rss(), "files": files,
            }));
        }
        for file in &summary.files {
            self.talk(&format!("wrote {} ({} bytes)", file.path.display(), file.size));
        }
    }

    /// Data for stdout.
    pub(crate) fn data(&self, value: &Value) {
        line(value);
    }

    /// The end, if it is a bad one.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.json {
            line(&json!({"type": "error", "message": one_line(&failure.message), "hint": failure.hint}));
        }
        say(&format!("error: {}", failure.message));
        if let Some(hint) = &failure.hint {
            say(&format!("hint: {hint}"));
        }
    }
}

fn progress_json(progress: &Progress, seconds: f64) -> Value {
    let rate = |count: u64| (as_f64(count) / seconds).round();
    json!({
        "type": "progress", "done": progress.rows, "total": progress.total_rows, "unit": "rows",
        "tokens": progress.tokens, "bytes": progress.text_bytes,
        "rows_per_s": rate(progress.rows), "tokens_per_s": rate(progress.tokens), "bytes_per_s": rate(progress.text_bytes),
        "seconds_left": seconds_left(progress, seconds),
    })
}

/// How long the rest takes at the rate so far, where the whole is known.
fn seconds_left(progress: &Progress, seconds: f64) -> Option<f64> {
    let rest = progress.total_rows.checked_sub(progress.rows)?;
    let known = progress.total_rows > 0 && progress.rows > 0;
    known.then(|| (as_f64(rest) * seconds / as_f64(progress.rows)).round())
}

/// The largest memory this process has held, in bytes.
fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// Exact up to 2^53.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn as_f64(number: u64) -> f64 {
    number as f64
}

fn line(value: &Value) {
    // A supervisor that went away must not stop the work.
    let _ = writeln!(stdout().lock(), "{value}");
}

fn say(text: &str) {
    let _ = writeln!(stderr().lock(), "{}", one_line(text));
}

/// A sentence on one line: names in it come from files, and none of them may move somebody's cursor or fill a screen.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars() {
        if line.len() > LONGEST {
            line.push('…');
            break;
        }
        // U+202A.. and U+2066.. turn the direction of what follows.
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}
