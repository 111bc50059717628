//! Events, as people see them.

use model::Event;
use model::event::Level;

use crate::v1;

impl From<&Event> for v1::EventView {
    fn from(event: &Event) -> Self {
        let level = match event.level {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        Self {
            job: event.job.to_string(),
            seq: event.seq,
            at_ms: event.at.0,
            level: level.to_owned(),
            kind: event.kind.name().to_owned(),
            stage: event.stage.as_ref().map(ToString::to_string).unwrap_or_default(),
            node: event.node.as_ref().map(ToString::to_string).unwrap_or_default(),
            rank: event.rank,
            message: event.message.clone(),
            evidence: event.evidence.clone(),
        }
    }
}
