//! Operators set nodes aside, empty them, and take them back.

use model::event::{Kind, Level};
use model::{Cordon, Drain, NodeId, Purpose};

use crate::input::{Reply, Write};
use crate::step::{Work, is_draining};
use crate::text;

impl Work<'_> {
    /// Keeps new work away; what runs goes on. Ends a drain that is under way.
    pub(crate) fn cordon(&mut self, node: &NodeId, by: &str, reason: &str) {
        self.set_aside(node, by, reason, Purpose::Keep);
    }

    /// Keeps new work away and lets what runs finish; what still runs at the
    /// deadline is stopped and runs again elsewhere.
    pub(crate) fn drain_node(&mut self, node: &NodeId, by: &str, reason: &str, deadline_ms: Option<u64>) {
        let deadline = deadline_ms.map(|millis| self.now.after_ms(millis));
        self.set_aside(node, by, reason, Purpose::Empty { deadline });
    }

    fn set_aside(&mut self, node: &NodeId, by: &str, reason: &str, purpose: Purpose) {
        let now = self.now;
        let Some(view) = self.world.nodes.get_mut(node) else { return self.reply(Reply::NoSuchNode) };
        if view.record.cordon.as_ref().is_some_and(|cordon| cordon.purpose == purpose && cordon.reason == reason) {
            return self.reply(Reply::NodeUnchanged);
        }
        // New work has been kept away since the first word.
        let at = view.record.cordon.as_ref().map_or(now, |cordon| cordon.at);
        view.record.cordon = Some(Cordon { by: by.to_owned(), reason: text::cut(reason), at, purpose });
        self.out.writes.insert(Write::Node(node.clone()));
        self.reply(Reply::NodeChanged);
        let because = if reason.is_empty() { String::new() } else { format!(": {}", text::cut(reason)) };
        let (kind, message) = match purpose {
            Purpose::Keep => {
                (Kind::NodeCordoned, format!("`{by}` cordoned node `{node}`; what runs there goes on{because}"))
            }
            Purpose::Empty { deadline: None } => {
                (Kind::NodeDraining, format!("`{by}` drains node `{node}`; what runs there is let finish{because}"))
            }
            Purpose::Empty { deadline: Some(at) } => {
                self.world.expect_deadline(at);
                let left = text::span(at.since(now));
                let message = format!(
                    "`{by}` drains node `{node}`; what still runs there in {left} is stopped and runs elsewhere{because}"
                );
                (Kind::NodeDraining, message)
            }
        };
        self.tell_jobs_on(node, kind, Level::Warn, message);
        self.recall_all(node);
        self.empty_nodes();
        // Room is smaller, but a task that kept this node for itself keeps others free.
        self.world.reconsider = true;
    }

    pub(crate) fn uncordon(&mut self, node: &NodeId, by: &str) {
        let Some(view) = self.world.nodes.get_mut(node) else { return self.reply(Reply::NoSuchNode) };
        let (cordon, fence) = (view.record.cordon.take(), view.record.fence.take());
        if cordon.is_none() && fence.is_none() {
            return self.reply(Reply::NodeUnchanged);
        }
        self.out.writes.insert(Write::Node(node.clone()));
        self.reply(Reply::NodeChanged);
        let message = format!("`{by}` uncordoned node `{node}`");
        self.tell_jobs_on(node, Kind::NodeUncordoned, Level::Info, message);
        self.world.reconsider = true;
    }

    /// Stops what still runs on nodes whose deadline has come.
    pub(crate) fn empty_nodes(&mut self) {
        if self.world.next_deadline.is_none_or(|at| at > self.now) {
            return;
        }
        let mut due = Vec::new();
        let mut next = None;
        for (id, view) in &self.world.nodes {
            let Some(Cordon { purpose: Purpose::Empty { deadline: Some(at) }, .. }) = &view.record.cordon else {
                continue;
            };
            if *at <= self.now {
                due.push(id.clone());
            } else {
                next = Some(next.map_or(*at, |next: model::Timestamp| next.min(*at)));
            }
        }
        self.world.next_deadline = next;
        for node in due {
            for place in self.places_on(&node) {
                if self.attempt(&place).is_some_and(|attempt| !is_draining(attempt)) {
                    let kill_at = self.now.after_ms(self.planned_grace_ms(&place));
                    let why = format!("node `{node}` is being drained");
                    self.requeue(&place, Drain::Moved { kill_at }, &why);
                }
            }
        }
    }

    /// Has an attempt stopped so that its task can run again.
    pub(crate) fn requeue(&mut self, place: &crate::index::Place, drain: Drain, why: &str) {
        let message = format!("{} is stopped, to run again: {why}", self.name(place));
        self.stage_event(place, Kind::AttemptRequeued, Level::Warn, message);
        self.drain(place, drain);
    }
}
