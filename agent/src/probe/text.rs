//! A tool's output as bounded, printable lines, and notes about what was not
//! understood of it.

use serde::Serialize;

use crate::watch::evidence::clean;

/// Most bytes of one output that are looked at.
pub(crate) const LARGEST: usize = 1 << 20;
/// Most lines of one output that are looked at.
const LINES: usize = 10_000;
/// Most notes that are kept of one probe.
const NOTES: usize = 200;
/// Most characters of a note.
const WIDTH: usize = 200;

/// One output: its lines with their numbers, from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// Name of the file that holds it, or would.
    pub file: String,
    lines: Vec<(usize, String)>,
    cut: bool,
}

impl Text {
    /// Takes an output; what is beyond the bounds is left out, and told by [`Text::is_cut`].
    #[must_use]
    pub fn new(file: impl Into<String>, bytes: &[u8]) -> Self {
        let kept = &bytes[..bytes.len().min(LARGEST)];
        let text = String::from_utf8_lossy(kept);
        let mut cut = kept.len() < bytes.len();
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(text.split('\n')) {
            if lines.len() == LINES {
                cut = true;
                break;
            }
            let line = clean(line);
            if !line.trim().is_empty() {
                lines.push((number, line));
            }
        }
        Self { file: file.into(), lines, cut }
    }

    /// The lines that hold something, with their numbers.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines.iter().map(|(number, line)| (*number, line.as_str()))
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether not all of it is here.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }
}

/// Something that was not understood, or is worth knowing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The file that holds the output.
    pub file: String,
    /// Line in it, from 1; 0 = all of it.
    pub line: usize,
    /// What was read there, or what is odd about it.
    pub text: String,
}

/// The notes of one probe, bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    kept: Vec<Note>,
    left_out: usize,
}

impl Notes {
    /// Takes one more.
    pub fn add(&mut self, file: &str, line: usize, text: &str) {
        if self.kept.len() == NOTES {
            self.left_out += 1;
            return;
        }
        let text = text.trim().chars().take(WIDTH).collect();
        self.kept.push(Note { file: file.to_owned(), line, text });
    }

    /// All of them; a last one says how many were left out.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<Note> {
        if self.left_out > 0 {
            let text = format!("{} more notes were left out", self.left_out);
            self.kept.push(Note { file: String::new(), line: 0, text });
        }
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_bounded_and_printable() {
        let text = Text::new("f", b"a\x00\x1b[31mb\r\n\n \t \r\n c\xff");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines, [(1, "ab"), (4, " c\u{fffd}")]);
        assert!(!text.is_cut());
        let long = Text::new("f", &vec![b'x'; LARGEST + 1]);
        assert!(long.is_cut() && long.lines().all(|(_, line)| line.len() <= 1000));
        assert!(Text::new("f", &b"x\n".repeat(LINES + 1)).is_cut());
        assert!(Text::new("f", b" \n\r\n").is_empty());
    }

    #[test]
    fn notes_do_not_grow_without_end() {
        let mut notes = Notes::default();
        (0..NOTES + 7).for_each(|line| notes.add("f", line, &"x".repeat(5000)));
        let notes = notes.into_vec();
        assert_eq!((notes.len(), notes[0].text.len()), (NOTES + 1, WIDTH));
        assert_eq!(notes[NOTES].text, "7 more notes were left out");
    }
}
