//! Why a seat cannot run, in words for the user.

/// A sentence, and the next thing to try.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What is wrong and where.
    pub message: String,
    /// The next thing to try; may be empty.
    pub hint: String,
}

impl Refusal {
    /// A refusal with its hint.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}
