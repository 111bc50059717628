//! The training task.

use super::super::digest::Digest;
use super::super::pipeline::{Body, Kind, TaskPlan, TrainBody};
use super::super::survey::script_path;
use super::{Compiler, Work};
use crate::arguments::train;
use crate::problem::Problem;
use crate::spec::{Device, Handler, Recompute, Stage, Train};
use model::ModelShape;

impl Compiler<'_> {
    pub(super) fn train(&mut self, stage: &Stage, train: &Train) -> Option<Work> {
        let spec = self.spec;
        let model = match train.derived {
            Some(_) => Some(self.model("train")?),
            None => self.survey.model.as_ref(),
        };
        let shape = model.map(|model| &model.shape);
        let mut warnings = Vec::new();
        if let (Some(shape), Some(_)) = (shape, &train.derived) {
            self.layout(shape)?;
            self.recompute_fits(train, shape)?;
            warnings = self.doubts(train, shape);
        }
        let start = train::start_arguments(spec, train, shape, self.survey.hosts);
        let body = TrainBody {
            launcher: train.launcher,
            python: spec.runtime.python.clone(),
            script: script_path(spec, &train.script),
            arguments: start.arguments,
            applied: start.applied,
            scheduler: train.scheduler.clone(),
            resume: train.resume,
            save_dir: train.save_dir.clone(),
            load_dir: train::load_dir(spec, train),
            data_path: train::data_path(spec, train),
            parallel: spec.parallel,
            data_parallel: train.data_parallel,
            train_iters: train.derived.as_ref().map(|derived| derived.train_iters),
            expect_pretrained: shape.filter(|_| train.expect_pretrained).map(|shape| shape.vocab_size),
        };
        let digest = self.train_digest(stage, train, &body);
        let task = TaskPlan {
            label: "train".to_owned(),
            copies: 1,
            per_node: false,
            nodes: train.nodes,
            ranks_per_node: train.ranks_per_node,
            slots_per_rank: 1,
            body: Body::Train(Box::new(body)),
            weight_bytes: 0,
            retries: stage.retries,
            limit_ms: stage.limit_ms,
        };
        Some(Work { kind: Kind::Train, tasks: vec![task], closing: None, digest, warnings })
    }

    /// None where something that decides the result is not known by its content:
    /// the script, a checkpoint or token files from elsewhere.
    fn train_digest(&self, stage: &Stage, train: &Train, body: &TrainBody) -> Option<[u8; 32]> {
        let script = self.survey.script.as_ref().filter(|script| script.path == body.script)?;
        let elsewhere = train.load_dir.is_some() || train.derived.as_ref()?.data_path.is_some();
        if elsewhere {
            return None;
        }
        let runtime = &self.spec.runtime;
        let mut digest = Digest::new("train");
        digest
            .text("script", &script.digest)
            .list("args", &body.arguments)
            .text("python", &runtime.python)
            .text("root", runtime.mindspeed_root.as_deref().unwrap_or_default())
            .list("source", &runtime.source)
            .text(
                "device",
                match runtime.device {
                    Device::Ascend => "ascend",
                    Device::Cpu => "cpu",
                },
            )
            .text("world", &format!("{} x {}", train.nodes, train.ranks_per_node));
        for (name, value) in &runtime.env {
            digest.text(name, value);
        }
        let needed = [self.spec.convert().map(|_| "convert"), self.spec.preprocess().map(|_| "preprocess")];
        for name in needed.into_iter().flatten() {
            digest.bytes(name, self.digests.get(name)?);
        }
        self.finish(digest, stage, None)
    }

    fn recompute_fits(&mut self, train: &Train, shape: &ModelShape) -> Option<()> {
        let Some(Recompute::Full { num_layers, .. }) = train.derived.as_ref().and_then(|derived| derived.recompute)
        else {
            return Some(());
        };
        let (pp, deal) = (self.spec.parallel.pp(), &self.spec.deal);
        let layers = (0..pp).map(|stage| deal.slots_of_stage(pp, stage, shape.num_layers)).max().unwrap_or(0);
        if u64::from(num_layers) <= layers {
            return Some(());
        }
        self.problems.push(self.spec.problem(
            "stages.train.recompute.num_layers",
            format!("{num_layers} layers are recomputed, but a pipeline stage has {layers}"),
            Some(format!("use at most {layers}")),
        ));
        None
    }

    fn doubts(&self, train: &Train, shape: &ModelShape) -> Vec<Problem> {
        let spec = self.spec;
        let mut warnings = Vec::new();
        let Some(derived) = &train.derived else { return warnings };
        let instructions = spec.preprocess().is_some_and(|stage| stage.handler == Handler::AlpacaInstruction);
        let flag = "--is-instruction-dataset";
        if instructions && derived.data_path.is_none() && !train.args.iter().any(|word| word == flag) {
            warnings.push(spec.problem(
                "stages.train",
                format!("its token files are instructions, but `args` has no `{flag}`"),
                Some(format!(
                    "add script: posttrain_gpt.py, and args: [--stage, sft, --finetune, {flag}, --prompt-type, qwen]"
                )),
            ));
        }
        if derived.seq_length > shape.max_position_embeddings {
            warnings.push(spec.problem(
                "stages.train.seq_length",
                format!(
                    "{} tokens are more than the model was made for: max_position_embeddings = {}",
                    derived.seq_length, shape.max_position_embeddings
                ),
                None,
            ));
        }
        let distributed = train.args.iter().any(|word| word == "--use-distributed-optimizer");
        if train.checkpoint_optimizer && !distributed && spec.runtime.device == Device::Ascend {
            warnings.push(spec.problem(
                "stages.train.checkpoint_optimizer",
                "MindSpeed's documentation asks for --use-distributed-optimizer when training is to be resumed",
                Some("add it to `args`".to_owned()),
            ));
        }
        warnings
    }
}
