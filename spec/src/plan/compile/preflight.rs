//! What every node is checked for before anything starts.

use model::Retries;

use super::super::pipeline::{Body, Kind, PreflightBody, TaskPlan};
use super::super::survey::script_path;
use super::{Compiler, Work};
use crate::arguments::{export, preprocess, train};
use crate::spec::{Launcher, Preflight, StageBody};

impl Compiler<'_> {
    pub(super) fn preflight(&self, require: &Preflight) -> Work {
        let spec = self.spec;
        let mut body = PreflightBody {
            require: require.clone(),
            device: spec.runtime.device,
            python: spec.runtime.python.clone(),
            needs_mindspore: false,
            mindspeed_root: spec.runtime.mindspeed_root.clone(),
            inputs: spec.runtime.source.clone(),
            outputs: Vec::new(),
            script: None,
            ranks_per_node: 0,
        };
        for stage in &spec.stages {
            match &stage.body {
                StageBody::Preflight(_) | StageBody::Run(_) => {}
                StageBody::Convert(convert) => {
                    body.inputs.extend(spec.hf_dir.clone());
                    body.outputs.push(convert.save_dir.clone());
                }
                StageBody::Preprocess(stage) => {
                    body.inputs.extend(spec.hf_dir.clone());
                    body.inputs.extend(spec.dataset.iter().cloned());
                    body.outputs.extend(stage.outputs().into_iter().map(|key| preprocess::data_path(stage, key)));
                }
                StageBody::Train(stage) => {
                    body.script = Some(script_path(spec, &stage.script));
                    body.ranks_per_node = stage.ranks_per_node;
                    body.needs_mindspore = stage.launcher == Launcher::Msrun
                        || stage.scheduler.iter().any(|word| word.contains("mindspore"));
                    // What an earlier stage writes cannot be there yet.
                    body.inputs.extend(stage.load_dir.as_ref().and_then(|_| train::load_dir(spec, stage)));
                    let given = stage.derived.as_ref().and_then(|derived| derived.data_path.as_ref());
                    body.inputs.extend(given.map(|path| format!("{path}.idx")));
                    body.outputs.extend(stage.save_dir.clone());
                }
                StageBody::Export(stage) => body.outputs.push(export::output_dir(stage)),
            }
        }
        body.inputs.sort();
        body.inputs.dedup();
        let task = TaskPlan {
            label: "preflight".to_owned(),
            copies: 1,
            per_node: true,
            nodes: 1,
            ranks_per_node: 1,
            slots_per_rank: 0,
            body: Body::Preflight(body),
            weight_bytes: 0,
            retries: Retries::new(0),
            limit_ms: None,
        };
        // A host that was sound yesterday proves nothing today.
        Work { kind: Kind::Preflight, tasks: vec![task], closing: None, digest: None, warnings: Vec::new() }
    }
}
