//! Why a command did not succeed, and how that is told.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use tonic::{Code, Status};

use crate::output;
use crate::text::printable;

/// Exit codes; part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Anything else.
    Failed = 1,
    /// The command line or the user's file is wrong.
    Usage = 2,
    /// The job failed.
    JobFailed = 3,
    /// The job was cancelled.
    Cancelled = 4,
    /// There is no such thing.
    NotFound = 5,
    /// The controller cannot be reached.
    Unreachable = 6,
    /// The caller may not.
    NotPermitted = 7,
    /// Left by Ctrl-C, as shells count it.
    Interrupted = 130,
}

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be told.
    Told {
        /// Whose fault.
        exit: Exit,
        /// What, where and why.
        message: String,
        /// The next thing to try.
        hint: Option<String>,
    },
    /// Everything was said already.
    Said(Exit),
    /// The reader of the output went: nothing is wrong.
    ReaderGone,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Told { exit, message: message.into(), hint: None }
    }

    pub(crate) fn hint(self, text: impl Into<String>) -> Self {
        match self {
            Self::Told { exit, message, .. } => Self::Told { exit, message, hint: Some(text.into()) },
            other @ (Self::Said(_) | Self::ReaderGone) => other,
        }
    }

    /// `what`, and the chain of causes.
    pub(crate) fn because(what: impl std::fmt::Display, cause: &dyn Error) -> Self {
        Self::new(Exit::Failed, format!("{what}: {}", chain(cause)))
    }

    /// Writes `error: …` and `hint: …`, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Told { exit, message, hint } => {
                output::say(&format!("error: {}", printable(&message)));
                if let Some(hint) = hint {
                    output::say(&format!("hint: {}", printable(&hint)));
                }
                ExitCode::from(exit as u8)
            }
            Self::Said(exit) => ExitCode::from(exit as u8),
            Self::ReaderGone => ExitCode::SUCCESS,
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let exit = exit_of(status.code());
        let message = match (exit, status.source()) {
            (Exit::Unreachable, Some(source)) => format!("the controller is unreachable: {}", chain(source)),
            _ if status.message().is_empty() => format!("the controller refused: {}", status.code().description()),
            _ => status.message().to_owned(),
        };
        let fallback = (exit == Exit::Unreachable).then(|| START.to_owned());
        let hint = status.metadata().get("qctl-hint").map(|value| unpercent(value.as_bytes()));
        Self::Told { exit, message, hint: hint.or(fallback) }
    }
}

/// What to do without a controller.
pub(crate) const START: &str =
    "start one with `qctl dev`, tell of one with `qctl login`, or name its state directory with `--state-dir`";

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        Self::because("the output could not be written", &error)
    }
}

/// Whose fault a refusal is.
pub(crate) fn exit_of(code: Code) -> Exit {
    match code {
        Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
        Code::NotFound => Exit::NotFound,
        Code::Unavailable | Code::DeadlineExceeded => Exit::Unreachable,
        Code::PermissionDenied | Code::Unauthenticated => Exit::NotPermitted,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => Exit::Failed,
    }
}

/// An error and its sources in one line; a cause that its parent repeats is left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

/// Decodes `%XX` (RFC 3986, section 2.1); what is malformed stays as it is.
fn unpercent(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let digits = text.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| text[at] == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                at += 3;
            }
            None => {
                bytes.push(text[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_exit() {
        let table = [
            (Code::InvalidArgument, 2),
            (Code::NotFound, 5),
            (Code::Unavailable, 6),
            (Code::DeadlineExceeded, 6),
            (Code::PermissionDenied, 7),
            (Code::Unauthenticated, 7),
            (Code::AlreadyExists, 1),
            (Code::Internal, 1),
        ];
        for (code, exit) in table {
            assert_eq!(exit_of(code) as u8, exit, "{code:?}");
        }
        assert_eq!([Exit::JobFailed as u8, Exit::Cancelled as u8, Exit::Interrupted as u8], [3, 4, 130]);
    }

    #[test]
    fn hints_are_decoded_and_malformed_ones_survive() {
        assert_eq!(unpercent(b"50 %25 or%0A%E6%97%A5"), "50 % or\n日");
        assert_eq!(unpercent(b"100%, %zz %4"), "100%, %zz %4");
    }

    #[test]
    fn a_refusal_keeps_its_words_and_an_unreachable_controller_gets_a_hint() {
        let Failure::Told { exit, message, hint } = Failure::from(Status::not_found("no job `x`")) else {
            panic!("not told")
        };
        assert_eq!((exit, message.as_str(), hint), (Exit::NotFound, "no job `x`", None));
        let Failure::Told { hint, .. } = Failure::from(Status::unavailable("gone")) else { panic!("not told") };
        assert_eq!(hint.as_deref(), Some(START));
    }
}
