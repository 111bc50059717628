//! The compiler: one stage after the other, in their order.

mod convert;
mod preflight;
mod preprocess;
mod train;

use std::collections::BTreeMap;

use model::Retries;

use super::digest::Digest;
use super::pipeline::{Body, Kind, Pipeline, StagePlan, TaskPlan};
use super::survey::{ModelSurvey, Survey};
use crate::arguments::export;
use crate::problem::Problem;
use crate::spec::{Export, Run, Spec, Stage, StageBody};

/// Turns a spec and a survey into stages and tasks.
///
/// # Errors
///
/// What a stage needs and the survey does not have, and what contradicts it: a
/// layout that does not divide the model, a column that is not there, a
/// tokenizer that is larger than the model's vocabulary.
pub fn compile(spec: &Spec, survey: &Survey) -> Result<Pipeline, Vec<Problem>> {
    let mut compiler = Compiler { spec, survey, problems: Vec::new(), digests: BTreeMap::new() };
    let stages: Vec<StagePlan> = spec.stages.iter().filter_map(|stage| compiler.stage(stage)).collect();
    if !compiler.problems.is_empty() {
        return Err(compiler.problems);
    }
    Ok(Pipeline {
        name: spec.name.clone(),
        workdir: spec.workdir.clone(),
        runtime: spec.runtime.clone(),
        storage: spec.storage,
        priority: spec.priority,
        labels: spec.labels.clone(),
        stages,
        warnings: spec.warnings.clone(),
    })
}

/// What the compiler knows while it works.
struct Compiler<'a> {
    spec: &'a Spec,
    survey: &'a Survey,
    problems: Vec<Problem>,
    /// Digests of the stages before.
    digests: BTreeMap<String, [u8; 32]>,
}

/// What one kind of stage comes to.
struct Work {
    kind: Kind,
    tasks: Vec<TaskPlan>,
    closing: Option<TaskPlan>,
    digest: Option<[u8; 32]>,
    warnings: Vec<Problem>,
}

impl<'a> Compiler<'a> {
    fn stage(&mut self, stage: &Stage) -> Option<StagePlan> {
        let work = match &stage.body {
            StageBody::Preflight(preflight) => Some(self.preflight(preflight)),
            StageBody::Convert(convert) => self.convert(stage, convert),
            StageBody::Preprocess(preprocess) => self.preprocess(stage, preprocess),
            StageBody::Train(train) => self.train(stage, train),
            StageBody::Export(export) => self.export(stage, export),
            StageBody::Run(run) => Some(self.run(stage, run)),
        }?;
        if let Some(digest) = work.digest {
            self.digests.insert(stage.name.clone(), digest);
        }
        Some(StagePlan {
            name: stage.name.clone(),
            kind: work.kind,
            after: stage.after.clone(),
            env: stage.env.clone(),
            tasks: work.tasks,
            closing: work.closing,
            digest: work.digest,
            warnings: work.warnings,
        })
    }

    fn export(&mut self, stage: &Stage, export: &Export) -> Option<Work> {
        let model = self.model("export")?;
        let args = export::arguments(self.spec, export);
        let mut digest = Digest::new("export");
        digest.list("args", &args).text("model", &model.digest);
        let digest = self.finish(digest, stage, Some(&export.from));
        let body = Body::Export { args, output_dir: export::output_dir(export) };
        let tasks = vec![engine_task("export".to_owned(), body, model.bytes, stage.retries)];
        Some(Work { kind: Kind::Export, tasks, closing: None, digest, warnings: Vec::new() })
    }

    fn run(&self, stage: &Stage, run: &Run) -> Work {
        let task = TaskPlan {
            label: stage.name.clone(),
            copies: run.count,
            per_node: false,
            nodes: 1,
            ranks_per_node: run.ranks,
            slots_per_rank: run.slots,
            body: Body::Run { argv: run.argv.clone() },
            weight_bytes: 0,
            retries: stage.retries,
            limit_ms: stage.limit_ms,
        };
        // What a command reads is not known, so its result is never taken over.
        Work { kind: Kind::Run, tasks: vec![task], closing: None, digest: None, warnings: Vec::new() }
    }

    /// The surveyed model, or a problem that names who needs it.
    fn model(&mut self, stage: &str) -> Option<&'a ModelSurvey> {
        let model = self.survey.model.as_ref();
        if model.is_none() {
            let dir = self.spec.hf_dir.as_deref().unwrap_or_default();
            self.problems.push(self.spec.problem(
                "model.hf_dir",
                format!("no agent could read a model in `{dir}`, which stage `{stage}` needs"),
                Some("check the path on the hosts, and that agents are ready: qctl nodes".to_owned()),
            ));
        }
        model
    }

    /// Adds what every stage's result depends on; none if a part is not known.
    ///
    /// `needs` is the stage whose result is read, where there is one. Stages that
    /// only come before decide nothing.
    fn finish(&self, mut digest: Digest, stage: &Stage, needs: Option<&str>) -> Option<[u8; 32]> {
        if let Some(name) = needs {
            digest.bytes("input", self.digests.get(name)?);
        }
        // A stage of the user's own may write what this one reads.
        let foreign = stage.after.iter().any(|name| {
            self.spec.stage(name).is_some_and(|other| match other.body {
                StageBody::Run(_) => true,
                StageBody::Preflight(_)
                | StageBody::Convert(_)
                | StageBody::Preprocess(_)
                | StageBody::Train(_)
                | StageBody::Export(_) => false,
            })
        });
        digest.text("workdir", self.spec.workdir.as_deref().unwrap_or_default());
        for (name, value) in &stage.env {
            digest.text(name, value);
        }
        (!foreign).then(|| digest.finish())
    }
}

/// A task of one process without a device.
fn engine_task(label: String, body: Body, weight_bytes: u64, retries: Retries) -> TaskPlan {
    TaskPlan {
        label,
        copies: 1,
        per_node: false,
        nodes: 1,
        ranks_per_node: 1,
        slots_per_rank: 0,
        body,
        weight_bytes,
        retries,
        limit_ms: None,
    }
}
