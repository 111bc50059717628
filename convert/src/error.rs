//! What can go wrong with a conversion, and what to try next.

use std::io;
use std::path::{Path, PathBuf};

use model::LayoutError;

/// Why a conversion, a check or a description failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `create`, `write`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// A file or directory is not what it should be.
    #[error("`{}` {reason}", path.display())]
    Bad {
        /// Which file.
        path: PathBuf,
        /// A predicate: what is wrong with it.
        reason: String,
        /// The next thing to try.
        hint: Option<String>,
    },
    /// The layout does not fit the model.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A thing that this version refuses by name.
    #[error("{what} is not supported yet")]
    Unsupported {
        /// The refused thing, named.
        what: String,
        /// The next thing to try.
        hint: Option<String>,
    },
    /// The options contradict each other or the model.
    #[error("{reason}")]
    Usage {
        /// The contradiction.
        reason: String,
        /// The next thing to try.
        hint: Option<String>,
    },
    /// What was written does not hold the weights that it was made from.
    #[error("{what}")]
    Differs {
        /// The tensor, and how it differs.
        what: String,
    },
    /// What was written failed its verification.
    #[error("`{}` was written, but could not be verified: it must not be used", path.display())]
    Unverified {
        /// What must not be used.
        path: PathBuf,
        /// What the verification met.
        #[source]
        source: Box<Error>,
    },
    /// A promise inside this crate was broken.
    #[error("internal error: {0}")]
    Internal(String),
    /// Another part of the same conversion failed first.
    #[error("stopped, because another shard failed")]
    Stopped,
}

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A file that is not what it should be.
    pub fn bad(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Bad { path: path.as_ref().to_owned(), reason: reason.into(), hint: None }
    }

    /// A failed call of the operating system.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io { action, path: path.as_ref().to_owned(), source }
    }

    /// A thing refused by name.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), hint: None }
    }

    /// Options that contradict each other or the model.
    pub fn usage(reason: impl Into<String>) -> Self {
        Self::Usage { reason: reason.into(), hint: None }
    }

    /// The same error with the next thing to try.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Self::Bad { hint, .. } | Self::Unsupported { hint, .. } | Self::Usage { hint, .. } => {
                *hint = Some(text.into());
            }
            Self::Io { .. }
            | Self::Layout(_)
            | Self::Differs { .. }
            | Self::Unverified { .. }
            | Self::Internal(_)
            | Self::Stopped => {}
        }
        self
    }

    /// The same error with the next thing to try, unless it knows one.
    #[must_use]
    pub(crate) fn or_hint(self, text: &str) -> Self {
        if self.hint().is_some() { self } else { self.with_hint(text) }
    }

    /// Returns the next thing to try, printed as `hint: …`.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { path, source, .. } => io_hint(path, source),
            Self::Bad { hint, .. } | Self::Unsupported { hint, .. } | Self::Usage { hint, .. } => hint.clone(),
            Self::Layout(layout) => layout.hint(),
            Self::Differs { .. } => Some("a side changed meanwhile, or storage is faulty: convert again".to_owned()),
            Self::Unverified { source, .. } => source.hint(),
            Self::Internal(_) => Some("please report this with the command line".to_owned()),
            Self::Stopped => None,
        }
    }

    /// Whether the command line is at fault, rather than files or the machine.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage { .. } | Self::Layout(_))
    }

    /// The sentence with those of its sources, joined by `: `.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(source) = next {
            text.push_str(": ");
            text.push_str(&source.to_string());
            next = source.source();
        }
        text
    }
}

fn io_hint(path: &Path, source: &io::Error) -> Option<String> {
    // Kinds of other platforms and versions simply have no advice.
    #[expect(clippy::wildcard_enum_match_arm, reason = "foreign, non-exhaustive enum")]
    let hint = match source.kind() {
        io::ErrorKind::NotFound => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() && !parent.exists() => {
                format!("directory `{}` does not exist; check the path", parent.display())
            }
            _ => "check the path".to_owned(),
        },
        io::ErrorKind::PermissionDenied => "check owner and mode of the file and its directory".to_owned(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free space on that file system or choose another output directory; nothing was published".to_owned()
        }
        io::ErrorKind::FileTooLarge => "raise the limit on file size (`ulimit -f`); nothing was published".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "choose an output directory that can be written".to_owned(),
        io::ErrorKind::NotADirectory => "a parent of the path is a file; check the path".to_owned(),
        _ => return None,
    };
    Some(hint)
}
