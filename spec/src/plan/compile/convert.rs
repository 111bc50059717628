//! One task for each shard, and one that publishes them.

use super::super::digest::Digest;
use super::super::pipeline::{Body, Kind};
use super::super::weights::shard_bytes;
use super::{Compiler, Work, engine_task};
use crate::arguments::convert;
use crate::spec::{Convert, Stage};

impl Compiler<'_> {
    pub(super) fn convert(&mut self, stage: &Stage, convert: &Convert) -> Option<Work> {
        let model = self.model("convert")?;
        self.layout(&model.shape)?;
        let (spec, shape) = (self.spec, &model.shape);
        let element = convert.dtype.unwrap_or(shape.dtype).size();
        let divisor = u64::from(convert.vocab_divisor);
        let mut tasks = Vec::new();
        for pp in 0..spec.parallel.pp() {
            let weight = shard_bytes(shape, spec.parallel, divisor, element, pp);
            for tp in 0..spec.parallel.tp() {
                let args = convert::shard_arguments(spec, convert, shape, tp, pp);
                let body = Body::ConvertShard { tp, pp, args };
                tasks.push(engine_task(format!("pp {pp}, tp {tp}"), body, weight, stage.retries));
            }
        }
        let publish = Body::ConvertPublish { args: convert::publish_arguments(spec, convert) };
        let mut digest = Digest::new("convert");
        digest.list("args", &convert::arguments(spec, convert, shape)).text("model", &model.digest);
        let mut warnings = Vec::new();
        if convert.dtype.is_some_and(|dtype| dtype.size() < shape.dtype.size()) {
            warnings.push(spec.problem(
                "stages.convert.dtype",
                format!("the model's {} tensors lose precision", shape.dtype.flag()),
                None,
            ));
        }
        Some(Work {
            kind: Kind::Convert,
            tasks,
            closing: Some(engine_task("publish".to_owned(), publish, 0, stage.retries)),
            digest: self.finish(digest, stage, None),
            warnings,
        })
    }

    /// Checks once that the layout cuts the model evenly.
    pub(super) fn layout(&mut self, shape: &model::ModelShape) -> Option<()> {
        let Err(error) = self.spec.parallel.check(shape) else { return Some(()) };
        let path = match &error {
            model::LayoutError::DoesNotDivide { what, .. } => format!("parallel.{what}"),
            model::LayoutError::Zero { .. } | model::LayoutError::WorldSize { .. } => "parallel".to_owned(),
        };
        let problem = self.spec.problem(&path, error.to_string(), error.hint());
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
        None
    }
}
