//! The two streams: data to stdout, talk to stderr.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;

/// How a listing is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide screens.
    Wide,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
    /// One name a line.
    Name,
}

/// Writes a line to stderr. What cannot be told there cannot be told at all.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes `text` to stdout as it is.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to stdout at once, as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Writes a line to stdout.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    print(&format!("{line}\n"))
}

/// Writes `value` as indented JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Failure::because("no JSON could be made", &error))?;
    print_line(&inert(text))
}

/// Writes `value` on one line, as a record of a stream.
pub(crate) fn print_record(value: &impl Serialize) -> Result<(), Failure> {
    print_line(&record(value, Format::Json)?)
}

/// Writes `value` as YAML.
pub(crate) fn print_yaml(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_saphyr::to_string(value).map_err(|error| Failure::because("no YAML could be made", &error))?;
    print(&text)
}

/// `value` as a record of a stream: a line of JSON, or else a YAML document without its last line break.
pub(crate) fn record(value: &impl Serialize, format: Format) -> Result<String, Failure> {
    if format == Format::Json {
        let text = serde_json::to_string(value).map_err(|error| Failure::because("no JSON could be made", &error))?;
        return Ok(inert(text));
    }
    let text = serde_saphyr::to_string(value).map_err(|error| Failure::because("no YAML could be made", &error))?;
    Ok(format!("---\n{}", text.trim_end()))
}

/// JSON without a character that steers a terminal: what serde leaves as it is, DEL and U+0080 to U+009F, is
/// escaped too, which means the same to whoever parses it.
fn inert(text: String) -> String {
    if !text.contains(|c: char| c.is_control() && c != '\n') {
        return text;
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Whether a person reads stderr.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Whether a person reads stdout.
pub(crate) fn is_read_by_person() -> bool {
    io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Escape, line break, DEL, and CSI as one character.
    const HOSTILE: &str = "a\u{1b}[2J\nb\u{7f}\u{9b}31m";

    #[test]
    fn no_record_of_json_steers_a_terminal_and_it_means_the_same() {
        let text = record(&[HOSTILE], Format::Json).unwrap();
        assert_eq!(text, r#"["a\u001b[2J\nb\u007f\u009b31m"]"#);
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), [HOSTILE]);
    }
}
