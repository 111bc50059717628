//! Record to model. A record that breaks a rule of the model is damage.

use std::collections::BTreeMap;

use model::{
    Attempt, AttemptState, AttemptSummary, Body, Cancel, Cause, Checkpoint, Cordon, DeviceKind, Drain, EngineBody,
    Event, Failure, Fence, FileRecord, History, Job, JobId, JobName, Labels, Launcher, Node, NodeId, Outcome, Output,
    Parallel, Placement, PreflightBody, Purpose, Restart, Retries, Runtime, Seat, SeatEnd, SeatState, ShardRecord,
    Stage, StageKind, StageName, Task, TaskShape, TaskState, Timestamp, Tool, TrainBody,
};
use prost::Message;

use super::{CHUNK, wire};
use crate::{Error, Kind};

type Entries = [(String, Vec<u8>)];

/// Reads the entries below `nodes/`.
///
/// # Errors
///
/// [`Kind::Corrupt`] naming the first record that cannot be read.
pub fn load_nodes(entries: &Entries) -> Result<Vec<Node>, Error> {
    entries.iter().map(|(key, value)| parse::<wire::Node>(key, value).and_then(|r| node(r).at(key))).collect()
}

/// Reads the entries below `jobs/`: plans, then what changes of them.
///
/// # Errors
///
/// [`Kind::Corrupt`] naming the first record that cannot be read, or that
/// belongs to no plan.
pub fn load_jobs(entries: &Entries) -> Result<Vec<Job>, Error> {
    let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
    for (key, value) in entries {
        let parts: Vec<&str> = key.split('/').collect();
        match parts.as_slice() {
            ["jobs", id] => {
                let plan = parse::<wire::Job>(key, value).and_then(|r| job(r).at(key))?;
                jobs.insert((*id).to_owned(), plan);
            }
            ["jobs", id, "head"] => {
                let job = planned(&mut jobs, id).at(key)?;
                let head = parse::<wire::Head>(key, value)?;
                job.ended = head.ended.map(Timestamp);
                job.cancel = head.cancel.map(cancel);
                job.last_event = head.last_event;
                job.restarts = head.restarts.into_iter().map(restart).collect();
            }
            ["jobs", id, "tasks", stage, chunk] => {
                let stage = find(&mut jobs, id, stage).at(key)?;
                let chunk: u32 = chunk.parse().map_err(|_| Damage("its chunk is no number")).at(key)?;
                let record = parse::<wire::Chunk>(key, value)?;
                let from = chunk as usize * CHUNK as usize;
                for (offset, state) in record.states.into_iter().enumerate() {
                    let task = stage.tasks.get_mut(from + offset).ok_or(Damage("it has too many states")).at(key)?;
                    (task.history, task.state) = task_state(state).at(key)?;
                }
            }
            ["jobs", id, "checkpoints", stage] => {
                let stage = find(&mut jobs, id, stage).at(key)?;
                let record = parse::<wire::Checkpoints>(key, value)?;
                let list: Result<_, Damage> =
                    record.checkpoints.into_iter().map(|c| Ok((c.iteration, checkpoint(c)?))).collect();
                stage.checkpoints = list.at(key)?;
            }
            _ => return Err(Damage("its key is unknown")).at(key),
        }
    }
    Ok(jobs.into_values().collect())
}

/// Reads entries below `events/`, in key order.
///
/// # Errors
///
/// [`Kind::Corrupt`] naming the first record that cannot be read.
pub fn load_events(entries: &Entries) -> Result<Vec<Event>, Error> {
    entries.iter().map(|(key, value)| parse::<wire::Event>(key, value).and_then(|r| event(r).at(key))).collect()
}

/// What is wrong with a record.
struct Damage(&'static str);

trait At<T> {
    fn at(self, key: &str) -> Result<T, Error>;
}

impl<T> At<T> for Result<T, Damage> {
    fn at(self, key: &str) -> Result<T, Error> {
        self.map_err(|Damage(what)| {
            Error::new(Kind::Corrupt, format!("the record `{key}` is damaged: {what}"))
                .hinted("restore a backup of the store")
        })
    }
}

pub(super) fn parse<M: Message + Default>(key: &str, value: &[u8]) -> Result<M, Error> {
    M::decode(value).map_err(|_| Damage("it cannot be parsed")).at(key)
}

fn planned<'j>(jobs: &'j mut BTreeMap<String, Job>, id: &str) -> Result<&'j mut Job, Damage> {
    // A plan sorts before what changes of it, so a missing one is damage.
    jobs.get_mut(id).ok_or(Damage("its job has no plan"))
}

