//! Errors that `npu-smi` prints instead of an answer.

use super::text::Text;

/// An error that the tool printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The driver interface's code, such as -8005.
    pub code: Option<i32>,
    /// Line of it, from 1; 0 if it was not printed.
    pub line: usize,
    /// The sentence.
    pub text: String,
}

/// Beginnings and parts of lines that are errors, in small letters.
const WORDS: [&str; 8] = [
    "dcmi module initialize",
    "dcmi model initialize",
    "error parameter",
    "command not found",
    "permission denied",
    "no such file or directory",
    "cannot open shared object file",
    "this device does not exist",
];

/// The first error of an output.
#[must_use]
pub(super) fn find(text: &Text) -> Option<Failure> {
    text.lines().find_map(|(line, said)| {
        let code = code(said);
        let small = said.to_ascii_lowercase();
        let is_error = code.is_some() || WORDS.iter().any(|word| small.contains(word));
        is_error.then(|| Failure { code, line, text: said.trim().to_owned() })
    })
}

/// What a code means, by the driver interface's own list.
#[must_use]
fn meaning(code: i32) -> Option<&'static str> {
    Some(match code {
        -8001 => "a parameter is wrong",
        -8002 => "not permitted",
        -8003 => "out of memory",
        -8005 => "inner error: in a container the driver is usually not mounted, or not for this container",
        -8006 => "the device did not answer in time",
        -8007 => "no such device id",
        -8008 => "the device is absent",
        -8009 => "the driver refused a call",
        -8012 => "the device is not ready",
        -8013 => "only for containers",
        -8015 => "the reset failed",
        -8017 => "the device is being upgraded",
        -8020 => "the device is used by another container",
        -8255 => "not supported by this device",
        _ => return None,
    })
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)?;
        match self.code.and_then(meaning) {
            Some(meaning) => write!(f, " ({meaning})"),
            None => Ok(()),
        }
    }
}

/// The number behind `ret is` or `ret:`, if it is one of the driver's.
fn code(line: &str) -> Option<i32> {
    let small = line.to_ascii_lowercase();
    let (_, rest) = small.split_once("ret")?;
    let rest = rest.trim_start_matches([' ', ':', '=']).trim_start_matches("is").trim_start_matches([' ', ':', '=']);
    let end = rest.char_indices().find(|(at, c)| !(c.is_ascii_digit() || (*at == 0 && *c == '-')));
    let number: i32 = rest[..end.map_or(rest.len(), |(at, _)| at)].parse().ok()?;
    (-8999..=-8000).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<(Option<i32>, usize)> {
        find(&Text::new("f", text.as_bytes())).map(|failure| (failure.code, failure.line))
    }

    #[test]
    fn the_driver_s_errors_are_told_from_chatter() {
        let chatter = "DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)\n";
        assert_eq!(of(chatter), None);
        assert_eq!(of(&format!("{chatter}dcmi module initialize failed. ret is -8005\n")), Some((Some(-8005), 2)));
        let used = "dcmi model initialized failed, because the device is used. ret is -8020";
        assert_eq!(of(used), Some((Some(-8020), 1)));
        assert!(find(&Text::new("f", used.as_bytes())).unwrap().to_string().contains("another container"));
        assert_eq!(of("bash: npu-smi: command not found"), Some((None, 1)));
        assert_eq!(of("failed, ret: -8255."), Some((Some(-8255), 1)));
        for harmless in ["", "ret is 0", "ret is -1", "retry 3", "interpreter", "ret is -99999999999999"] {
            assert_eq!(of(harmless), None, "{harmless}");
        }
    }
}
