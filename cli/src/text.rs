//! Words for people: what is printable, and numbers with their units.

use std::path::Path;
use std::sync::OnceLock;

/// How this program was called, for commands that a user may copy.
static PROGRAM: OnceLock<String> = OnceLock::new();

/// Remembers a state directory that the next command must name too.
pub(crate) fn called_with(state_dir: Option<&Path>) {
    let inherited = std::env::var_os("QCTL_STATE_DIR");
    let named = state_dir.filter(|dir| inherited.as_deref() != Some(dir.as_os_str()));
    if let Some(dir) = named {
        // Set once, at the start.
        let _ = PROGRAM.set(format!("qctl --state-dir {}", dir.display()));
    }
}

/// `qctl`, with the state directory if it was named.
pub(crate) fn program() -> &'static str {
    PROGRAM.get().map_or("qctl", String::as_str)
}

/// `text` with control characters escaped, line breaks and tabs kept.
///
/// Names and messages come from users and programs; none of them may move the
/// cursor of somebody else's terminal.
pub(crate) fn printable(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// `text` on one line, with all control characters escaped.
pub(crate) fn one_line(text: &str) -> String {
    escaped(text, |_| false)
}

/// `text` on one line, with tabs kept: what a program wrote as one line.
pub(crate) fn logged(text: &str) -> String {
    escaped(text, |c| c == '\t')
}

fn escaped(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // U+202A.. and U+2066.. turn the direction of what follows.
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (c.is_control() || turns) && !keep(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A duration in at most two units: `0.4 s`, `12 s`, `3 m 20 s`, `2 h 5 m`, `3 d 4 h`.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..10 => format!("{seconds}.{} s", ms % 1000 / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} m {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Bytes with three digits: `999 B`, `1.50 KiB`, `12.3 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    scaled(count, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// A count with three digits: `999`, `1.50 k`, `12.3 M`.
pub(crate) fn count(count: u64) -> String {
    scaled(count, 1000.0, &["", "k", "M", "G", "T"]).trim_end().to_owned()
}

#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn scaled(count: u64, base: f64, units: &[&str]) -> String {
    let mut value = count as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    match (unit, value) {
        (0, _) => format!("{count} {}", units[0]),
        (_, ..10.0) => format!("{value:.2} {}", units[unit]),
        (_, ..100.0) => format!("{value:.1} {}", units[unit]),
        _ => format!("{value:.0} {}", units[unit]),
    }
}

/// A time of the controller's clock, as `2031-02-03T04:05:06Z`; empty for 0.
pub(crate) fn time(ms: u64) -> String {
    let known = i64::try_from(ms).ok().filter(|ms| *ms > 0);
    let stamp = known.and_then(|ms| jiff::Timestamp::from_second(ms / 1000).ok());
    stamp.map(|stamp| stamp.to_string()).unwrap_or_default()
}

/// A count and its noun: `1 job`, `2 jobs`.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_two_units_at_most() {
        let table = [
            (0, "0.0 s"),
            (450, "0.4 s"),
            (9_999, "9.9 s"),
            (10_000, "10 s"),
            (200_000, "3 m 20 s"),
            (7_500_000, "2 h 5 m"),
            (273_600_000, "3 d 4 h"),
        ];
        for (ms, text) in table {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        let table = [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (13_207_024_435, "12.3 GiB")];
        for (size, text) in table {
            assert_eq!(bytes(size), text);
        }
        assert_eq!([count(999), count(1500), count(12_300_000)], ["999", "1.50 k", "12.3 M"]);
    }

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(printable("a\x1b[2Jb\tc\nd\r\u{202e}"), "a\\u{1b}[2Jb\tc\nd\\r\\u{202e}");
        assert_eq!(one_line("a\nb"), "a\\nb");
        assert_eq!(logged("a\tb\\tc\r"), "a\tb\\tc\\r");
    }

    #[test]
    fn times_are_utc_and_absent_ones_are_empty() {
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20Z");
        assert_eq!((time(0), time(u64::MAX)), (String::new(), String::new()));
    }
}
