//! From a compiled pipeline to a job.

use std::collections::BTreeMap;

use model::{
    Body, DeviceKind, EngineBody, History, Job, JobId, JobName, Launcher, Placement, PreflightBody, Runtime, Stage,
    StageKind, StageName, Task, TaskShape, TaskState, Timestamp, Tool, TrainBody,
};
use proto::v1;
use spec::plan::{self, Kind, Pipeline, StagePlan, TaskPlan};
use spec::spec::{Device, Launcher as SpecLauncher, Resume, Storage};
use tonic::{Code, Status};

use super::Ready;
use crate::api::refuse;

/// Most tasks of one job.
const TASKS: usize = 1_000_000;
/// Milliseconds that a trainer has to save when its job is stopped.
const GRACE: u64 = 60_000;

/// The job of a pipeline; its id and time are the driver's to give.
pub(super) fn job(
    pipeline: &Pipeline,
    request: &v1::SubmitRequest,
    owner: &str,
    nodes: &[Ready],
) -> Result<Job, Status> {
    let wrong = |error: model::NameError| Status::invalid_argument(error.to_string());
    let name = if request.name.is_empty() { pipeline.name.as_str() } else { request.name.as_str() };
    let free_bytes = pipeline.stages.iter().flat_map(|stage| &stage.tasks).map(|task| task.weight_bytes).sum();
    let mut stages = Vec::with_capacity(pipeline.stages.len());
    for plan in &pipeline.stages {
        stages.push(stage(pipeline, plan, nodes, free_bytes)?);
    }
    if stages.iter().map(|stage| stage.tasks.len()).sum::<usize>() > TASKS {
        return Err(Status::invalid_argument(format!("the job has more than {TASKS} tasks")));
    }
    Ok(Job {
        id: JobId::new("j").map_err(wrong)?,
        name: JobName::new(name).map_err(wrong)?,
        owner: owner.to_owned(),
        priority: request.priority.unwrap_or(pipeline.priority),
        submitted: Timestamp(0),
        ended: None,
        idempotency_key: Some(request.idempotency_key.clone()).filter(|key| !key.is_empty()),
        spec_text: request.spec.clone(),
        runtime: runtime(pipeline),
        placement: Placement { labels: pipeline.labels.clone() },
        stages,
        cancel: None,
        restarts: Vec::new(),
        last_event: 0,
    })
}

pub(super) fn device(device: Device) -> DeviceKind {
    match device {
        Device::Ascend => DeviceKind::Ascend,
        Device::Cpu => DeviceKind::Cpu,
    }
}

pub(super) fn device_name(device: DeviceKind) -> &'static str {
    match device {
        DeviceKind::Ascend => "ascend",
        DeviceKind::Cpu => "cpu",
    }
}

fn runtime(pipeline: &Pipeline) -> Runtime {
    let runtime = &pipeline.runtime;
    Runtime {
        workdir: pipeline.workdir.clone().unwrap_or_else(|| "/".to_owned()),
        python: runtime.python.clone(),
        source: runtime.source.clone(),
        env: runtime.env.clone(),
        mindspeed_root: runtime.mindspeed_root.clone(),
        device: device(runtime.device),
        shared_storage: pipeline.storage == Storage::Shared,
    }
}

fn stage(pipeline: &Pipeline, plan: &StagePlan, nodes: &[Ready], free_bytes: u64) -> Result<Stage, Status> {
    if !plan.env.is_empty() {
        return Err(refuse(
            Code::Unimplemented,
            format!("stages.{}.env: variables of one stage alone are not supported", plan.name),
            Some("move them to runtime.env, which all stages get".to_owned()),
        ));
    }
    let name = StageName::new(plan.name.as_str()).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let position = |name: &String| pipeline.stages.iter().position(|stage| stage.name == *name);
    let around = Around { free_bytes, prefix: prefix(plan) };
    let mut tasks = Vec::new();
    for task in &plan.tasks {
        expand(task, nodes, &around, &mut tasks);
    }
    if let Some(closing) = &plan.closing {
        tasks.push(Task { closing: true, ..one(closing, closing.label.clone(), None, &around) });
    }
    Ok(Stage {
        name,
        kind: kind(plan.kind),
        after: plan.after.iter().filter_map(position).collect(),
        digest: plan.digest,
        reused: None,
        tasks,
        checkpoints: BTreeMap::new(),
    })
}

/// What the bodies of a stage's tasks depend on beside themselves.
#[derive(Clone, Debug)]
pub(super) struct Around {
    /// Bytes that the job will write, about.
    pub(super) free_bytes: u64,
    /// Where the stage's closing task puts the merged text.
    pub(super) prefix: String,
}

pub(super) fn prefix(plan: &StagePlan) -> String {
    let merge = plan.closing.as_ref().and_then(|closing| match &closing.body {
        plan::Body::TokenizeMerge { args } => flag(args, "--output-prefix"),
        plan::Body::Preflight(_)
        | plan::Body::ConvertShard { .. }
        | plan::Body::ConvertPublish { .. }
        | plan::Body::Tokenize { .. }
        | plan::Body::Train(_)
        | plan::Body::Export { .. }
        | plan::Body::Run { .. } => None,
    });
    merge.unwrap_or("tokens").to_owned()
}

fn kind(kind: Kind) -> StageKind {
    match kind {
        Kind::Preflight => StageKind::Preflight,
        Kind::Convert => StageKind::Convert,
        Kind::Preprocess => StageKind::Preprocess,
        Kind::Train => StageKind::Train,
        Kind::Export => StageKind::Export,
        Kind::Run => StageKind::Run,
    }
}