fn find<'j>(jobs: &'j mut BTreeMap<String, Job>, id: &str, stage: &str) -> Result<&'j mut Stage, Damage> {
    let job = planned(jobs, id)?;
    let stage: usize = stage.parse().map_err(|_| Damage("its stage is no number"))?;
    job.stages.get_mut(stage).ok_or(Damage("its job has no such stage"))
}

fn node_id(text: String) -> Result<NodeId, Damage> {
    NodeId::new(text).map_err(|_| Damage("a node id is malformed"))
}

fn labels(labels: BTreeMap<String, String>) -> Result<Labels, Damage> {
    Labels::new(labels).map_err(|_| Damage("a label is malformed"))
}

fn job_id(text: String) -> Result<JobId, Damage> {
    JobId::new(text).map_err(|_| Damage("a job id is malformed"))
}

fn stage_name(text: String) -> Result<StageName, Damage> {
    StageName::new(text).map_err(|_| Damage("a stage name is malformed"))
}

fn device(code: i32) -> Result<DeviceKind, Damage> {
    Ok(match wire::Device::try_from(code).map_err(|_| Damage("a device kind is unknown"))? {
        wire::Device::Ascend => DeviceKind::Ascend,
        wire::Device::Cpu => DeviceKind::Cpu,
    })
}

fn node(r: wire::Node) -> Result<Node, Damage> {
    Ok(Node {
        id: node_id(r.id)?,
        boot_id: r.boot_id,
        hostname: r.hostname,
        address: r.address,
        version: r.version,
        device: device(r.device)?,
        slots: r.slots,
        labels: labels(r.labels)?,
        groups: r.groups,
        spare: r.spare,
        spare_word: r.spare_word,
        cpus: r.cpus,
        memory: r.memory,
        joined: Timestamp(r.joined),
        cordon: r.cordon.map(cordon),
        fence: r.fence.map(|r| Fence { by: r.by, reason: r.reason, at: Timestamp(r.at) }),
    })
}

fn cordon(r: wire::Cordon) -> Cordon {
    let deadline = r.deadline.map(Timestamp);
    let purpose = if r.empty { Purpose::Empty { deadline } } else { Purpose::Keep };
    Cordon { by: r.by, reason: r.reason, at: Timestamp(r.at), purpose }
}

fn restart(r: wire::Restart) -> Restart {
    Restart { by: r.by, reason: r.reason, at: Timestamp(r.at), key: r.key }
}

fn job(r: wire::Job) -> Result<Job, Damage> {
    let runtime = r.runtime.ok_or(Damage("it has no runtime"))?;
    Ok(Job {
        id: job_id(r.id)?,
        name: JobName::new(r.name).map_err(|_| Damage("its name is malformed"))?,
        owner: r.owner,
        priority: r.priority,
        submitted: Timestamp(r.submitted),
        ended: None,
        idempotency_key: r.idempotency_key,
        spec_text: r.spec_text,
        runtime: Runtime {
            workdir: runtime.workdir,
            python: runtime.python,
            source: runtime.source,
            env: runtime.env,
            mindspeed_root: runtime.mindspeed_root,
            device: device(runtime.device)?,
            shared_storage: runtime.shared_storage,
        },
        placement: Placement {
            labels: r.placement.map_or(Ok(Labels::default()), |placement| labels(placement.labels))?,
        },
        stages: r.stages.into_iter().map(stage).collect::<Result<_, _>>()?,
        cancel: None,
        restarts: Vec::new(),
        last_event: 0,
    })
}

fn cancel(r: wire::Cancel) -> Cancel {
    Cancel { by: r.by, reason: r.reason, at: Timestamp(r.at), grace_ms: r.grace_ms }
}

fn stage(r: wire::Stage) -> Result<Stage, Damage> {
    let digest = match r.digest {
        Some(bytes) => Some(<[u8; 32]>::try_from(bytes).map_err(|_| Damage("a digest has the wrong length"))?),
        None => None,
    };
    Ok(Stage {
        name: stage_name(r.name)?,
        kind: match wire::StageKind::try_from(r.kind).map_err(|_| Damage("a stage kind is unknown"))? {
            wire::StageKind::Preflight => StageKind::Preflight,
            wire::StageKind::Convert => StageKind::Convert,
            wire::StageKind::Preprocess => StageKind::Preprocess,
            wire::StageKind::Train => StageKind::Train,
            wire::StageKind::Export => StageKind::Export,
            wire::StageKind::Run => StageKind::Run,
        },
        after: r.after.into_iter().map(|a| a as usize).collect(),
        digest,
        reused: r.reused.map(job_id).transpose()?,
        tasks: r.tasks.into_iter().map(task).collect::<Result<_, _>>()?,
        checkpoints: BTreeMap::new(),
    })
}

