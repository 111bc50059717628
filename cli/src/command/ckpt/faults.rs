//! What is wrong with a checkpoint, and where.

use proto::v1;
use serde::Serialize;

use super::contents::Contents;
use crate::output::say;
use crate::text::one_line;

/// One thing that is wrong.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Fault {
    /// `null` for a directory of this computer.
    node: Option<String>,
    path: Option<String>,
    message: String,
    hint: Option<String>,
}

impl From<v1::CheckpointFault> for Fault {
    fn from(fault: v1::CheckpointFault) -> Self {
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let v1::CheckpointFault { node, path, message, hint, unread: _ } = fault;
        Self { node: given(node), path: given(path), message, hint: given(hint) }
    }
}

impl Fault {
    /// The faults that the engine found here.
    pub(super) fn of(contents: &Contents) -> Vec<Self> {
        let broken = contents.problems.iter().map(|problem| Self {
            node: None,
            path: Some(problem.path.display().to_string()),
            message: problem.message.clone(),
            hint: problem.hint.clone(),
        });
        let missing = contents.missing.iter().map(|name| Self {
            node: None,
            path: Some(contents.path().join(name).display().to_string()),
            message: format!("`{}` lacks the shard `{name}`", contents.path().display()),
            hint: None,
        });
        broken.chain(missing).collect()
    }
}

/// A line for each fault, on stderr.
pub(super) fn say_all(faults: &[v1::CheckpointFault]) {
    for fault in faults {
        let node = if fault.node.is_empty() { String::new() } else { format!("node {}: ", fault.node) };
        say(&one_line(&format!("{node}{}", fault.message)));
        if !fault.hint.is_empty() {
            say(&one_line(&format!("hint: {}", fault.hint)));
        }
    }
}

#[cfg(test)]
pub(super) fn example() -> (&'static str, serde_json::Value) {
    let fault: Fault = v1::CheckpointFault::default().into();
    ("Fault of a checkpoint", serde_json::to_value(fault).unwrap_or_default())
}
