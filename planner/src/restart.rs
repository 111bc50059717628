//! An ended job goes on, or a stage begins again.

use std::collections::BTreeSet;

use model::event::{Kind, Level};
use model::{Attempt, AttemptState, Body, Drain, Job, JobId, Restart as Remembered, Stage, StageName, TaskState};

use crate::Mutation;
use crate::checkpoint::complete_iterations;
use crate::index::Place;
use crate::input::{Reply, Restart, RestartRefusal, Write};
use crate::phase;
use crate::step::Work;
use crate::text;
use crate::world::World;

/// What a restart does to one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Again {
    stage: usize,
    /// Tasks that are done begin again too.
    whole: bool,
    /// A training goes back to its first iteration: what it starts from changes.
    afresh: bool,
}

impl Work<'_> {
    /// Stages that succeeded stay, unless the request names them or one before
    /// them; attempts are counted on, and the history is kept.
    pub(crate) fn restart(&mut self, wish: &Restart) {
        let Some(job) = self.world.jobs.get(&wish.job) else { return self.reply(Reply::NoSuchJob) };
        let repeats = |past: &Remembered| past.key.is_some() && past.key == wish.key && past.by == wish.by;
        if job.restarts.iter().any(repeats) {
            return self.reply(Reply::RestartedBefore);
        }
        let stages = match plan(self.world, job, wish) {
            Ok(stages) => stages,
            Err(refusal) => return self.reply(Reply::RestartRefused(refusal)),
        };
        if stages.is_empty() {
            return self.reply(Reply::NothingToRestart);
        }
        if let Some(holder) = self.world.index.names.get(&job.name).filter(|holder| **holder != job.id) {
            return self.reply(Reply::NameInUse { holder: holder.clone() });
        }
        let names: Vec<StageName> =
            stages.iter().filter_map(|again| Some(job.stages.get(again.stage)?.name.clone())).collect();
        self.revive(&wish.job, wish, &names);
        for again in &stages {
            self.begin_again(&wish.job, *again, wish);
        }
        self.reply(Reply::Restarted(names));
        self.world.reconsider = true;
    }

    fn revive(&mut self, id: &JobId, wish: &Restart, stages: &[StageName]) {
        let now = self.now;
        let World { jobs, index, .. } = &mut *self.world;
        let Some(job) = jobs.get_mut(id) else { return };
        if job.ended.take().is_some() {
            index.begin_job(job);
        }
        job.cancel = None;
        let reason = text::cut(&wish.reason);
        let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        job.restarts.push(Remembered { by: wish.by.clone(), reason, at: now, key: wish.key.clone() });
        let excess = job.restarts.len().saturating_sub(Remembered::KEPT);
        job.restarts.drain(..excess);
        self.out.writes.insert(Write::Job(id.clone()));
        let names: Vec<String> = stages.iter().map(|name| format!("`{name}`")).collect();
        let from = wish.from_checkpoint.map(|at| format!(" from iteration {at}")).unwrap_or_default();
        let message = format!("`{}` restarted the job with {}{from}{because}", wish.by, text::join(&names));
        self.event(id, Kind::Restarted, Level::Info, message);
    }

    fn begin_again(&mut self, id: &JobId, again: Again, wish: &Restart) {
        let Some(stage) = self.world.jobs.get_mut(id).and_then(|job| job.stages.get_mut(again.stage)) else { return };
        let tasks: Vec<u32> = (0..).take(stage.tasks.len()).collect();
        let reused = stage.reused.take().is_some();
        let trains = stage.tasks.iter().any(|task| matches!(task.body, Body::Train(_)));
        let keep = if again.afresh { 0 } else { wish.from_checkpoint.filter(|_| trains).unwrap_or(u64::MAX) };
        let mut changed = false;
        for (_, checkpoint) in stage.checkpoints.range_mut(..).filter(|(at, _)| **at > keep) {
            changed |= !checkpoint.superseded || checkpoint.broken;
            checkpoint.superseded = true;
            // Being read and found whole makes it no newer.
            checkpoint.broken = false;
        }
        if changed {
            self.out.writes.insert(Write::Checkpoints { job: id.clone(), stage: again.stage });
        }
        if reused {
            self.out.writes.insert(Write::Plan(id.clone()));
        }
        for task in tasks {
            let place = Place { job: id.clone(), stage: again.stage, task };
            let Some(state) = self.task(&place).map(|task| &task.state) else { continue };
            match state {
                TaskState::Active(_) => {
                    let kill_at = self.now.after_ms(wish.grace_ms);
                    self.requeue(&place, Drain::Restarted { kill_at }, &format!("`{}` asked for it", wish.by));
                }
                TaskState::Done { .. } if !again.whole => {}
                TaskState::Waiting { not_before: None } => {}
                TaskState::Done { .. }
                | TaskState::Waiting { not_before: Some(_) }
                | TaskState::Failed { .. }
                | TaskState::Cancelled { .. }
                | TaskState::Skipped => {
                    let forget = self.world.broken(Mutation::RestartForgetsHistory);
                    self.edit(&place, |task| {
                        task.state = TaskState::Waiting { not_before: None };
                        if forget {
                            task.history = model::History::default();
                        }
                    });
                }
            }
        }
    }
}