fn task(r: wire::Task) -> Result<Task, Damage> {
    Ok(Task {
        label: r.label,
        closing: r.closing,
        shape: TaskShape {
            nodes: r.nodes,
            ranks_per_node: r.ranks_per_node,
            slots_per_rank: r.slots_per_rank,
            pinned: r.pinned.map(node_id).transpose()?,
        },
        body: body(r.body.ok_or(Damage("a task has no body"))?)?,
        limit_ms: r.limit_ms,
        retries: Retries {
            max: r.retries,
            window_ms: r.retry_window_ms.unwrap_or(Retries::WINDOW_MS),
            backoff_ms: r.retry_backoff_ms.unwrap_or(Retries::BACKOFF_MS),
        },
        state: TaskState::Waiting { not_before: None },
        history: History::default(),
    })
}

fn body(r: wire::Body) -> Result<Body, Damage> {
    Ok(match r {
        wire::Body::Preflight(b) => Body::Preflight(PreflightBody {
            require: b.require,
            readable: b.readable,
            writable: b.writable,
            free_bytes: b.free_bytes,
            train_script: b.train_script,
            needs_mindspore: b.needs_mindspore,
        }),
        wire::Body::Engine(b) => Body::Engine(EngineBody {
            tool: match wire::Tool::try_from(b.tool).map_err(|_| Damage("an engine is unknown"))? {
                wire::Tool::Convert => Tool::Convert,
                wire::Tool::Tokenize => Tool::Tokenize,
            },
            args: b.args,
            out: b.out.map(|p| (p.first, p.second)),
            manifest: b.manifest,
        }),
        wire::Body::Run(b) => Body::Run { argv: b.argv },
        wire::Body::Train(b) => Body::Train(TrainBody {
            launcher: if b.msrun { Launcher::Msrun } else { Launcher::Ranks },
            script: b.script,
            args: b.args,
            resume_args: b.resume_args,
            scheduler: b.scheduler,
            parallel: Parallel::new(b.tp, b.pp).map_err(|_| Damage("a layout is malformed"))?,
            save_dir: b.save_dir,
            train_iters: b.train_iters,
            vocab_size: b.vocab_size,
            grace_ms: b.grace_ms,
        }),
    })
}

fn task_state(r: wire::State) -> Result<(History, TaskState), Damage> {
    let kept = r.history.into_iter().map(summary).collect::<Result<_, _>>()?;
    let history = History::restored(kept, r.dropped);
    let state = match r.standing.ok_or(Damage("a task has no state"))? {
        wire::Standing::Waiting(w) => TaskState::Waiting { not_before: w.not_before.map(Timestamp) },
        wire::Standing::Active(a) => TaskState::Active(attempt(a)?),
        wire::Standing::Done(d) => TaskState::Done {
            attempt: d.attempt,
            at: Timestamp(d.at),
            output: d.output.map(output).unwrap_or_default(),
        },
        wire::Standing::Failed(f) => TaskState::Failed {
            failure: failure(f.failure.ok_or(Damage("a failed task has no failure"))?)?,
            at: Timestamp(f.at),
        },
        wire::Standing::Cancelled(at) => TaskState::Cancelled { at: Timestamp(at) },
        wire::Standing::Skipped(_) => TaskState::Skipped,
    };
    Ok((history, state))
}

fn attempt(r: wire::Attempt) -> Result<Attempt, Damage> {
    Ok(Attempt {
        number: r.number,
        placed: Timestamp(r.placed),
        state: match wire::Phase::try_from(r.phase).map_err(|_| Damage("an attempt's phase is unknown"))? {
            wire::Phase::Preparing => AttemptState::Preparing,
            wire::Phase::Running => AttemptState::Running,
            wire::Phase::DrainingFailed => AttemptState::Draining(Drain::Failed),
            wire::Phase::DrainingCancelled => AttemptState::Draining(Drain::Cancelled),
            wire::Phase::DrainingNodeLost => AttemptState::Draining(Drain::NodeLost),
            wire::Phase::DrainingMoved => AttemptState::Draining(Drain::Moved { kill_at: Timestamp(r.kill_at) }),
            wire::Phase::DrainingRestarted => {
                AttemptState::Draining(Drain::Restarted { kill_at: Timestamp(r.kill_at) })
            }
        },
        seats: r.seats.into_iter().map(seat).collect::<Result<_, _>>()?,
        resume: r.resume,
        first_failure: r.first_failure.map(failure).transpose()?,
        port: port(r.port)?,
    })
}

