//! Operators say that a silent host does not run any more.

use model::event::{Kind, Level};
use model::{AttemptId, Fence, Liveness, NodeId};

use crate::Mutation;
use crate::input::{Reply, Write};
use crate::step::Work;
use crate::text;

impl Work<'_> {
    /// Gives up every seat on a silent node at once, without the margin for a
    /// save in flight: the operator answers for it that nothing runs there.
    ///
    /// A node that speaks is not fenced, whoever asks: its agent can stop what
    /// runs there and say so, and until it has, a second attempt would write
    /// beside the first.
    pub(crate) fn fence_node(&mut self, node: &NodeId, by: &str, reason: &str) {
        let (now, lax) = (self.now, self.world.broken(Mutation::FenceWhatSpeaks));
        let Some(view) = self.world.nodes.get_mut(node) else { return self.reply(Reply::NoSuchNode) };
        if view.record.fence.is_some() {
            return self.reply(Reply::NodeUnchanged);
        }
        match view.liveness {
            Liveness::Suspect | Liveness::Lost => {}
            Liveness::Unheard | Liveness::Ready if lax => {}
            liveness @ (Liveness::Unheard | Liveness::Ready) => {
                let silent_ms = now.since(view.last_heard);
                return self.reply(Reply::NotSilent { heard: liveness == Liveness::Ready, silent_ms });
            }
        }
        let reason = text::cut(reason);
        view.liveness = Liveness::Lost;
        view.record.fence = Some(Fence { by: by.to_owned(), reason: reason.clone(), at: now });
        self.out.writes.insert(Write::Node(node.clone()));
        self.reply(Reply::NodeChanged);
        let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let message = format!("`{by}` fenced node `{node}`, which does not run any more{because}");
        self.tell_jobs_on(node, Kind::NodeFenced, Level::Warn, message);
        for place in self.places_on(node) {
            let failure = text::lost(node, now, &format!("`{by}` fenced the node{because}"), "");
            self.give_up(&place, node, failure);
        }
        self.world.reconsider = true;
    }

    /// A fenced host that is back under its old boot id never stopped: what it
    /// still runs is stopped now, and the jobs are told.
    pub(crate) fn tell_undead(&mut self, node: &NodeId) {
        let Some(view) = self.world.nodes.get(node).filter(|view| view.record.fence.is_some()) else { return };
        let left: Vec<AttemptId> = view.leftover.iter().cloned().collect();
        for id in left {
            let message = format!(
                "node `{node}` was fenced, but is back and still runs attempt {} of `{}`, which is stopped now: \
                 it may have written beside its successor",
                id.number, id.task.stage
            );
            if let Some(event) = self.event(&id.task.job, Kind::Warning, Level::Warn, message) {
                event.stage = Some(id.task.stage.clone());
                event.node = Some(node.clone());
            }
        }
    }
}
