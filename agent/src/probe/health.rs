//! How an NPU fares.

use serde::{Serialize, Serializer};

/// How an NPU fares, from best to worst: of two words about one chip the
/// greater counts.
///
/// The tool's words are these five; `Unknown` stands before the named faults,
/// since a fault that is named says more than one that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Nothing is wrong.
    Ok,
    /// A minor fault; it goes on working.
    Warning,
    /// The tool does not know, or said something that is not understood.
    Unknown,
    /// A major fault.
    Alarm,
    /// A critical fault.
    Critical,
}

impl Health {
    /// All of them, from best to worst.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Warning, Self::Unknown, Self::Alarm, Self::Critical];

    /// The tool's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "Warning",
            Self::Unknown => "UNKNOWN",
            Self::Alarm => "Alarm",
            Self::Critical => "Critical",
        }
    }

    /// What a word of the tool means, if it is one.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|health| word.trim().eq_ignore_ascii_case(health.word()))
    }

    /// The level of an event's severity: minor, major, critical; 0 is a hint.
    #[must_use]
    pub fn from_severity(severity: u64) -> Self {
        match severity {
            0 => Self::Ok,
            1 => Self::Warning,
            2 => Self::Alarm,
            3 => Self::Critical,
            _ => Self::Unknown,
        }
    }

    /// Whether new work may be put on it.
    #[must_use]
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Ok | Self::Warning)
    }
}

impl Serialize for Health {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_five_words_mean_something() {
        for health in Health::ALL {
            assert_eq!(Health::from_word(&format!(" {} ", health.word())), Some(health));
        }
        for other in ["", "NA", "Abnormal", "OKAY", "O K", "NOT OK", "0", "Minor"] {
            assert_eq!(Health::from_word(other), None, "{other}");
        }
    }

    #[test]
    fn what_may_not_be_used_is_worse_than_what_may() {
        assert!(Health::ALL.is_sorted());
        let usable: Vec<bool> = Health::ALL.iter().map(|health| health.is_usable()).collect();
        assert_eq!(usable, [true, true, false, false, false]);
    }
}
