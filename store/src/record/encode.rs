//! Model to record.

use std::collections::BTreeMap;

use model::{
    Attempt, AttemptState, AttemptSummary, Body, Cause, Checkpoint, Cordon, DeviceKind, Drain, Event, Failure, Job,
    Labels, Launcher, Node, Outcome, Output, Purpose, Restart, Runtime, Seat, SeatState, Stage, StageKind, Task,
    TaskState, Tool,
};
use prost::Message as _;

use super::{CHUNK, wire};

/// Key and value of a node's record.
#[must_use]
pub fn node(node: &Node) -> (String, Vec<u8>) {
    let record = wire::Node {
        id: node.id.to_string(),
        boot_id: node.boot_id.clone(),
        hostname: node.hostname.clone(),
        address: node.address.clone(),
        version: node.version.clone(),
        device: device(node.device),
        slots: node.slots,
        labels: labels(&node.labels),
        groups: node.groups.clone(),
        spare: node.spare,
        spare_word: node.spare_word,
        cpus: node.cpus,
        memory: node.memory,
        joined: node.joined.0,
        cordon: node.cordon.as_ref().map(cordon),
        fence: node.fence.as_ref().map(|fence| wire::Fence {
            by: fence.by.clone(),
            reason: fence.reason.clone(),
            at: fence.at.0,
        }),
    };
    (format!("nodes/{}", node.id), record.encode_to_vec())
}

/// Key and value of a job's plan: all that never changes after its submission.
#[must_use]
pub fn job_plan(job: &Job) -> (String, Vec<u8>) {
    let record = wire::Job {
        id: job.id.to_string(),
        name: job.name.to_string(),
        owner: job.owner.clone(),
        priority: job.priority,
        submitted: job.submitted.0,
        idempotency_key: job.idempotency_key.clone(),
        spec_text: job.spec_text.clone(),
        runtime: Some(runtime(&job.runtime)),
        placement: Some(wire::Placement { labels: labels(&job.placement.labels) }),
        stages: job.stages.iter().map(stage).collect(),
    };
    (super::job_prefix(&job.id), record.encode_to_vec())
}

/// Key and value of a job's head: its end, its cancellation and the number of
/// its newest event.
#[must_use]
pub fn job_head(job: &Job) -> (String, Vec<u8>) {
    let record = wire::Head {
        ended: job.ended.map(|at| at.0),
        cancel: job.cancel.as_ref().map(|c| wire::Cancel {
            by: c.by.clone(),
            reason: c.reason.clone(),
            at: c.at.0,
            grace_ms: c.grace_ms,
        }),
        last_event: job.last_event,
        restarts: job.restarts.iter().map(restart).collect(),
    };
    (format!("{}/head", super::job_prefix(&job.id)), record.encode_to_vec())
}

fn restart(restart: &Restart) -> wire::Restart {
    wire::Restart { by: restart.by.clone(), reason: restart.reason.clone(), at: restart.at.0, key: restart.key.clone() }
}

/// Key and value of one chunk of a stage's task states; empty beyond its tasks.
#[must_use]
pub fn tasks(job: &Job, stage: usize, chunk: u32) -> (String, Vec<u8>) {
    let all = job.stages.get(stage).map_or(&[][..], |s| s.tasks.as_slice());
    let from = (chunk as usize).saturating_mul(CHUNK as usize).min(all.len());
    let to = from.saturating_add(CHUNK as usize).min(all.len());
    let record = wire::Chunk { states: all[from..to].iter().map(state).collect() };
    (format!("{}/tasks/{stage:04}/{chunk:06}", super::job_prefix(&job.id)), record.encode_to_vec())
}

/// Key and value of a stage's checkpoints.
#[must_use]
pub fn checkpoints(job: &Job, stage: usize) -> (String, Vec<u8>) {
    let list = job.stages.get(stage).map(|s| s.checkpoints.iter().map(|(i, c)| checkpoint(*i, c)).collect());
    let record = wire::Checkpoints { checkpoints: list.unwrap_or_default() };
    (format!("{}/checkpoints/{stage:04}", super::job_prefix(&job.id)), record.encode_to_vec())
}

/// Key and value of an event.
#[must_use]
pub fn event(event: &Event) -> (String, Vec<u8>) {
    let record = wire::Event {
        job: event.job.to_string(),
        seq: event.seq,
        at: event.at.0,
        level: match event.level {
            model::event::Level::Info => wire::Level::Info,
            model::event::Level::Warn => wire::Level::Warn,
            model::event::Level::Error => wire::Level::Error,
        } as i32,
        kind: event.kind.name().to_owned(),
        stage: event.stage.as_ref().map(ToString::to_string),
        node: event.node.as_ref().map(ToString::to_string),
        rank: event.rank,
        message: event.message.clone(),
        evidence: event.evidence.clone(),
    };
    (format!("events/{}/{:012}", event.job, event.seq), record.encode_to_vec())
}

