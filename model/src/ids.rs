//! Names of things, each checked where it is made.

use std::fmt;
use std::str::FromStr;

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no {what}: {rule}", .given.escape_debug())]
pub struct NameError {
    /// What was being named.
    pub what: &'static str,
    /// The rule that was broken.
    pub rule: &'static str,
    /// The offending text, cut to 64 characters.
    pub given: String,
}

fn check(what: &'static str, rule: &'static str, text: &str, longest: usize, inner: &[u8]) -> Result<(), NameError> {
    let bytes = text.as_bytes();
    let fits = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || inner.contains(b);
    let starts = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if starts && bytes.len() <= longest && bytes.iter().all(fits) {
        Ok(())
    } else {
        Err(NameError { what, rule, given: text.chars().take(64).collect() })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $longest:literal, $inner:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// Checks and wraps `text`.
            ///
            /// # Errors
            ///
            /// [`NameError`] with the rule that `text` breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check($what, $rule, &text, $longest, $inner)?;
                Ok(Self(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    };
}

name!(
    /// Identity of a job, unique for ever; made by the controller at submission.
    JobId, "job id", 32, b"", "1 to 32 of a-z and 0-9"
);
name!(
    /// Name of a job, unique among the jobs that have not ended.
    JobName, "job name", 63, b"-_.", "1 to 63 of a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit"
);
name!(
    /// Name of a stage within its job.
    StageName, "stage name", 31, b"-", "1 to 31 of a-z, 0-9 and `-`, starting with a letter or digit"
);
name!(
    /// Identity of a host's agent, as its certificate says it.
    NodeId, "node id", 63, b"-.", "1 to 63 of a-z, 0-9, `-` and `.`, starting with a letter or digit"
);

/// One task of one stage of one job; shown as `job.stage.index`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The job.
    pub job: JobId,
    /// The stage.
    pub stage: StageName,
    /// Position in the stage's list of tasks.
    pub index: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.job, self.stage, self.index)
    }
}

/// One try at one task; shown as `job.stage.index.number`.
///
/// The number is the task's generation and only grows: what carries a smaller
/// one is a latecomer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The task.
    pub task: TaskId,
    /// 1 for the first try.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.task, self.number)
    }
}

impl FromStr for AttemptId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong =
            || NameError { what: "attempt id", rule: "job.stage.index.number", given: text.chars().take(64).collect() };
        let parts: Vec<&str> = text.split('.').collect();
        let [job, stage, index, number] = parts.as_slice() else { return Err(wrong()) };
        Ok(Self {
            task: TaskId {
                job: JobId::new(*job)?,
                stage: StageName::new(*stage)?,
                index: index.parse().map_err(|_| wrong())?,
            },
            number: number.parse().map_err(|_| wrong())?,
        })
    }
}

/// Which controller speaks: a later incarnation or term fences all earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Grows when a store is restored or migrated.
    pub incarnation: u64,
    /// Grows with every leader of one incarnation.
    pub term: u64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for (text, good) in [("a", true), ("a-b.c_d", true), ("", false), ("-a", false), ("A", false), ("a\nb", false)]
        {
            assert_eq!(JobName::new(text).is_ok(), good, "{text:?}");
        }
        assert!(JobId::new("a".repeat(33)).is_err());
        assert_eq!(
            StageName::new("a.b").unwrap_err().to_string(),
            "`a.b` is no stage name: 1 to 31 of a-z, 0-9 and `-`, starting with a letter or digit"
        );
    }

    #[test]
    fn attempt_ids_read_back() {
        let id: AttemptId = "j1.train.0.3".parse().unwrap();
        assert_eq!((id.task.index, id.number), (0, 3));
        assert_eq!(id.to_string(), "j1.train.0.3");
        for bad in ["", "j1.train.0", "j1.train.0.3.4", "j1.train.x.1", "j1.train.0.-1"] {
            assert!(bad.parse::<AttemptId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_later_incarnation_outranks_any_term() {
        assert!(Epoch { incarnation: 2, term: 1 } > Epoch { incarnation: 1, term: 99 });
    }
}
