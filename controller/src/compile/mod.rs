//! From a user's file to a job: parse, look, compile, take over what is there.

mod lower;
mod parse;
mod plan;
mod reuse;
mod survey;

use std::sync::Arc;
use std::time::Duration;

use model::{DeviceKind, Job, Labels, NodeId};
use proto::v1;
use spec::plan::{Pipeline, wanted};
use tonic::{Code, Status};

use crate::api::refuse;
use crate::driver::Handle;
use crate::sessions::{Registry, Surveys};

/// Turns submissions into jobs, with the help of agents that see files.
#[derive(Clone, Debug)]
pub struct Compiler {
    driver: Handle,
    agents: Arc<Registry>,
    surveys: Surveys,
    wait: Duration,
}

/// A job that may be submitted, and what to tell its user.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) job: Job,
    pub(crate) warnings: Vec<String>,
    /// Stages taken over, each with its reason.
    pub(crate) reused: Vec<String>,
}

/// A node that may be asked.
#[derive(Clone, Debug)]
struct Ready {
    id: NodeId,
    boot_id: String,
}

impl Compiler {
    /// Asks agents through `surveys` and the world through `driver`; where no
    /// agent is connected, the first is waited for, at most `wait`.
    #[must_use]
    pub fn new(driver: Handle, agents: Arc<Registry>, surveys: Surveys, wait: Duration) -> Self {
        Self { driver, agents, surveys, wait }
    }

    /// Compiles a submission of `owner`.
    pub(crate) async fn compile(&self, request: &v1::SubmitRequest, owner: &str) -> Result<Compiled, Status> {
        let spec = parse::parse(request)?;
        let device = lower::device(spec.runtime.device);
        let wanted = wanted(&spec);
        let looks = wanted != spec::plan::Wanted::default();
        let checks = spec.stages.iter().any(|stage| matches!(stage.body, spec::spec::StageBody::Preflight(_)));
        let until = tokio::time::Instant::now() + self.wait;
        let mut arrivals = self.agents.arrivals();
        let (nodes, seen) = loop {
            arrivals.mark_unchanged();
            let nodes = if looks || checks {
                self.wait_for_agents(device, &spec.labels, until).await?
            } else {
                self.ready(device, &spec.labels).await?
            };
            let seen = self.look(&spec, &wanted, &nodes).await;
            if seen.answered {
                break (nodes, seen);
            }
            // Those that were asked went: whoever comes next is asked.
            let waited = tokio::time::timeout_at(until, arrivals.changed()).await;
            if !matches!(waited, Ok(Ok(()))) {
                return Err(refuse(
                    Code::FailedPrecondition,
                    format!(
                        "no agent stayed connected while the job's files were looked at: {}",
                        seen.unseen.join("; ")
                    ),
                    Some("try again once the agents are up: qctl nodes".to_owned()),
                ));
            }
        };
        let refused = |problems: Vec<_>| parse::refused(&problems, &seen.unseen);
        let pipeline = spec::plan::compile(&spec, &seen.survey).map_err(refused)?;
        let warnings = warnings(&pipeline);
        let mut job = lower::job(&pipeline, request, owner, &nodes)?;
        let reused = self.take_over(&mut job).await?;
        Ok(Compiled { job, warnings, reused })
    }

    /// Nodes of `device` kind with these labels that may get work, in id order.
    async fn ready(&self, device: DeviceKind, labels: &Labels) -> Result<Vec<Ready>, Status> {
        let labels = labels.clone();
        let look = move |world: &planner::World| {
            let usable = world.ready(device).filter(|view| view.takes_work() && view.record.labels.have(&labels));
            usable.map(|view| Ready { id: view.record.id.clone(), boot_id: view.record.boot_id.clone() }).collect()
        };
        Ok(self.driver.read(look).await?)
    }

    /// As [`Self::ready`], but waits for the first: agents come back one after
    /// the other when a controller has just started.
    async fn wait_for_agents(
        &self,
        device: DeviceKind,
        labels: &Labels,
        until: tokio::time::Instant,
    ) -> Result<Vec<Ready>, Status> {
        let mut arrivals = self.agents.arrivals();
        loop {
            arrivals.mark_unchanged();
            let ready = self.ready(device, labels).await?;
            if !ready.is_empty() {
                return Ok(ready);
            }
            let waited = tokio::time::timeout_at(until, arrivals.changed()).await;
            if !matches!(waited, Ok(Ok(()))) {
                let kind = lower::device_name(device);
                let such: String = labels.iter().map(|(name, value)| format!(" and label `{name}={value}`")).collect();
                return Err(refuse(
                    Code::FailedPrecondition,
                    format!("no agent with {kind} devices{such} is connected, and the job's files must be seen first"),
                    Some("start an agent (qctl-agent), or check the connected ones: qctl nodes".to_owned()),
                ));
            }
        }
    }
}

fn warnings(pipeline: &Pipeline) -> Vec<String> {
    let stages = pipeline.stages.iter().flat_map(|stage| &stage.warnings);
    pipeline.warnings.iter().chain(stages).map(ToString::to_string).collect()
}
