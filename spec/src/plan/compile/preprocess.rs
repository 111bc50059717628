//! Slices of the input text, and one task that merges them.

use super::super::digest::Digest;
use super::super::pipeline::{Body, Kind};
use super::super::shards::split;
use super::{Compiler, Work, engine_task};
use crate::arguments::preprocess::{self, Part};
use crate::decode::list;
use crate::nearest::nearest;
use crate::spec::{Preprocess, Stage};
use crate::words::Handler;

impl Compiler<'_> {
    pub(super) fn preprocess(&mut self, stage: &Stage, preprocess: &Preprocess) -> Option<Work> {
        let before = self.problems.len();
        self.dataset_is_readable(preprocess);
        self.tokenizer_fits(preprocess);
        if self.problems.len() > before {
            return None;
        }
        let (spec, dataset) = (self.spec, &self.survey.dataset);
        let wanted = preprocess.shards.unwrap_or(self.survey.agents.max(1));
        let together = preprocess.is_grouped() && (dataset.len() > 1 || dataset.iter().any(|file| file.rows.is_none()));
        let slices =
            if together { Vec::new() } else { split(dataset, wanted, if preprocess.is_grouped() { 50 } else { 1 }) };
        let total = slices.len();
        let mut tasks = Vec::with_capacity(total);
        for (index, slice) in slices.into_iter().enumerate() {
            let file = &dataset[slice.file];
            let name = file.path.rsplit('/').next().unwrap_or_default();
            let part = match slice.part {
                Part::Whole => String::new(),
                Part::Rows { start, end } => format!(" rows {start}..{end}"),
                Part::Bytes { start, end } => format!(" bytes {start}..{end}"),
            };
            let label = format!("shard {} of {total}: {name}{part}", index + 1);
            let args = preprocess::shard_arguments(spec, preprocess, &[&file.path], slice.part);
            let body = Body::Tokenize { index: u32::try_from(index).ok()?, args };
            tasks.push(engine_task(label, body, slice.bytes, stage.retries));
        }
        let weight = dataset.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
        if together {
            // Fifty rows may lie in two files: only one task sees them together.
            let inputs: Vec<&str> = dataset.iter().map(|file| file.path.as_str()).collect();
            let args = preprocess::shard_arguments(spec, preprocess, &inputs, Part::Whole);
            let label = format!("shard 1 of 1: {} files", inputs.len());
            tasks.push(engine_task(label, Body::Tokenize { index: 0, args }, weight, stage.retries));
        }
        let mut warnings = Vec::new();
        for (index, file) in dataset.iter().enumerate().filter(|(_, file)| file.rows == Some(0)) {
            warnings.push(spec.problem(
                &format!("dataset.files.{index}"),
                format!("`{}` has no rows", file.path),
                None,
            ));
        }
        let merge = Body::TokenizeMerge { args: preprocess::merge_arguments(spec, preprocess) };
        Some(Work {
            kind: Kind::Preprocess,
            tasks,
            closing: Some(engine_task("merge".to_owned(), merge, weight, stage.retries)),
            digest: self.preprocess_digest(stage, preprocess),
            warnings,
        })
    }

    /// Threads and the number of shards decide nothing about the result.
    fn preprocess_digest(&self, stage: &Stage, preprocess: &Preprocess) -> Option<[u8; 32]> {
        let neutral = Preprocess { workers: 1, ..preprocess.clone() };
        let mut digest = Digest::new("preprocess");
        for file in &self.survey.dataset {
            digest.list("args", &preprocess::arguments(self.spec, &neutral, &file.path));
            digest.text("content", &file.digest);
        }
        digest.text("tokenizer", &self.survey.tokenizer.as_ref()?.digest);
        self.finish(digest, stage, None)
    }

    fn dataset_is_readable(&mut self, preprocess: &Preprocess) {
        let spec = self.spec;
        for (index, path) in spec.dataset.iter().enumerate() {
            let at = format!("dataset.files.{index}");
            let Some(file) = self.survey.dataset.get(index).filter(|file| file.path == *path) else {
                self.problems.push(spec.problem(
                    &at,
                    format!("no agent could read `{path}`"),
                    Some("check the path on the hosts, and that agents are ready: qctl nodes".to_owned()),
                ));
                continue;
            };
            let columns: Vec<&str> = file.columns.iter().map(String::as_str).collect();
            for key in preprocess.columns().into_iter().filter(|key| !columns.is_empty() && !columns.contains(key)) {
                let near = nearest(key, columns.iter().copied());
                let hint = match (preprocess.handler, near) {
                    (Handler::Pretrain, Some(near)) => {
                        format!("did you mean `{near}`? set stages.preprocess.json_keys")
                    }
                    (Handler::Pretrain, None) => {
                        format!("set stages.preprocess.json_keys to one of {}", list(&columns))
                    }
                    (Handler::AlpacaPretrain | Handler::AlpacaInstruction, Some(near)) => {
                        format!("rename the column `{near}`, or choose another stages.preprocess.handler")
                    }
                    (Handler::AlpacaPretrain | Handler::AlpacaInstruction, None) => {
                        "choose another stages.preprocess.handler: this one reads instruction, input and output"
                            .to_owned()
                    }
                };
                self.problems.push(spec.problem(&at, format!("`{path}` has no column `{key}`"), Some(hint)));
            }
        }
        if !self.survey.dataset.is_empty() && self.survey.dataset.iter().all(|file| file.rows == Some(0)) {
            self.problems.push(spec.problem("dataset.files", "the input has no rows", None));
        }
    }

    fn tokenizer_fits(&mut self, preprocess: &Preprocess) {
        let spec = self.spec;
        let dir = spec.hf_dir.as_deref().unwrap_or_default();
        let Some(tokenizer) = &self.survey.tokenizer else {
            self.problems.push(spec.problem(
                "model.hf_dir",
                format!("no agent could read a tokenizer in `{dir}`"),
                Some("the directory needs tokenizer.json".to_owned()),
            ));
            return;
        };
        if preprocess.append_eod && tokenizer.eos.is_none() {
            self.problems.push(spec.problem(
                "stages.preprocess.append_eod",
                format!("the tokenizer in `{dir}` has no end-of-text token"),
                Some("add `eos_token` to its tokenizer_config.json, or remove append_eod".to_owned()),
            ));
        }
        let vocab = self.survey.model.as_ref().map(|model| model.shape.vocab_size);
        if let (Some(ids), Some(rows)) = (tokenizer.vocab_size, vocab)
            && ids > rows
        {
            self.problems.push(spec.problem(
                "model.hf_dir",
                format!("the tokenizer has {ids} ids, the model's embedding {rows} rows"),
                Some("use the tokenizer that belongs to the model".to_owned()),
            ));
        }
    }
}
