//! A job comes in.

use model::event::{Kind, Level};
use model::{Job, StageName};

use crate::input::{Reply, Write};
use crate::step::Work;

impl Work<'_> {
    pub(crate) fn submit(&mut self, job: &Job) {
        if let Some(reply) = self.known(job) {
            return self.reply(reply);
        }
        let mut job = job.clone();
        job.submitted = self.now;
        job.last_event = 0;
        let id = job.id.clone();
        let reused: Vec<(StageName, String)> = job
            .stages
            .iter()
            .filter_map(|stage| stage.reused.as_ref().map(|from| (stage.name.clone(), from.to_string())))
            .collect();
        let sentence = format!("`{}` was submitted by `{}`", job.name, job.owner);
        for (stage, tasks) in job.stages.iter().enumerate() {
            let chunks = u32::try_from(tasks.tasks.len().div_ceil(64)).unwrap_or(u32::MAX);
            let writes = (0..chunks).map(|chunk| Write::Tasks { job: id.clone(), stage, chunk });
            self.out.writes.extend(writes);
        }
        self.out.writes.insert(Write::Plan(id.clone()));
        self.world.restore_job(job);
        self.event(&id, Kind::Submitted, Level::Info, sentence);
        for (stage, from) in reused {
            let message = format!("stage `{stage}` is taken over from job {from}, which made the same");
            if let Some(event) = self.event(&id, Kind::StageReused, Level::Info, message) {
                event.stage = Some(stage);
            }
        }
        self.reply(Reply::Accepted(id.clone()));
        self.finish_job(&id);
        self.world.reconsider = true;
    }

    /// The answer for a job that is known already, or whose name is taken.
    fn known(&self, job: &Job) -> Option<Reply> {
        let index = &self.world.index;
        if let Some(key) = &job.idempotency_key
            && let Some(id) = index.keys.get(&(job.owner.clone(), key.clone()))
        {
            return Some(Reply::Accepted(id.clone()));
        }
        if self.world.jobs.contains_key(&job.id) {
            return Some(Reply::Accepted(job.id.clone()));
        }
        index.names.get(&job.name).map(|holder| Reply::NameInUse { holder: holder.clone() })
    }
}
