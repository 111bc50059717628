//! A part of the terminal that is drawn again and again, calmly.

use std::fmt::Write as _;

use console::Term;

use crate::failure::Failure;
use crate::output::print;

/// Lines at the end of stdout's terminal, of which only what changed is written again.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    drawn: Vec<String>,
    size: Option<(u16, u16)>,
}

impl Screen {
    /// Puts `lines` in the place of those drawn before, cut to the terminal.
    pub(crate) fn draw(&mut self, lines: &[String]) -> Result<(), Failure> {
        let size = Term::stdout().size();
        let wanted = fitted(lines, size);
        let mut bytes = String::new();
        if self.size.replace(size).is_some_and(|before| before != size) {
            // Where the old lines are after a change of size, nobody knows.
            bytes.push_str("\x1b[2J\x1b[H");
            self.drawn.clear();
        }
        bytes.push_str(&update(&self.drawn, &wanted));
        self.drawn = wanted;
        // In one piece, so that no half of it is ever seen.
        if bytes.is_empty() { Ok(()) } else { print(&bytes) }
    }
}

/// `lines`, each cut to the width, and as many as leave one row for the cursor.
fn fitted(lines: &[String], (rows, columns): (u16, u16)) -> Vec<String> {
    let most = usize::from(rows).saturating_sub(1).max(1);
    let cut = |line: &String| console::truncate_str(line, usize::from(columns).max(1), "…").into_owned();
    if lines.len() <= most {
        return lines.iter().map(cut).collect();
    }
    let mut fitted: Vec<String> = lines.iter().take(most - 1).map(cut).collect();
    fitted.push(cut(&format!("… {} more lines", lines.len() - fitted.len())));
    fitted
}

/// What turns the rows `before`, below which the cursor stands, into `after`, and leaves it below those.
fn update(before: &[String], after: &[String]) -> String {
    let mut bytes = String::new();
    if before == after {
        return bytes;
    }
    // Writing to a string cannot fail.
    if !before.is_empty() {
        let _ = write!(bytes, "\x1b[{}A\r", before.len());
    }
    for (at, line) in after.iter().enumerate() {
        match before.get(at) {
            Some(same) if same == line => bytes.push_str("\x1b[1B"),
            Some(_) => {
                let _ = write!(bytes, "{line}\x1b[K\r\n");
            }
            None => {
                let _ = write!(bytes, "{line}\r\n");
            }
        }
    }
    if before.len() > after.len() {
        bytes.push_str("\x1b[J");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: u16 = 6;
    const COLUMNS: u16 = 20;

    fn frame(lines: &[&str]) -> Vec<String> {
        fitted(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>(), (ROWS, COLUMNS))
    }

    #[test]
    fn a_terminal_shows_the_last_frame_whatever_came_before() {
        let frames = [
            frame(&["ID  NAME", "j1  a"]),
            frame(&["ID  NAME", "j1  a", "j2  a longer name than fits"]),
            frame(&["ID  NAME", "j2  日本語日本語日本語日本語"]),
            frame(&["1", "2", "3", "4", "5", "6", "7", "8"]),
            frame(&[]),
            frame(&["x"]),
        ];
        for first in &frames {
            for second in &frames {
                let mut terminal = vt100::Parser::new(ROWS, COLUMNS, 0);
                terminal.process(b"$ qctl ps -w\r\n");
                terminal.process(update(&[], first).as_bytes());
                terminal.process(update(first, second).as_bytes());
                let shown = terminal.screen().contents();
                let rows: Vec<&str> = shown.lines().filter(|row| !row.starts_with('$')).collect();
                assert_eq!(rows, *second, "{first:?}");
            }
        }
    }

    #[test]
    fn what_did_not_change_is_not_written() {
        let (before, after) = (frame(&["one", "two", "three"]), frame(&["one", "TWO", "three"]));
        assert_eq!(update(&before, &after), "\x1b[3A\r\x1b[1BTWO\x1b[K\r\n\x1b[1B");
        assert_eq!(update(&before, &before), "");
    }
}
