//! The `Jobs` service.

use std::sync::Arc;

use model::{JobId, NodeId};
use planner::{Input, Reply, phase};
use proto::v1;
use proto::v1::jobs_server::Jobs as Service;
use runtime::Tasks;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::resolve::resolve;
use super::restart;
use super::watch::{FollowEvents, Watch};
use super::{
    logs::{known_node, pattern, unselectable},
    peer, refuse,
};
use crate::access::Call;
use crate::changes::Changes;
use crate::compile::Compiler;
use crate::driver::Handle;
use crate::logs::{Logs, Which, read};
use crate::sessions::Progress;
use crate::view::{self, Detail};

/// Answers that may wait for one reader.
const WAITING: usize = 16;
/// Most jobs of one listing.
const LISTED: usize = 1000;
/// Longest grace of a cancellation: a day.
pub(super) const LONGEST_GRACE: u64 = 86_400_000;
/// Grace of a cancellation that names none, in milliseconds.
pub(super) const GRACE: u64 = 30_000;

/// Submitting, watching and ending jobs.
#[derive(Clone, Debug)]
pub struct Jobs {
    /// The driver.
    pub driver: Handle,
    /// From files to jobs.
    pub compiler: Compiler,
    /// How far seats are.
    pub progress: Arc<Progress>,
    /// Who watches which job.
    pub changes: Arc<Changes>,
    /// Log files.
    pub logs: Arc<Logs>,
    /// Owner of the streams' tasks.
    pub tasks: Tasks,
}

