//! What users and programs ask: decode, ask, encode.

pub mod checkpoints;
pub mod cluster;
pub mod jobs;
mod keeping;
mod logs;
mod members;
mod nearest;
pub mod nodes;
pub(crate) mod peer;
mod refusal;
mod resolve;
mod restart;
mod watch;

pub(crate) use refusal::refuse;

use tonic::Status;

use crate::driver;

/// Key under which a follower names the controller that leads.
const LEADER: &str = "qctl-leader";

impl From<driver::Error> for Status {
    fn from(error: driver::Error) -> Self {
        let message = chain(&error);
        let mut status = refuse(tonic::Code::Unavailable, message, error.hint());
        if let driver::Error::Elsewhere { leader: Some(leader) } = &error
            && let Ok(leader) = leader.parse()
        {
            status.metadata_mut().insert(LEADER, leader);
        }
        status
    }
}

/// An error and its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
