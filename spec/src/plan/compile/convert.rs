//! One task for each shard, and one that publishes them.

use model::{LayoutError, ModelShape};

use super::super::digest::Digest;
use super::super::pipeline::{Body, Kind};
use super::super::weights::shard_bytes;
use super::{Compiler, Work, engine_task};
use crate::arguments::convert;
use crate::spec::{Convert, Stage};
use crate::words::Convention;

impl Compiler<'_> {
    pub(super) fn convert(&mut self, stage: &Stage, convert: &Convert) -> Option<Work> {
        let model = self.model("convert")?;
        self.layout(&model.shape)?;
        let (spec, shape) = (self.spec, &model.shape);
        let element = convert.dtype.unwrap_or(shape.dtype).size();
        let divisor = u64::from(convert.vocab_divisor);
        let mut tasks = Vec::new();
        for pp in 0..spec.parallel.pp() {
            let weight = shard_bytes(shape, spec.parallel, &spec.deal, divisor, element, pp);
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
    pub(super) fn layout(&mut self, shape: &ModelShape) -> Option<()> {
        let spec = self.spec;
        let fits =
            spec.parallel.check_tensors(shape).and_then(|()| spec.deal.check(spec.parallel.pp(), shape.num_layers));
        let Err(error) = fits else { return self.vocabulary(shape) };
        let path = match &error {
            LayoutError::DoesNotDivide { what, .. } => format!("parallel.{what}"),
            LayoutError::Zero { .. } | LayoutError::WorldSize { .. } => "parallel".to_owned(),
            LayoutError::List { .. } | LayoutError::Exclusive { .. } => "parallel.num_layer_list".to_owned(),
            LayoutError::Chunk { .. } => "parallel.num_layers_per_virtual_pipeline_stage".to_owned(),
            LayoutError::Noop { .. } => "parallel.noop_layers".to_owned(),
        };
        let problem = self.spec.problem(&path, error.to_string(), error.hint());
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
        None
    }

    /// Without padding, tp must divide the vocabulary.
    fn vocabulary(&mut self, shape: &ModelShape) -> Option<()> {
        let (tp, unpadded) = (self.spec.parallel.tp(), |convert: &Convert| convert.convention == Convention::V2);
        if !self.spec.convert().is_some_and(unpadded) || shape.vocab_size.is_multiple_of(u64::from(tp)) {
            return Some(());
        }
        let message = format!("tp {tp} does not divide vocab_size = {}, and v2 does not pad it", shape.vocab_size);
        let problem = self.spec.problem("stages.convert.convention", message, Some("say `convention: v1`".to_owned()));
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
        None
    }
}