fn labels(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn cordon(cordon: &Cordon) -> wire::Cordon {
    let (empty, deadline) = match cordon.purpose {
        Purpose::Keep => (false, None),
        Purpose::Empty { deadline } => (true, deadline.map(|at| at.0)),
    };
    wire::Cordon { by: cordon.by.clone(), reason: cordon.reason.clone(), at: cordon.at.0, empty, deadline }
}

fn device(kind: DeviceKind) -> i32 {
    match kind {
        DeviceKind::Ascend => wire::Device::Ascend as i32,
        DeviceKind::Cpu => wire::Device::Cpu as i32,
    }
}

fn runtime(runtime: &Runtime) -> wire::Runtime {
    wire::Runtime {
        workdir: runtime.workdir.clone(),
        python: runtime.python.clone(),
        source: runtime.source.clone(),
        env: runtime.env.clone(),
        mindspeed_root: runtime.mindspeed_root.clone(),
        device: device(runtime.device),
        shared_storage: runtime.shared_storage,
    }
}

fn stage(stage: &Stage) -> wire::Stage {
    wire::Stage {
        name: stage.name.to_string(),
        kind: match stage.kind {
            StageKind::Preflight => wire::StageKind::Preflight,
            StageKind::Convert => wire::StageKind::Convert,
            StageKind::Preprocess => wire::StageKind::Preprocess,
            StageKind::Train => wire::StageKind::Train,
            StageKind::Export => wire::StageKind::Export,
            StageKind::Run => wire::StageKind::Run,
        } as i32,
        after: stage.after.iter().map(|a| u32::try_from(*a).unwrap_or(u32::MAX)).collect(),
        digest: stage.digest.map(|d| d.to_vec()),
        reused: stage.reused.as_ref().map(ToString::to_string),
        tasks: stage.tasks.iter().map(task).collect(),
    }
}

fn task(task: &Task) -> wire::Task {
    wire::Task {
        label: task.label.clone(),
        closing: task.closing,
        nodes: task.shape.nodes,
        ranks_per_node: task.shape.ranks_per_node,
        slots_per_rank: task.shape.slots_per_rank,
        pinned: task.shape.pinned.as_ref().map(ToString::to_string),
        retries: task.retries.max,
        limit_ms: task.limit_ms,
        retry_window_ms: Some(task.retries.window_ms),
        retry_backoff_ms: Some(task.retries.backoff_ms),
        body: Some(body(&task.body)),
    }
}

fn body(body: &Body) -> wire::Body {
    match body {
        Body::Preflight(b) => wire::Body::Preflight(wire::Preflight {
            require: b.require.clone(),
            readable: b.readable.clone(),
            writable: b.writable.clone(),
            free_bytes: b.free_bytes,
            train_script: b.train_script.clone(),
            needs_mindspore: b.needs_mindspore,
        }),
        Body::Engine(b) => wire::Body::Engine(wire::Engine {
            tool: match b.tool {
                Tool::Convert => wire::Tool::Convert,
                Tool::Tokenize => wire::Tool::Tokenize,
            } as i32,
            args: b.args.clone(),
            out: b.out.as_ref().map(|(f, p)| wire::Pair { first: f.clone(), second: p.clone() }),
            manifest: b.manifest,
        }),
        Body::Run { argv } => wire::Body::Run(wire::Run { argv: argv.clone() }),
        Body::Train(b) => wire::Body::Train(wire::Train {
            msrun: b.launcher == Launcher::Msrun,
            script: b.script.clone(),
            args: b.args.clone(),
            resume_args: b.resume_args.clone(),
            scheduler: b.scheduler.clone(),
            tp: b.parallel.tp(),
            pp: b.parallel.pp(),
            save_dir: b.save_dir.clone(),
            train_iters: b.train_iters,
            vocab_size: b.vocab_size,
            grace_ms: b.grace_ms,
        }),
    }
}

fn state(task: &Task) -> wire::State {
    let standing = match &task.state {
        TaskState::Waiting { not_before } => {
            wire::Standing::Waiting(wire::Waiting { not_before: not_before.map(|at| at.0) })
        }
        TaskState::Active(a) => wire::Standing::Active(attempt(a)),
        TaskState::Done { attempt, at, output: out } => {
            wire::Standing::Done(wire::Done { attempt: *attempt, at: at.0, output: Some(output(out)) })
        }
        TaskState::Failed { failure: f, at } => {
            wire::Standing::Failed(wire::Failed { failure: Some(failure(f)), at: at.0 })
        }
        TaskState::Cancelled { at } => wire::Standing::Cancelled(at.0),
        TaskState::Skipped => wire::Standing::Skipped(true),
    };
    let history = task.history.iter().map(summary).collect();
    wire::State { history, standing: Some(standing), dropped: task.history.dropped() }
}

fn attempt(attempt: &Attempt) -> wire::Attempt {
    wire::Attempt {
        number: attempt.number,
        placed: attempt.placed.0,
        phase: match attempt.state {
            AttemptState::Preparing => wire::Phase::Preparing,
            AttemptState::Running => wire::Phase::Running,
            AttemptState::Draining(Drain::Failed) => wire::Phase::DrainingFailed,
            AttemptState::Draining(Drain::Cancelled) => wire::Phase::DrainingCancelled,
            AttemptState::Draining(Drain::NodeLost) => wire::Phase::DrainingNodeLost,
            AttemptState::Draining(Drain::Moved { .. }) => wire::Phase::DrainingMoved,
            AttemptState::Draining(Drain::Restarted { .. }) => wire::Phase::DrainingRestarted,
        } as i32,
        seats: attempt.seats.iter().map(seat).collect(),
        resume: attempt.resume,
        first_failure: attempt.first_failure.as_ref().map(failure),
        port: u32::from(attempt.port),
        kill_at: match attempt.state {
            AttemptState::Draining(Drain::Moved { kill_at } | Drain::Restarted { kill_at }) => kill_at.0,
            AttemptState::Preparing
            | AttemptState::Running
            | AttemptState::Draining(Drain::Failed | Drain::Cancelled | Drain::NodeLost) => 0,
        },
    }
}

fn seat(seat: &Seat) -> wire::Seat {
    wire::Seat {
        node: seat.node.to_string(),
        first_rank: seat.first_rank,
        ranks: seat.ranks,
        slots: seat.slots.clone(),
        phase: Some(match &seat.state {
            SeatState::Assigned => wire::SeatPhase::Assigned(true),
            SeatState::Prepared { port } => wire::SeatPhase::Prepared(u32::from(*port)),
            SeatState::Running => wire::SeatPhase::Running(true),
            SeatState::Ended(end) => {
                wire::SeatPhase::Ended(wire::SeatEnd { ok: end.ok, output: Some(output(&end.output)) })
            }
            SeatState::GivenUp => wire::SeatPhase::GivenUp(true),
        }),
    }
}

fn output(output: &Output) -> wire::Output {
    let file = |f: &model::FileRecord| wire::File { path: f.path.clone(), size: f.size, digest: f.digest.clone() };
    wire::Output {
        path: output.path.clone(),
        files: output.files.iter().map(file).collect(),
        summary: output.summary.clone(),
    }
}

fn summary(summary: &AttemptSummary) -> wire::Summary {
    wire::Summary {
        number: summary.number,
        placed: summary.placed.0,
        ended: summary.ended.0,
        nodes: summary.nodes.iter().map(ToString::to_string).collect(),
        outcome: Some(match &summary.outcome {
            Outcome::Succeeded => wire::Outcome::Succeeded(true),
            Outcome::Failed(f) => wire::Outcome::Failed(failure(f)),
            Outcome::Cancelled => wire::Outcome::Cancelled(true),
            Outcome::Requeued => wire::Outcome::Requeued(true),
        }),
    }
}

fn failure(failure: &Failure) -> wire::Failure {
    let (cause, code) = match failure.cause {
        Cause::Exit(code) => (wire::CauseKind::Exit, code),
        Cause::Signal(signal) => (wire::CauseKind::Signal, signal),
        Cause::Refused => (wire::CauseKind::Refused, 0),
        Cause::NodeLost => (wire::CauseKind::NodeLost, 0),
        Cause::Hang => (wire::CauseKind::Hang, 0),
        Cause::Overrun => (wire::CauseKind::Overrun, 0),
    };
    wire::Failure {
        node: failure.node.to_string(),
        rank: failure.rank,
        cause: cause as i32,
        code,
        at: failure.at.0,
        message: failure.message.clone(),
        hint: failure.hint.clone(),
        evidence: failure.evidence.clone(),
    }
}

fn checkpoint(iteration: u64, checkpoint: &Checkpoint) -> wire::Checkpoint {
    let shards = checkpoint.shards.iter().map(|((tp, pp), s)| wire::Shard {
        tp: *tp,
        pp: *pp,
        node: s.node.to_string(),
        path: s.path.clone(),
        size: s.size,
    });
    wire::Checkpoint {
        iteration,
        shards: shards.collect(),
        tracked: checkpoint.tracked,
        complete: checkpoint.complete.map(|at| at.0),
        superseded: checkpoint.superseded,
        pinned: checkpoint.pinned,
        broken: checkpoint.broken,
        removing: checkpoint.removing,
    }
}
