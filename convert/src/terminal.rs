//! Progress, warnings and results on stdout and stderr.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use convert::progress::Report;
use convert::stage::Written;
use convert::{Error, Result};
use serde_json::{Value, json};

use crate::cli::Form;

/// At most ten progress records a second.
const PACE: Duration = Duration::from_millis(100);

/// Most bytes of a sentence.
const LONGEST: usize = 4096;

/// The one place that prints.
#[derive(Debug)]
pub(crate) struct Terminal {
    form: Form,
    live: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    done: u64,
    total: u64,
    began: Option<Instant>,
    shown: Option<Instant>,
    line: bool,
}

impl State {
    /// Bytes a second since the work began; `None` at its first moment.
    #[allow(clippy::cast_precision_loss, reason = "a rounded rate")]
    fn speed(&self) -> Option<f64> {
        let seconds = self.began?.elapsed().as_secs_f64();
        (seconds > 0.0).then(|| (self.done as f64 / seconds).round())
    }
}

impl Terminal {
    pub(crate) fn new(form: Form) -> Self {
        let live = form == Form::Text && io::stderr().is_terminal();
        Self { form, live, state: Mutex::new(State { done: 0, total: 0, began: None, shown: None, line: false }) }
    }

    /// Prints one JSON object or one line of data on stdout.
    ///
    /// A reader that went away is no reason to stop the work.
    pub(crate) fn data(&self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    pub(crate) fn result(&self, files: &[Written]) {
        self.finish();
        if self.form == Form::Json {
            let files: Vec<Value> =
                files.iter().map(|f| json!({ "path": f.path, "size": f.size, "digest": f.digest })).collect();
            self.data(&json!({ "type": "result", "files": files }).to_string());
        }
    }

    /// Shows an error; gives the exit code.
    pub(crate) fn error(&self, error: &Error) -> u8 {
        self.clear();
        let (message, hint) = (one_line(&error.chain()), error.hint().map(|hint| one_line(&hint)));
        if self.form == Form::Json {
            self.data(&json!({ "type": "error", "message": message, "hint": hint }).to_string());
        }
        let mut err = io::stderr().lock();
        let _ = writeln!(err, "error: {message}");
        if let Some(hint) = hint {
            let _ = writeln!(err, "hint: {hint}");
        }
        if error.is_usage() { 2 } else { 1 }
    }

    /// The last progress record says that all is done.
    fn finish(&self) {
        let Ok(mut state) = self.state.lock() else { return };
        if state.total > 0 {
            self.show(&mut state);
        }
        drop(state);
        self.clear();
    }

    fn show(&self, state: &mut State) {
        state.shown = Some(Instant::now());
        match self.form {
            Form::Json => self.data(
                &json!({
                    "type": "progress", "done": state.done, "total": state.total, "unit": "bytes",
                    "bytes_per_s": state.speed(),
                })
                .to_string(),
            ),
            Form::Text if self.live => {
                let percent = state.done.saturating_mul(100).checked_div(state.total).unwrap_or(100);
                let (done, total) = (state.done >> 20, state.total >> 20);
                let _ = write!(io::stderr(), "\r\x1b[K{percent:3} %  {done} of {total} MiB");
                state.line = true;
            }
            Form::Text => {}
        }
    }

    fn clear(&self) {
        if let Ok(mut state) = self.state.lock()
            && std::mem::take(&mut state.line)
        {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Report for Terminal {
    fn expect(&self, bytes: u64) {
        if let Ok(mut state) = self.state.lock() {
            state.total += bytes;
            state.began.get_or_insert_with(Instant::now);
        }
    }

    fn advance(&self, bytes: u64) {
        let Ok(mut state) = self.state.lock() else { return };
        state.done += bytes;
        if state.shown.is_none_or(|at| at.elapsed() >= PACE) {
            self.show(&mut state);
        }
    }

    fn warn(&self, message: &str) {
        self.clear();
        let message = one_line(message);
        if self.form == Form::Json {
            self.data(&json!({ "type": "warning", "message": message }).to_string());
        }
        let _ = writeln!(io::stderr(), "warning: {message}");
    }

    fn note(&self, line: &str) {
        if self.form == Form::Text {
            self.clear();
            self.data(line);
        }
    }
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

/// Prints a serialisable value as one line of JSON.
pub(crate) fn print_json(terminal: &Terminal, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Error::Internal(e.to_string()))?;
    terminal.clear();
    terminal.data(&text);
    Ok(())
}
