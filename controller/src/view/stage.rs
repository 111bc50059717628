//! Stages, as people see them.

use model::{AttemptId, Body, Job, Stage, TaskId, TaskState, Timestamp};
use planner::{World, phase};
use proto::v1;

use super::{Detail, engine, task};
use crate::assignment::kind_name;
use crate::sessions::Progress;

/// Most tasks shown of one stage: what failed or runs comes first.
const SHOWN: usize = 256;

/// One stage of `job`.
pub(super) fn stage(world: &World, progress: &Progress, job: &Job, stage: &Stage, detail: Detail) -> v1::StageView {
    let count = |wanted: fn(&TaskState) -> bool| {
        u32::try_from(stage.tasks.iter().filter(|task| wanted(&task.state)).count()).unwrap_or(u32::MAX)
    };
    let over = stage.tasks.iter().all(|task| task.state.is_over());
    let ended = stage.tasks.iter().filter_map(|task| task::ended(&task.state)).max();
    let total = totals(progress, job, stage);
    v1::StageView {
        name: stage.name.to_string(),
        kind: kind_name(stage.kind).to_owned(),
        phase: phase::stage(world, job, stage).name().to_owned(),
        reason: planner::stage_reason(world, job, stage).map(|why| why.to_string()).unwrap_or_default(),
        tasks: u32::try_from(stage.tasks.len()).unwrap_or(u32::MAX),
        tasks_done: count(|state| matches!(state, TaskState::Done { .. })),
        tasks_running: count(|state| matches!(state, TaskState::Active(_))),
        started_ms: started(stage).map_or(0, |at| at.0),
        ended_ms: if over { ended.map_or(0, |at| at.0) } else { 0 },
        task_views: if detail == Detail::Full { tasks(world, progress, job, stage) } else { Vec::new() },
        progress: total.0,
        train: total.1,
        reused_from: stage.reused.as_ref().map(ToString::to_string).unwrap_or_default(),
        tokens_per_step: tokens_per_step(stage),
        after: stage.after.iter().filter_map(|at| Some(job.stages.get(*at)?.name.to_string())).collect(),
    }
}

/// Sequence length times global batch size, as the trainer's command line says; 0 = unknown.
fn tokens_per_step(stage: &Stage) -> u64 {
    let train = stage.tasks.iter().find_map(|task| match &task.body {
        Body::Train(train) => Some(train),
        Body::Preflight(_) | Body::Engine(_) | Body::Run { .. } => None,
    });
    // As the script's own parser: the last of several counts.
    let number = |args: &[String], flag: &str| {
        let at = args.iter().rposition(|word| word == flag)?;
        args.get(at + 1)?.parse::<u64>().ok()
    };
    let tokens = train.and_then(|train| {
        number(&train.args, "--seq-length")?.checked_mul(number(&train.args, "--global-batch-size")?)
    });
    tokens.unwrap_or(0)
}

/// When its first attempt was placed.
fn started(stage: &Stage) -> Option<Timestamp> {
    let past = stage.tasks.iter().flat_map(|task| task.history.iter().map(|past| past.placed));
    let active = stage.tasks.iter().filter_map(|task| task::active(&task.state).map(|attempt| attempt.placed));
    past.chain(active).min()
}

fn tasks(world: &World, progress: &Progress, job: &Job, stage: &Stage) -> Vec<v1::TaskView> {
    let mut shown: Vec<usize> = (0..stage.tasks.len()).collect();
    if shown.len() > SHOWN {
        shown.sort_by_key(|at| match stage.tasks[*at].state {
            TaskState::Failed { .. } => 0,
            TaskState::Active(_) => 1,
            TaskState::Done { .. } | TaskState::Cancelled { .. } | TaskState::Waiting { .. } | TaskState::Skipped => 2,
        });
        shown.truncate(SHOWN);
        shown.sort_unstable();
    }
    shown.into_iter().map(|at| task::task(world, progress, job, stage, at)).collect()
}

/// Progress of the stage: engines' work is added up, the trainer's word is the newest.
fn totals(progress: &Progress, job: &Job, stage: &Stage) -> (Option<v1::EngineProgress>, Option<v1::TrainProgress>) {
    let mut words = vec![engine::Word::default(); stage.tasks.len()];
    let mut train: Option<v1::TrainProgress> = None;
    for ((index, task), word) in (0..).zip(&stage.tasks).zip(&mut words) {
        word.closing = task.closing;
        let Some(number) = task::newest(task) else { continue };
        let id = AttemptId { task: TaskId { job: job.id.clone(), stage: stage.name.clone(), index }, number };
        let (engine, trains) = task::progress(progress, task, &id);
        word.active = task::active(&task.state).is_some();
        word.progress = engine;
        if let Some(trains) = trains.filter(|new| train.is_none_or(|known| known.iteration < new.iteration)) {
            train = Some(trains);
        }
    }
    (engine::sum(&words), train)
}
