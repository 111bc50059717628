//! What a submission would do, for the eye.

use std::collections::BTreeSet;

use model::{Body, Job, Launcher, Stage, Task, Tool};
use planner::{World, place};
use proto::v1;
use spec::arguments::msrun;
use spec::plan::{Pipeline, outline, wanted};
use tonic::Status;

use super::survey::Seen;
use super::{Compiler, lower, parse, warnings};
use crate::assignment::kind_name;

/// Most tasks shown of one stage.
const SHOWN: usize = 256;

impl Compiler {
    /// Plans a submission; changes nothing.
    pub(crate) async fn plan(&self, request: &v1::SubmitRequest, owner: &str) -> Result<v1::PlanReply, Status> {
        let spec = parse::parse(request)?;
        let wanted = wanted(&spec);
        let nodes = self.ready(lower::device(spec.runtime.device), &spec.labels).await?;
        let Seen { survey, mut unseen, .. } = self.look(&spec, &wanted, &nodes).await;
        let outline = outline(&spec, &survey).map_err(|problems| parse::refused(&problems, &unseen))?;
        unseen.extend(outline.unseen);
        let mut job = lower::job(&outline.pipeline, request, owner, &nodes)?;
        self.take_over(&mut job).await?;
        let warnings = warnings(&outline.pipeline);
        let corrections = corrections(&outline.pipeline);
        let planned = job.clone();
        let stages = self.driver.read(move |world| stages(world, &planned)).await?;
        Ok(v1::PlanReply { name: job.name.to_string(), stages, warnings, unseen, corrections })
    }
}

fn corrections(pipeline: &Pipeline) -> Vec<String> {
    let tasks = pipeline.stages.iter().flat_map(|stage| &stage.tasks);
    let applied = tasks.filter_map(|task| match &task.body {
        spec::plan::Body::Train(train) => Some(&train.applied),
        spec::plan::Body::Preflight(_)
        | spec::plan::Body::ConvertShard { .. }
        | spec::plan::Body::ConvertPublish { .. }
        | spec::plan::Body::Tokenize { .. }
        | spec::plan::Body::TokenizeMerge { .. }
        | spec::plan::Body::Export { .. }
        | spec::plan::Body::Run { .. } => None,
    });
    applied.flatten().map(|correction| format!("{}: {}", correction.id, correction.reason)).collect()
}

fn stages(world: &World, job: &Job) -> Vec<v1::PlannedStage> {
    let one = |stage: &Stage| v1::PlannedStage {
        name: stage.name.to_string(),
        kind: kind_name(stage.kind).to_owned(),
        after: stage.after.iter().filter_map(|at| Some(job.stages.get(*at)?.name.to_string())).collect(),
        tasks: stage.tasks.iter().take(SHOWN).map(|task| self::task(world, job, stage, task)).collect(),
        reused_from: stage.reused.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    job.stages.iter().map(one).collect()
}

fn task(world: &World, job: &Job, stage: &Stage, task: &Task) -> v1::PlannedTask {
    let chosen = match stage.reused {
        Some(_) => None,
        None => place::choose(world, job, task, &BTreeSet::new(), &[], None),
    };
    v1::PlannedTask {
        label: task.label.clone(),
        nodes: task.shape.nodes,
        ranks_per_node: task.shape.ranks_per_node,
        placement: chosen.into_iter().flatten().map(|chosen| chosen.node.to_string()).collect(),
        commands: commands(job, task),
    }
}

/// The command line of each kind of process. `<attempt>` stands for what only
/// the attempt will know.
fn commands(job: &Job, task: &Task) -> Vec<v1::CommandLine> {
    let line = |process: &str, argv: Vec<String>| v1::CommandLine { process: process.to_owned(), argv };
    match &task.body {
        Body::Preflight(_) => Vec::new(),
        Body::Run { argv } => vec![line("rank", argv.clone())],
        Body::Engine(engine) => {
            let (name, process) = match engine.tool {
                Tool::Convert => ("qctl-convert", "convert"),
                Tool::Tokenize => ("qctl-tokenize", "tokenize"),
            };
            let mut argv = vec![name.to_owned()];
            argv.extend(engine.args.iter().cloned());
            if let Some((flag, prefix)) = &engine.out {
                argv.extend([flag.clone(), format!("{prefix}.<attempt>")]);
            }
            if engine.manifest {
                argv.extend(["--manifest".to_owned(), "<manifest>".to_owned()]);
            }
            vec![line(process, argv)]
        }
        Body::Train(train) => {
            let mut argv = vec![job.runtime.python.clone(), train.script.clone()];
            argv.extend(train.args.iter().cloned());
            let mut lines = vec![line("worker", argv.clone())];
            if train.launcher == Launcher::Msrun {
                // msrun itself starts the interpreter.
                lines.insert(0, line("msrun", msrun(job, task, &argv[1..])));
            }
            if !train.scheduler.is_empty() {
                lines.insert(0, line("scheduler", train.scheduler.clone()));
            }
            if !train.resume_args.is_empty() {
                let mut argv = vec![job.runtime.python.clone(), train.script.clone()];
                argv.extend(train.resume_args.iter().cloned());
                argv.extend(["--ckpt-step".to_owned(), "<iteration>".to_owned()]);
                lines.push(line("worker after a restart", argv));
            }
            lines
        }
    }
}

/// msrun's command line on each node; what the launch decides is in brackets.
fn msrun(job: &Job, task: &Task, script: &[String]) -> Vec<String> {
    let seat = msrun::Seat {
        worker_num: task.shape.nodes.saturating_mul(task.shape.ranks_per_node),
        local_worker_num: task.shape.ranks_per_node,
        master_addr: "<address>".into(),
        master_port: "<port>".into(),
        node_rank: "<node>".into(),
    };
    let time_out = job.runtime.env.get("MS_TOPO_TIMEOUT").map_or(msrun::DEFAULT_TIME_OUT, String::as_str);
    let program = std::path::Path::new(&job.runtime.python).with_file_name("msrun");
    let mut argv = vec![program.to_string_lossy().into_owned()];
    argv.extend(msrun::corrected_msrun_arguments(&seat, "<logs>", time_out));
    argv.extend(script.iter().cloned());
    argv
}
