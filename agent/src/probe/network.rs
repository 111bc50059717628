//! The network port of an NPU, read from what `hccn_tool` prints.
//!
//! A word that is none of the tool's, or no word at all where there is an
//! answer, is UNKNOWN.

use super::text::{Notes, Text};

/// What is not understood.
pub(super) const UNKNOWN: &str = "UNKNOWN";
/// What a link may be.
const LINKS: [&str; 2] = ["UP", "DOWN"];
/// What the network's health may be; an older tool says one of them otherwise.
const HEALTHS: [&str; 10] = [
    "Success",
    "Socket fail",
    "Receive timeout",
    "Unreachable",
    "Time exceeded",
    "Fault",
    "Init",
    "Thread error",
    "Detect ip set",
    "Unknown",
];
const OLDER: (&str, &str) = ("Socket failed", "Socket fail");

/// `UP`, `DOWN` or `UNKNOWN`, of `-link -g`; nothing of an empty answer.
pub(super) fn link(text: &Text, notes: &mut Notes) -> Option<String> {
    word(text, "link status", notes, |said| LINKS.into_iter().find(|link| said.eq_ignore_ascii_case(link)))
}

/// The tool's own word or `UNKNOWN`, of `-net_health -g`; nothing of an empty answer.
pub(super) fn health(text: &Text, notes: &mut Notes) -> Option<String> {
    word(text, "net health status", notes, |said| {
        let said = if said.eq_ignore_ascii_case(OLDER.0) { OLDER.1 } else { said };
        let known = HEALTHS.into_iter().find(|health| said.eq_ignore_ascii_case(health));
        known.map(|health| if health == "Unknown" { UNKNOWN } else { health })
    })
}

fn word(text: &Text, key: &str, notes: &mut Notes, known: impl Fn(&str) -> Option<&'static str>) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let said: Vec<(usize, &str)> = text
        .lines()
        .filter_map(|(line, said)| {
            let (name, word) = said.split_once(':')?;
            name.trim().eq_ignore_ascii_case(key).then(|| (line, word.trim()))
        })
        .collect();
    let [(line, only)] = said[..] else {
        notes.add(&text.file, 0, &format!("`{key}` is said {} times", said.len()));
        return Some(UNKNOWN.to_owned());
    };
    let known = known(only);
    if known.is_none() {
        notes.add(&text.file, line, only);
    }
    Some(known.unwrap_or(UNKNOWN).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tool_s_words_mean_something() {
        let read = |of: fn(&Text, &mut Notes) -> Option<String>, said: &str| {
            let mut notes = Notes::default();
            (of(&Text::new("f", said.as_bytes()), &mut notes), notes.into_vec().len())
        };
        let word = |word: &str, notes| (Some(word.to_owned()), notes);
        assert_eq!(read(link, "link status: UP\n"), word("UP", 0));
        assert_eq!(read(link, "\r\n  Link Status :  down \n"), word("DOWN", 0));
        for odd in ["link status: \n", "link status: UPDOWN", "hello", "link status: UP\nlink status: DOWN", "link: UP"]
        {
            assert_eq!(read(link, odd), word("UNKNOWN", 1), "{odd}");
        }
        assert_eq!((read(link, " \n"), read(health, "")), ((None, 0), (None, 0)));
        for known in HEALTHS.into_iter().filter(|known| *known != "Unknown") {
            assert_eq!(read(health, &format!("net health status: {known}\n")), word(known, 0));
        }
        assert_eq!(read(health, "net health status: Socket failed"), word("Socket fail", 0));
        assert_eq!(read(health, "net health status: Unknown"), word("UNKNOWN", 0));
        assert_eq!(read(health, "net health status: OK"), word("UNKNOWN", 1));
    }
}