#[tonic::async_trait]
impl Service for Jobs {
    type WatchStream = ReceiverStream<Result<v1::JobView, Status>>;
    type LogsStream = ReceiverStream<Result<v1::LogBatch, Status>>;
    type EventsStream = ReceiverStream<Result<v1::EventView, Status>>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitReply>, Status> {
        let call = peer::call(&request)?;
        let owner = call.caller()?.name.clone();
        if let Some(reply) = self.repeated(&owner, &request.get_ref().idempotency_key).await? {
            return Ok(Response::new(reply));
        }
        let compiled = self.compiler.compile(request.get_ref(), &owner).await?;
        let name = compiled.job.name.to_string();
        let stepped = self.driver.step(Input::Submit(Box::new(compiled.job))).await?;
        match stepped.reply {
            Some(Reply::Accepted(id)) => {
                call.about(&format!("{name} ({id})"));
                let name = self.name_of(&id).await?.unwrap_or(name);
                let (warnings, reused) = (compiled.warnings, compiled.reused);
                Ok(Response::new(v1::SubmitReply { id: id.to_string(), name, warnings, reused }))
            }
            Some(Reply::NameInUse { holder }) => Err(refuse(
                Code::AlreadyExists,
                format!("the name `{name}` is in use by job `{holder}`"),
                Some(format!("choose another name with `-n`, or end that job: qctl cancel {holder}")),
            )),
            Some(_) | None => Err(Status::internal("the submission was not answered")),
        }
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Result<Response<v1::PlanReply>, Status> {
        let owner = peer::name(&request)?;
        let submit = request.into_inner().submit.unwrap_or_default();
        Ok(Response::new(self.compiler.plan(&submit, &owner).await?))
    }

    async fn get(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::JobView>, Status> {
        let id = self.resolve(&request.get_ref().job).await?;
        Ok(Response::new(self.view(&id).await?))
    }

    async fn list(&self, request: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsReply>, Status> {
        let v1::ListJobsRequest { all, limit } = request.into_inner();
        let most = if limit == 0 { LISTED } else { usize::try_from(limit).unwrap_or(LISTED).min(LISTED) };
        let progress = self.progress.clone();
        let jobs = self.driver.read(move |world| view::list(world, &progress, all, most)).await?;
        Ok(Response::new(v1::ListJobsReply { jobs }))
    }

    async fn watch(&self, request: Request<v1::GetJobRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let id = self.resolve(&request.get_ref().job).await?;
        let (out, views) = mpsc::channel(WAITING);
        let watch = Watch { jobs: self.clone(), id: id.clone(), out };
        self.tasks.spawn("watch", watch.run(self.changes.subscribe(&id), self.tasks.stop_token()));
        Ok(Response::new(ReceiverStream::new(views)))
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Result<Response<v1::CancelReply>, Status> {
        let call = peer::call(&request)?;
        let v1::CancelRequest { job, reason, grace_ms } = request.into_inner();
        let (id, by) = self.touched(&call, &job).await?;
        let grace_ms = grace_ms.unwrap_or(GRACE).min(LONGEST_GRACE);
        let reason: String = reason.chars().take(1000).collect();
        let stepped = self.driver.step(Input::Cancel { job: id.clone(), by, reason, grace_ms }).await?;
        let outcome = match stepped.reply {
            Some(Reply::Cancelling) => "cancelling",
            Some(Reply::AlreadyEnded) => "already-ended",
            Some(Reply::NoSuchJob) => return Err(Status::not_found(format!("job `{id}` is gone"))),
            Some(_) | None => return Err(Status::internal("the cancellation was not answered")),
        };
        let wanted = id.clone();
        let ended = self.driver.read(move |world| world.jobs.get(&wanted).map(|job| phase::job(world, job))).await?;
        let phase = ended.filter(|phase| phase.is_over()).map(|phase| phase.name().to_owned()).unwrap_or_default();
        Ok(Response::new(v1::CancelReply { id: id.to_string(), outcome: outcome.to_owned(), phase }))
    }

    async fn restart(&self, request: Request<v1::RestartRequest>) -> Result<Response<v1::RestartReply>, Status> {
        let call = peer::call(&request)?;
        let request = request.into_inner();
        let (id, by) = self.touched(&call, &request.job).await?;
        let wish = restart::wish(request, id.clone(), by)?;
        let asked = wish.clone();
        let stepped = self.driver.step(Input::Restart(Box::new(wish))).await?;
        let job = self.driver.read(move |world| world.jobs.get(&id).cloned()).await?;
        let job = job.ok_or_else(|| Status::not_found("the job is gone"))?;
        Ok(Response::new(restart::reply(stepped.reply, &asked, &job)?))
    }

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let wanted = self.wanted(request.into_inner()).await?;
        let (out, batches) = mpsc::channel(WAITING);
        let changed = self.changes.subscribe(&wanted.job);
        let reader = read::Reader::new(self.logs.clone(), self.driver.clone(), wanted, out);
        self.tasks.spawn("logs", reader.run(changed, self.tasks.stop_token()));
        Ok(Response::new(ReceiverStream::new(batches)))
    }

    async fn events(&self, request: Request<v1::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let v1::EventsRequest { job, follow, after_seq } = request.into_inner();
        let id = self.resolve(&job).await?;
        let (out, events) = mpsc::channel(WAITING);
        let changed = self.changes.subscribe(&id);
        let follower = FollowEvents { driver: self.driver.clone(), id, follow, after: after_seq, out };
        self.tasks.spawn("events", follower.run(changed, self.tasks.stop_token()));
        Ok(Response::new(ReceiverStream::new(events)))
    }
}

impl Jobs {
    async fn resolve(&self, word: &str) -> Result<JobId, Status> {
        let word = word.to_owned();
        self.driver.read(move |world| resolve(world, &word)).await?
    }

    /// The job that the caller may touch, and the caller's name.
    async fn touched(&self, call: &Call, word: &str) -> Result<(JobId, String), Status> {
        call.about(word);
        let id = self.resolve(word).await?;
        call.about(id.as_str());
        let wanted = id.clone();
        let owner = self.driver.read(move |world| world.jobs.get(&wanted).map(|job| job.owner.clone())).await?;
        let owner = owner.ok_or_else(|| Status::not_found(format!("job `{id}` is gone")))?;
        call.may_touch(id.as_str(), &owner)?;
        Ok((id, call.caller()?.name.clone()))
    }

    /// The answer to a submission that is repeated under its key: agents need not
    /// be there, and the files may have changed since.
    async fn repeated(&self, owner: &str, key: &str) -> Result<Option<v1::SubmitReply>, Status> {
        if key.is_empty() {
            return Ok(None);
        }
        let (owner, key) = (owner.to_owned(), key.to_owned());
        let look = move |world: &planner::World| {
            let same = |job: &&model::Job| job.owner == owner && job.idempotency_key.as_ref() == Some(&key);
            world.jobs.values().find(same).map(|job| v1::SubmitReply {
                id: job.id.to_string(),
                name: job.name.to_string(),
                ..v1::SubmitReply::default()
            })
        };
        Ok(self.driver.read(look).await?)
    }

    /// A job in full, with what is known of its progress.
    pub(super) async fn view(&self, id: &JobId) -> Result<v1::JobView, Status> {
        let (wanted, progress) = (id.clone(), self.progress.clone());
        let look = move |world: &planner::World| {
            world.jobs.get(&wanted).map(|job| view::job(world, &progress, job, Detail::Full))
        };
        self.driver.read(look).await?.ok_or_else(|| Status::not_found(format!("job `{id}` is gone")))
    }

    /// The job's own name: a repeated submission is answered with the first one's.
    async fn name_of(&self, id: &JobId) -> Result<Option<String>, Status> {
        let id = id.clone();
        Ok(self.driver.read(move |world| world.jobs.get(&id).map(|job| job.name.to_string())).await?)
    }

    async fn wanted(&self, request: v1::LogsRequest) -> Result<read::Wanted, Status> {
        let job = self.resolve(&request.job).await?;
        let node = Some(request.node).filter(|node| !node.is_empty()).map(NodeId::new).transpose();
        let node = node.map_err(|error| Status::invalid_argument(error.to_string()))?;
        if request.follow && request.until_ms > 0 {
            return Err(Status::invalid_argument("logs are followed to their end, or read until a time; not both"));
        }
        let which = match (request.attempt, request.previous) {
            (None, false) => Which::Newest,
            (None, true) => Which::Previous,
            (Some(number), false) => Which::Number(number),
            (Some(_), true) => {
                return Err(Status::invalid_argument("one attempt is named by its number, or as the previous one"));
            }
        };
        let wanted = read::Wanted {
            job,
            follow: request.follow,
            ranks: request.ranks,
            stage: request.stage,
            node,
            tail: request.tail,
            which,
            since_ms: request.since_ms,
            until_ms: request.until_ms,
            grep: pattern(&request.grep)?,
            times: request.times,
        };
        let check = wanted.clone();
        let look = move |world: &planner::World| {
            let selected = crate::logs::select(world, &check.job, &check.stage, check.which);
            selected.map_err(|error| unselectable(world, &check, &error))?;
            check.node.as_ref().map_or(Ok(()), |node| known_node(world, &check.job, node))
        };
        self.driver.read(look).await??;
        Ok(wanted)
    }
}
