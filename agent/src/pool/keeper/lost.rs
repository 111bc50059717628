//! Tasks whose shim was killed, and ends that no shim has seen.

use std::time::Instant;

use model::AttemptId;

use super::Keeper;
use crate::pool::attempt::Stage;
use crate::pool::orphans::{self, Fate, Orphan};
use crate::shim::pool::Order;
use crate::shim::record::{Exit, ProcId};

impl Keeper {
    /// What was begun before is no child of the new shim.
    pub(super) fn disown(&mut self) {
        let begun = self.attempts.iter().filter(|(_, a)| matches!(a.stage, Stage::Begun | Stage::Running { .. }));
        let begun: Vec<AttemptId> = begun.map(|(id, _)| id.clone()).collect();
        for id in begun {
            self.orphans.entry(id).or_default();
        }
    }

    /// Does the work of a shim that was killed, for those that it had begun.
    pub(super) async fn tend_orphans(&mut self) {
        let orphans = self.orphans.keys().filter_map(|id| Some((id, self.attempts.get(id)?)));
        let begun = orphans.filter_map(|(id, attempt)| match attempt.stage {
            Stage::Begun => Some((id.clone(), None, attempt.stop)),
            Stage::Running { id: root, .. } => Some((id.clone(), Some(root), attempt.stop)),
            Stage::Ordered | Stage::Over(_) | Stage::Returned | Stage::Refused(_) => None,
        });
        for (id, root, stop) in begun.collect::<Vec<_>>() {
            let mut orphan = self.orphans.get(&id).copied().unwrap_or_default();
            let (dir, name) = (self.place.path().to_owned(), id.to_string());
            let tended = tokio::task::spawn_blocking(move || {
                let fate = orphan.tend(&dir, &name, root, stop);
                (orphan, fate)
            });
            let Ok((orphan, fate)) = tended.await else { continue };
            match fate {
                Fate::Runs(root) => self.adopt_orphan(&id, orphan, root),
                Fate::Gone => {
                    tracing::warn!(attempt = %id, "a task ended whose shim was killed");
                    let stopping = self.attempts.get(&id).is_some_and(|attempt| attempt.stop.is_some());
                    self.lose(&id, Exit { stopping, ..Exit::at_present() });
                }
            }
        }
    }

    fn adopt_orphan(&mut self, id: &AttemptId, orphan: Orphan, root: ProcId) {
        self.orphans.insert(id.clone(), orphan);
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let found = orphans::log_of(self.place.path(), root.pid);
        let (since, given) = match attempt.stage {
            Stage::Running { since, given, .. } => (since, given),
            Stage::Ordered | Stage::Begun | Stage::Over(_) | Stage::Returned | Stage::Refused(_) => {
                (Instant::now(), found)
            }
        };
        attempt.stage = Stage::Running { id: root, since, given };
        // Its log is its own from here on: no shim will give it to another.
        if attempt.log.is_none()
            && let Some(log) = given
        {
            attempt.log = Some(log);
            self.push_log(id, log);
        }
    }

    /// Notes the end of what no shim has seen the end of.
    pub(super) fn lose(&mut self, id: &AttemptId, exit: Exit) {
        let lost = Order::Lost { attempt: id.to_string(), exit: exit.clone() };
        if !self.stage(&lost) {
            return;
        }
        if let Err(error) = self.orders.commit() {
            self.orders.discard();
            tracing::error!(attempt = %id, %error, "an end cannot be noted; trying again");
            return;
        }
        let given = self.attempts.get(id).and_then(|attempt| match attempt.stage {
            Stage::Running { given, .. } => given,
            Stage::Ordered | Stage::Begun | Stage::Over(_) | Stage::Returned | Stage::Refused(_) => None,
        });
        if let Some(id) = self.note_end(&id.to_string(), exit, given) {
            self.say_ended(&id);
        }
    }
}
