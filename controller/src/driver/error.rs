//! Why the driver did not do what it was asked.

use std::sync::Arc;

/// Why the driver did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The driver has stopped, or is stopping.
    #[error("the controller is stopping")]
    Stopped,
    /// The world was loaded anew: what came from a session must come again.
    #[error("the controller has just taken over; the session begins anew")]
    Superseded,
    /// This controller follows.
    #[error("{}", follows(leader.as_deref()))]
    Elsewhere {
        /// The address of the one that leads, where it is known.
        leader: Option<String>,
    },
    /// Another controller leads.
    #[error("another controller leads now")]
    Deposed(#[source] Arc<store::Error>),
    /// What the store remembers was taken over elsewhere.
    #[error("this controller is not to lead")]
    Moved(#[source] Arc<store::Error>),
    /// The store did not take it.
    #[error("it could not be saved")]
    Store(#[source] Arc<store::Error>),
}

impl Error {
    /// Returns the next thing to try, printed as `hint: …`.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Stopped | Self::Superseded | Self::Deposed(_) => Some("try again in a moment".to_owned()),
            Self::Elsewhere { leader: Some(leader) } => {
                Some(format!("ask it, or name all controllers, with commas: {leader}"))
            }
            Self::Elsewhere { leader: None } => {
                Some("try again in a moment; `qctl doctor` says what is wrong".to_owned())
            }
            Self::Moved(error) | Self::Store(error) => error.hint().map(str::to_owned),
        }
    }

    pub(super) fn store(error: store::Error) -> Self {
        if error.kind() == store::Kind::Moved { Self::Moved(Arc::new(error)) } else { Self::Store(Arc::new(error)) }
    }
}

fn follows(leader: Option<&str>) -> String {
    match leader {
        Some(leader) => format!("this controller follows; `{leader}` leads"),
        None => "no controller leads at the moment".to_owned(),
    }
}