fn port(number: u32) -> Result<u16, Damage> {
    u16::try_from(number).map_err(|_| Damage("a port is out of range"))
}

fn seat(r: wire::Seat) -> Result<Seat, Damage> {
    Ok(Seat {
        node: node_id(r.node)?,
        first_rank: r.first_rank,
        ranks: r.ranks,
        slots: r.slots,
        state: match r.phase.ok_or(Damage("a seat has no state"))? {
            wire::SeatPhase::Assigned(_) => SeatState::Assigned,
            wire::SeatPhase::Prepared(number) => SeatState::Prepared { port: port(number)? },
            wire::SeatPhase::Running(_) => SeatState::Running,
            wire::SeatPhase::Ended(e) => {
                SeatState::Ended(SeatEnd { ok: e.ok, output: e.output.map(output).unwrap_or_default() })
            }
            wire::SeatPhase::GivenUp(_) => SeatState::GivenUp,
        },
    })
}

fn output(r: wire::Output) -> Output {
    let file = |f: wire::File| FileRecord { path: f.path, size: f.size, digest: f.digest };
    Output { path: r.path, files: r.files.into_iter().map(file).collect(), summary: r.summary }
}

fn summary(r: wire::Summary) -> Result<AttemptSummary, Damage> {
    Ok(AttemptSummary {
        number: r.number,
        placed: Timestamp(r.placed),
        ended: Timestamp(r.ended),
        nodes: r.nodes.into_iter().map(node_id).collect::<Result<_, _>>()?,
        outcome: match r.outcome.ok_or(Damage("an attempt has no outcome"))? {
            wire::Outcome::Succeeded(_) => Outcome::Succeeded,
            wire::Outcome::Failed(f) => Outcome::Failed(failure(f)?),
            wire::Outcome::Cancelled(_) => Outcome::Cancelled,
            wire::Outcome::Requeued(_) => Outcome::Requeued,
        },
    })
}

fn failure(r: wire::Failure) -> Result<Failure, Damage> {
    Ok(Failure {
        node: node_id(r.node)?,
        rank: r.rank,
        cause: match wire::CauseKind::try_from(r.cause).map_err(|_| Damage("a cause is unknown"))? {
            wire::CauseKind::Exit => Cause::Exit(r.code),
            wire::CauseKind::Signal => Cause::Signal(r.code),
            wire::CauseKind::Refused => Cause::Refused,
            wire::CauseKind::NodeLost => Cause::NodeLost,
            wire::CauseKind::Hang => Cause::Hang,
            wire::CauseKind::Overrun => Cause::Overrun,
        },
        at: Timestamp(r.at),
        message: r.message,
        hint: r.hint,
        evidence: r.evidence,
    })
}

fn checkpoint(r: wire::Checkpoint) -> Result<Checkpoint, Damage> {
    let mut shards = BTreeMap::new();
    for s in r.shards {
        shards.insert((s.tp, s.pp), ShardRecord { node: node_id(s.node)?, path: s.path, size: s.size });
    }
    Ok(Checkpoint {
        shards,
        tracked: r.tracked,
        complete: r.complete.map(Timestamp),
        superseded: r.superseded,
        pinned: r.pinned,
        broken: r.broken,
        removing: r.removing,
    })
}

fn event(r: wire::Event) -> Result<Event, Damage> {
    Ok(Event {
        job: job_id(r.job)?,
        seq: r.seq,
        at: Timestamp(r.at),
        level: match wire::Level::try_from(r.level).map_err(|_| Damage("a level is unknown"))? {
            wire::Level::Info => model::event::Level::Info,
            wire::Level::Warn => model::event::Level::Warn,
            wire::Level::Error => model::event::Level::Error,
        },
        kind: model::event::Kind::ALL.into_iter().find(|k| k.name() == r.kind).ok_or(Damage("its kind is unknown"))?,
        stage: r.stage.map(stage_name).transpose()?,
        node: r.node.map(node_id).transpose()?,
        rank: r.rank,
        message: r.message,
        evidence: r.evidence,
    })
}