fn expand(plan: &TaskPlan, nodes: &[Ready], around: &Around, tasks: &mut Vec<Task>) {
    if plan.per_node {
        tasks.extend(nodes.iter().map(|node| one(plan, node.id.to_string(), Some(node), around)));
        return;
    }
    let copies = plan.copies.max(1);
    for copy in 1..=copies {
        let label = if copies == 1 { plan.label.clone() } else { format!("{copy} of {copies}") };
        tasks.push(one(plan, label, None, around));
    }
}

fn one(plan: &TaskPlan, label: String, node: Option<&Ready>, around: &Around) -> Task {
    Task {
        label,
        closing: false,
        shape: TaskShape {
            nodes: plan.nodes.max(1),
            ranks_per_node: plan.ranks_per_node.max(1),
            slots_per_rank: plan.slots_per_rank,
            pinned: node.map(|node| node.id.clone()),
        },
        body: body(&plan.body, around),
        retries: plan.retries,
        limit_ms: plan.limit_ms,
        state: TaskState::Waiting { not_before: None },
        history: History::default(),
    }
}

pub(super) fn body(plan: &plan::Body, around: &Around) -> Body {
    let engine = |tool, args: &[String], out: Option<(&str, String)>, manifest| {
        let out = out.map(|(flag, prefix)| (flag.to_owned(), prefix));
        Body::Engine(EngineBody { tool, args: without_progress(args), out, manifest })
    };
    match plan {
        plan::Body::Preflight(checks) => Body::Preflight(preflight(checks, around.free_bytes)),
        plan::Body::ConvertShard { tp, pp, args } => {
            // Inside the result's directory: one file system, so that publishing is a rename.
            let save_dir = flag(args, "--save-dir").unwrap_or(".").trim_end_matches('/');
            let out = format!("{save_dir}/.parts/tp{tp}-pp{pp}");
            engine(Tool::Convert, args, Some(("--out", out)), false)
        }
        plan::Body::ConvertPublish { args } => engine(Tool::Convert, args, None, true),
        plan::Body::Tokenize { index, args } => {
            let out = part(&around.prefix, *index);
            engine(Tool::Tokenize, args, Some(("--output-prefix", out)), false)
        }
        plan::Body::TokenizeMerge { args } => engine(Tool::Tokenize, args, None, true),
        plan::Body::Export { args, .. } => engine(Tool::Convert, args, None, false),
        plan::Body::Run { argv } => Body::Run { argv: argv.clone() },
        plan::Body::Train(train) => Body::Train(self::train(train)),
    }
}

/// Where a slice's pair goes: beside the result, but out of sight of whoever looks for results.
fn part(prefix: &str, index: impl std::fmt::Display) -> String {
    let (directory, name) = prefix.rsplit_once('/').unwrap_or((".", prefix));
    format!("{directory}/.parts/{name}.{index}")
}

fn train(plan: &plan::TrainBody) -> TrainBody {
    let resumes = plan.save_dir.is_some() && plan.resume != Resume::Never;
    TrainBody {
        launcher: match plan.launcher {
            SpecLauncher::Ranks => Launcher::Ranks,
            SpecLauncher::Msrun => Launcher::Msrun,
        },
        script: plan.script.clone(),
        args: plan.arguments.clone(),
        // The iteration of a restart is chosen when it is placed.
        resume_args: if resumes { without_flag(&plan.resume_arguments(0), "--ckpt-step") } else { Vec::new() },
        scheduler: plan.scheduler.clone(),
        parallel: plan.parallel,
        save_dir: plan.save_dir.clone().unwrap_or_default(),
        train_iters: plan.train_iters.unwrap_or_default(),
        vocab_size: plan.expect_pretrained.unwrap_or_default(),
        grace_ms: GRACE,
    }
}

fn preflight(plan: &plan::PreflightBody, free_bytes: u64) -> PreflightBody {
    let require = &plan.require;
    let versions = [
        ("cann", &require.cann),
        ("driver", &require.driver),
        ("mindspore", &require.mindspore),
        ("python", &require.python),
    ];
    let versions = versions.into_iter().filter_map(|(name, version)| Some((name.to_owned(), version.clone()?)));
    PreflightBody {
        require: versions.collect(),
        readable: plan.inputs.iter().chain(&plan.mindspeed_root).cloned().collect(),
        writable: plan.outputs.clone(),
        free_bytes,
        train_script: plan.script.clone(),
        needs_mindspore: plan.needs_mindspore,
    }
}

/// The agent asks engines for progress itself.
fn without_progress(args: &[String]) -> Vec<String> {
    without_flag(args, "--progress")
}

/// `args` without `flag` and its value.
fn without_flag(args: &[String], flag: &str) -> Vec<String> {
    let mut kept = Vec::with_capacity(args.len());
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word == flag {
            words.next();
        } else {
            kept.push(word.clone());
        }
    }
    kept
}

fn flag<'a>(args: &'a [String], flag: &str) -> Option<&'a str> {
    args.iter().skip_while(|word| *word != flag).nth(1).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_with_their_values() {
        let words: Vec<String> = "--a 1 --progress json --b".split(' ').map(str::to_owned).collect();
        assert_eq!(without_progress(&words), ["--a", "1", "--b"]);
        assert_eq!(flag(&words, "--progress"), Some("json"));
        assert_eq!(flag(&words, "--b"), None);
    }
}