/// Which stages begin again.
fn plan(world: &World, job: &Job, wish: &Restart) -> Result<Vec<Again>, RestartRefusal> {
    let failed = world.index.tallies(&job.id).iter().any(|tally| tally.failed > 0);
    if job.ended.is_none() {
        if job.cancel.is_some() || failed {
            return Err(RestartRefusal::Ending);
        }
        if !wish.stop_running {
            return Err(RestartRefusal::Running);
        }
    }
    let named = match &wish.from_stage {
        Some(name) => {
            let found = job.stages.iter().position(|stage| stage.name == *name);
            Some(found.ok_or(RestartRefusal::NoSuchStage)?)
        }
        None => None,
    };
    let mut behind: BTreeSet<usize> = named.into_iter().collect();
    let mut stages = Vec::new();
    for (at, stage) in job.stages.iter().enumerate() {
        if stage.after.iter().any(|before| behind.contains(before)) {
            behind.insert(at);
        }
        let succeeded = phase::succeeded(world, job, at);
        let inside = behind.contains(&at);
        if !inside && succeeded {
            continue;
        }
        // The inputs of what comes behind the named stage change; a named stage that
        // succeeded has nothing left to go on with.
        let afresh = inside && (named != Some(at) || succeeded) && wish.from_checkpoint.is_none();
        stages.push(Again { stage: at, whole: inside, afresh });
    }
    // What fails or falls silent is let come to its end first.
    let ends = |attempt: &Attempt| match attempt.state {
        AttemptState::Draining(Drain::Failed | Drain::Cancelled | Drain::NodeLost) => true,
        AttemptState::Preparing
        | AttemptState::Running
        | AttemptState::Draining(Drain::Moved { .. } | Drain::Restarted { .. }) => false,
    };
    let tasks = stages.iter().filter_map(|again| job.stages.get(again.stage)).flat_map(|stage| &stage.tasks);
    if tasks.filter_map(|task| task.state.attempt()).any(ends) {
        return Err(RestartRefusal::Ending);
    }
    if let Some(iteration) = wish.from_checkpoint {
        goes_back(job, &stages, named, iteration)?;
    }
    Ok(stages)
}

/// Checks that one training stage begins again and can do so at `iteration`.
fn goes_back(job: &Job, stages: &[Again], named: Option<usize>, iteration: u64) -> Result<(), RestartRefusal> {
    let trains = |stage: &&Stage| stage.tasks.iter().any(|task| matches!(task.body, Body::Train(_)));
    let wanted: Vec<&Stage> = stages
        .iter()
        .filter(|again| named.is_none_or(|named| named == again.stage))
        .filter_map(|again| job.stages.get(again.stage))
        .filter(trains)
        .collect();
    let [stage] = wanted.as_slice() else { return Err(RestartRefusal::NoTraining) };
    let resumes = stage.tasks.iter().any(|task| match &task.body {
        Body::Train(train) => !train.resume_args.is_empty(),
        Body::Preflight(_) | Body::Engine(_) | Body::Run { .. } => false,
    });
    if !resumes {
        return Err(RestartRefusal::NeverResumes { stage: stage.name.clone() });
    }
    let complete: Vec<u64> = complete_iterations(stage).collect();
    if complete.contains(&iteration) {
        return Ok(());
    }
    Err(RestartRefusal::NoSuchCheckpoint { stage: stage.name.clone(), complete })
}
