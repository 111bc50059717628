//! The lines of a log that prove why its process died.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Most lines that are kept.
const LINES: usize = 20;
/// Most characters of a line that are kept.
const WIDTH: usize = 1000;
/// How much of the log's end is looked at.
const WINDOW: u64 = 128 << 10;
/// What Python prints above a stack.
const TRACEBACK: &str = "Traceback (most recent call last)";
/// What a rank says when another one is the cause.
const VICTIM_WORDS: [&str; 5] =
    ["wait receiving failed", "wait sending failed", "peer lost", "scheduler lost", "connection reset by peer"];
/// What is said where a port is taken.
const PORT_WORDS: [&str; 3] = ["address already in use", "failed to init the tcp server", "bind failed"];

/// Reads the last lines of `path`, without terminal codes.
///
/// # Errors
///
/// Whatever the file system says.
pub fn last_lines(path: &Path) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(WINDOW);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(WINDOW).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if start > 0 && lines.len() > 1 {
        // The window begins inside of a line.
        lines.remove(0);
    } else if let [endless] = &mut lines[..]
        && start > 0
    {
        // Of a line that is longer than the window, the end is there.
        *endless = ending(endless);
    }
    Ok(lines.into_iter().map(clean).filter(|line| !line.trim().is_empty()).collect())
}

/// The last 1,000 characters.
fn ending(line: &str) -> &str {
    let start = line.char_indices().rev().nth(WIDTH - 1).map_or(0, |(at, _)| at);
    &line[start..]
}

/// Chooses at most 20 lines: the last stack of a Python exception, else the end.
#[must_use]
pub fn choose(lines: &[String]) -> Vec<String> {
    let from = match lines.iter().rposition(|l| l.contains(TRACEBACK)) {
        Some(at) if lines.len() - at > LINES => {
            // The innermost frames and the message are at the end of the stack.
            let end = stack_end(lines, at);
            return if end - at <= LINES { lines[at..end].to_vec() } else { lines[end - LINES..end].to_vec() };
        }
        Some(at) => at,
        None => lines.len().saturating_sub(LINES),
    };
    lines[from..].to_vec()
}

/// The sentence that sums it up: the last line that names an error.
#[must_use]
pub fn sentence(lines: &[String]) -> Option<&str> {
    let names_error = |l: &&String| {
        let l = l.trim_start();
        let head = l.split([':', ' ']).next().unwrap_or_default();
        head.ends_with("Error") || head.ends_with("Exception") || l.to_ascii_lowercase().starts_with("error:")
    };
    lines.iter().rev().find(names_error).map(|l| l.trim())
}

/// Whether the lines say that another process is the cause.
#[must_use]
pub fn is_victims(lines: &[String]) -> bool {
    contains_any(lines, &VICTIM_WORDS)
}

/// Whether the lines say that a port was taken.
#[must_use]
pub fn says_port_taken(lines: &[String]) -> bool {
    contains_any(lines, &PORT_WORDS)
}

fn contains_any(lines: &[String], words: &[&str]) -> bool {
    lines.iter().any(|line| {
        let line = line.to_ascii_lowercase();
        words.iter().any(|w| line.contains(w))
    })
}

fn stack_end(lines: &[String], traceback: usize) -> usize {
    let is_stack = |l: &String| l.starts_with(' ') || l.starts_with('\t');
    let message = lines[traceback + 1..].iter().position(|l| !is_stack(l));
    message.map_or(lines.len(), |m| traceback + m + 2)
}

/// Cuts to 1,000 characters and drops terminal codes.
#[must_use]
pub fn clean(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars();
    let mut width = 0;
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            if chars.next() == Some('[') {
                for code in chars.by_ref() {
                    if ('@'..='~').contains(&code) {
                        break;
                    }
                }
            }
        } else if c == '\t' || !c.is_control() {
            out.push(c);
            width += 1;
            if width == WIDTH {
                break;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|l| (*l).to_owned()).collect()
    }

    #[test]
    fn the_last_stack_is_the_proof_even_behind_chatter() {
        let mut lines = owned(&["a", TRACEBACK, "  File \"x\", line 1", "    boom()", "RuntimeError: boom"]);
        lines.extend((0..30).map(|i| format!("cleanup {i}")));
        assert_eq!(choose(&lines), owned(&[TRACEBACK, "  File \"x\", line 1", "    boom()", "RuntimeError: boom"]));
        assert_eq!(sentence(&lines), Some("RuntimeError: boom"));
    }

    #[test]
    fn without_a_stack_the_end_is_the_proof() {
        let lines: Vec<String> = (0..50).map(|i| format!("line {i}")).collect();
        let chosen = choose(&lines);
        assert_eq!((chosen.len(), chosen[0].as_str(), chosen[19].as_str()), (20, "line 30", "line 49"));
        assert_eq!(sentence(&lines), None);
        assert!(choose(&[]).is_empty());
    }

    #[test]
    fn terminal_codes_and_long_lines_are_cut() {
        assert_eq!(clean("\u{1b}[31mred\u{1b}[0m\u{7}"), "red");
        assert_eq!(clean(&"x".repeat(5000)).len(), WIDTH);
    }

    #[test]
    fn of_an_endless_line_the_end_is_the_proof() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let read = |text: String| {
            std::fs::write(&log, text).unwrap();
            last_lines(&log).unwrap()
        };
        let message = "RuntimeError: the shapes differ";
        let lines = read(format!("{}{message}", "é".repeat(1 << 20)));
        assert_eq!((lines.len(), lines[0].chars().count()), (1, WIDTH));
        assert!(lines[0].ends_with(message));
        // What stands behind it is whole.
        assert_eq!(read(format!("{}\n{message}\n", "x".repeat(1 << 20))), [message]);
        // A long line within the window shows its beginning.
        let lines = read(format!("ValueError: {}\n", "x".repeat(4 * WIDTH)));
        assert!(lines[0].starts_with("ValueError: ") && lines[0].len() == WIDTH);
    }

    #[test]
    fn victims_and_taken_ports_are_recognised() {
        assert!(is_victims(&owned(&["RuntimeError: Ring AllReduce wait receiving failed"])));
        assert!(!is_victims(&owned(&["RuntimeError: out of memory"])));
        assert!(says_port_taken(&owned(&["OSError: [Errno 98] Address already in use"])));
    }
}
