//! What a seat is told, built from the world.

use model::{Attempt, AttemptId, Body, Epoch, NodeId, Stage, StageKind, Task, TaskState};
use planner::{Effect, World};
use proto::v1;
use v1::assignment::Body as WireBody;
use v1::controller_message::Kind;

/// The message of an effect and its addressee; `None` if the world has moved on.
pub(crate) fn message(world: &World, epoch: Epoch, effect: &Effect) -> Option<(NodeId, v1::ControllerMessage)> {
    let (node, kind) = match effect {
        Effect::Prepare { node, attempt, seat } => (node, Kind::Prepare(assignment(world, epoch, attempt, *seat)?)),
        Effect::Start { node, attempt, seat } => (node, Kind::Start(assignment(world, epoch, attempt, *seat)?)),
        Effect::Stop { node, attempt, grace_ms } => (
            node,
            Kind::Stop(v1::Stop { epoch: Some(epoch.into()), attempt: attempt.to_string(), grace_ms: *grace_ms }),
        ),
        Effect::Recall { node, attempt } => {
            (node, Kind::Recall(v1::Recall { epoch: Some(epoch.into()), attempt: attempt.to_string() }))
        }
        Effect::Forget { node, attempt } => {
            (node, Kind::Forget(v1::Forget { epoch: Some(epoch.into()), attempt: attempt.to_string() }))
        }
    };
    Some((node.clone(), v1::ControllerMessage { kind: Some(kind) }))
}

fn assignment(world: &World, epoch: Epoch, id: &AttemptId, position: usize) -> Option<v1::Assignment> {
    let job = world.jobs.get(&id.task.job)?;
    let stage = job.stages.iter().find(|stage| stage.name == id.task.stage)?;
    let task = stage.tasks.get(usize::try_from(id.task.index).ok()?)?;
    let TaskState::Active(attempt) = &task.state else { return None };
    let seat = attempt.seats.get(position)?;
    if attempt.number != id.number {
        return None;
    }
    let (master_address, master_port) = master(world, attempt);
    Some(v1::Assignment {
        epoch: Some(epoch.into()),
        attempt: id.to_string(),
        job_name: job.name.to_string(),
        stage_kind: kind_name(stage.kind).to_owned(),
        seat: u32::try_from(position).ok()?,
        first_rank: seat.first_rank,
        ranks: seat.ranks,
        world_size: task.shape.ranks(),
        nodes: u32::try_from(attempt.seats.len()).ok()?,
        slots: seat.slots.clone(),
        master_address,
        master_port,
        runtime: Some((&job.runtime).into()),
        body: Some(body(task, attempt)),
        manifest: if task.closing { manifest(stage) } else { Vec::new() },
        resume_iteration: attempt.resume,
        number: attempt.number,
    })
}

/// Address of seat 0's node, and the port that it offered; 0 before it has.
fn master(world: &World, attempt: &Attempt) -> (String, u32) {
    let Some(first) = attempt.seats.first() else { return (String::new(), 0) };
    let address = world.nodes.get(&first.node).map(|node| node.record.address.clone()).unwrap_or_default();
    (address, u32::from(attempt.port))
}

fn body(task: &Task, attempt: &Attempt) -> WireBody {
    match &task.body {
        Body::Preflight(body) => WireBody::Preflight(body.into()),
        Body::Engine(body) => WireBody::Engine(body.into()),
        Body::Run { argv } => WireBody::Run(v1::RunBody { argv: argv.clone() }),
        Body::Train(body) => WireBody::Train(v1::TrainBody::of_start(body, start_args(body, attempt.resume))),
    }
}

/// Arguments of this start: the resume's with the iteration, where it resumes
/// and the job says how.
fn start_args(body: &model::TrainBody, resume: Option<u64>) -> Vec<String> {
    match resume {
        Some(iteration) if !body.resume_args.is_empty() => {
            let step = ["--ckpt-step".to_owned(), iteration.to_string()];
            body.resume_args.iter().cloned().chain(step).collect()
        }
        Some(_) | None => body.args.clone(),
    }
}

/// Outputs of the stage's other tasks.
fn manifest(stage: &Stage) -> Vec<v1::ManifestEntry> {
    let tasks = stage.tasks.iter().filter(|task| !task.closing).enumerate();
    let done = tasks.filter_map(|(index, task)| match &task.state {
        TaskState::Done { output, .. } => Some((index, task, output)),
        TaskState::Waiting { .. }
        | TaskState::Active(_)
        | TaskState::Failed { .. }
        | TaskState::Cancelled { .. }
        | TaskState::Skipped => None,
    });
    done.map(|(index, task, output)| v1::ManifestEntry { task: part(index, &task.body), path: output.path.clone() })
        .collect()
}

/// How a closing task's manifest names a part: a shard of weights by its
/// `TP,PP`, anything else by its position.
fn part(index: usize, body: &Body) -> String {
    let shard = match body {
        Body::Engine(engine) => {
            engine.args.iter().skip_while(|word| *word != "--only-shard").nth(1).map(String::as_str)
        }
        Body::Preflight(_) | Body::Run { .. } | Body::Train(_) => None,
    };
    shard.map_or_else(|| index.to_string(), str::to_owned)
}

/// The stable name of a kind of stage.
pub(crate) fn kind_name(kind: StageKind) -> &'static str {
    match kind {
        StageKind::Preflight => "preflight",
        StageKind::Convert => "convert",
        StageKind::Preprocess => "preprocess",
        StageKind::Train => "train",
        StageKind::Export => "export",
        StageKind::Run => "run",
    }
}
