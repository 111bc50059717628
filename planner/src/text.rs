//! Sentences for events and reasons.

use model::{Attempt, Cause, Failure, NodeId, Seat, Timestamp};

use crate::index::Place;
use crate::step::Work;

/// Longest message kept, in characters.
const LONGEST_MESSAGE: usize = 1_000;
/// Most lines of evidence kept.
const MOST_EVIDENCE: usize = 20;

impl Work<'_> {
    /// The task, as a sentence names it.
    pub(crate) fn task_name(&self, place: &Place) -> String {
        let Some(stage) = self.stage(place) else { return "a task".to_owned() };
        let label = self.task(place).map(|task| task.label.as_str()).unwrap_or_default();
        match (stage.tasks.len(), label) {
            (1, _) => format!("`{}`", stage.name),
            (_, "") => format!("task {} of `{}`", place.task, stage.name),
            (_, label) => format!("task {} (`{label}`) of `{}`", place.task, stage.name),
        }
    }

    /// The task and its attempt, as a sentence names them.
    pub(crate) fn name(&self, place: &Place) -> String {
        let number = self.attempt(place).map_or(0, |attempt| attempt.number);
        format!("attempt {number} of {}", self.task_name(place))
    }
}

/// One sentence: who, where, what.
pub(crate) fn failure(failure: &Failure) -> String {
    let what = match failure.cause {
        Cause::Exit(code) => format!("exit code {code}"),
        Cause::Signal(signal) => format!("signal {signal}"),
        Cause::Refused => "refused".to_owned(),
        Cause::NodeLost => "node lost".to_owned(),
        Cause::Hang => "no progress".to_owned(),
        Cause::Overrun => "out of time".to_owned(),
    };
    let who = failure.rank.map(|rank| format!("rank {rank} on ")).unwrap_or_default();
    let said = if failure.message.is_empty() { String::new() } else { format!(": {}", failure.message) };
    format!("{who}node `{}`, {what}{said}", failure.node)
}

/// Bounds what a node says, and lets it speak only for itself.
pub(crate) fn bounded(failure: &Failure, node: &NodeId, seat: &Seat) -> Failure {
    let ranks = seat.first_rank..seat.first_rank.saturating_add(seat.ranks);
    Failure {
        node: node.clone(),
        rank: failure.rank.filter(|rank| ranks.contains(rank)),
        cause: failure.cause,
        at: failure.at,
        message: cut(&failure.message),
        hint: cut(&failure.hint),
        evidence: failure.evidence.iter().rev().take(MOST_EVIDENCE).rev().map(|line| cut(line)).collect(),
    }
}

pub(crate) fn cut(text: &str) -> String {
    text.chars().take(LONGEST_MESSAGE).collect()
}

/// Whether a failure's own words say that it lost another rank, so that its
/// cause lies elsewhere.
pub(crate) fn blames_a_peer(failure: &Failure) -> bool {
    let message = failure.message.to_ascii_lowercase();
    ["peer", "heartbeat", "lost connection", "connection reset"].iter().any(|word| message.contains(word))
}

/// A failure that the planner itself concludes.
pub(crate) fn lost(node: &NodeId, at: Timestamp, message: &str, hint: &str) -> Failure {
    Failure {
        node: node.clone(),
        rank: None,
        cause: Cause::NodeLost,
        at,
        message: message.to_owned(),
        hint: hint.to_owned(),
        evidence: Vec::new(),
    }
}

/// `850 ms`, `4 s`, `2 min 5 s`, `3 h 1 min`.
pub(crate) fn span(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds} s"),
        60..3_600 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600.. if seconds.is_multiple_of(3_600) => format!("{} h", seconds / 3_600),
        3_600.. => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// `n1, n2 and 3 more`.
pub(crate) fn nodes(attempt: &Attempt) -> String {
    let mut names: Vec<String> = attempt.seats.iter().take(4).map(|seat| format!("`{}`", seat.node)).collect();
    if attempt.seats.len() > names.len() {
        names.push(format!("{} more", attempt.seats.len() - names.len()));
    }
    join(&names)
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn join(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
