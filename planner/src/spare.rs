//! Nodes kept for replacements, and slots that are near to each other.

use model::NodeId;
use model::event::{Kind, Level};

use crate::input::{Reply, Write};
use crate::step::Work;

impl Work<'_> {
    /// What runs on the node goes on.
    pub(crate) fn spare(&mut self, node: &NodeId, by: &str, spare: bool) {
        let Some(view) = self.world.nodes.get_mut(node) else { return self.reply(Reply::NoSuchNode) };
        if view.record.is_spare() == spare {
            return self.reply(Reply::NodeUnchanged);
        }
        view.record.spare_word = Some(spare);
        self.out.writes.insert(Write::Node(node.clone()));
        self.reply(Reply::NodeChanged);
        if spare {
            let message = format!("`{by}` keeps node `{node}` as a spare; what runs there goes on");
            self.tell_jobs_on(node, Kind::NodeSpared, Level::Info, message);
            self.recall_all(node);
        }
        self.world.reconsider = true;
    }

    pub(crate) fn groups(&mut self, node: &NodeId, session: u64, groups: &[u32]) {
        if !self.speaks(node, session) {
            return;
        }
        let Some(view) = self.world.nodes.get_mut(node) else { return };
        let whole = u32::try_from(groups.len()).is_ok_and(|count| count == view.record.slots);
        if whole && view.record.groups != groups {
            view.record.groups = groups.to_vec();
            self.out.writes.insert(Write::Node(node.clone()));
        }
    }
}
