//! Hugging Face to Megatron-core.

use std::fs;
use std::path::{Path, PathBuf};

use model::Dtype;

use crate::checkpoint::{self, Layout};
use crate::error::{Error, Result};
use crate::parallel::for_each;
use crate::plan::mcore::{Cut, shard};
use crate::progress::{Report, Stop};
use crate::safetensors::HfModel;
use crate::shard::args::Written as Args;
use crate::shard::write::Draft;
use crate::stage::{self, Output, StagedDir, Written};

/// What to convert, and how.
#[derive(Debug)]
pub struct Request<'a> {
    /// The checked source.
    pub model: &'a HfModel,
    /// How it is cut.
    pub cut: Cut,
    /// Type of the written tensors.
    pub dtype: Dtype,
    /// `--tokenizer-model` as given: recorded in `args`, never read.
    pub tokenizer_model: Option<String>,
}

impl Request<'_> {
    fn check(&self) -> Result<()> {
        self.cut.check(self.model.shape())
    }

    fn draft(&self, tp: u32, pp: u32) -> Draft {
        let shape = self.model.shape();
        let args = Args {
            shape,
            parallel: self.cut.parallel,
            padded_vocab: self.cut.vocabulary(shape),
            divisor: self.cut.divisor,
            dtype: self.dtype,
            tokenizer_model: self.tokenizer_model.as_deref(),
        };
        Draft::new(shard(shape, &self.cut, tp, pp), &args, self.cut.convention)
    }

    fn write(&self, draft: &Draft, path: &Path, report: &dyn Report, stop: &Stop) -> Result<Written> {
        let output = Output::create(path, draft.size(), report, stop)?;
        draft.write(output, &|name| self.model.matrix(name))?.finish()
    }
}

/// Writes the shard of one rank to `out`, which appears whole or not at all.
///
/// # Errors
///
/// A layout that does not fit, a rank outside it, and whatever reading or writing meets.
pub fn write_shard(request: &Request<'_>, tp: u32, pp: u32, out: &Path, report: &dyn Report) -> Result<Written> {
    request.check()?;
    let parallel = request.cut.parallel;
    if tp >= parallel.tp() || pp >= parallel.pp() {
        return Err(Error::usage(format!(
            "shard {tp},{pp} lies outside tp x pp = {} x {}",
            parallel.tp(),
            parallel.pp()
        ))
        .with_hint(format!("tp is 0 to {}, pp is 0 to {}", parallel.tp() - 1, parallel.pp() - 1)));
    }
    if !stage::parent(out).is_dir() {
        return Err(Error::bad(stage::parent(out), "is not a directory").with_hint("make the directory of --out first"));
    }
    let draft = request.draft(tp, pp);
    report.expect(draft.size());
    let partial = stage::partial_name(out);
    let written = request.write(&draft, &partial, report, &Stop::default())?;
    stage::publish_file(&partial, out).inspect_err(|_| {
        let _ = fs::remove_file(&partial);
    })?;
    Ok(Written { path: out.to_owned(), ..written })
}

/// Writes a whole checkpoint `iter_0000001` below `save_dir`, its tracker last.
///
/// # Errors
///
/// A layout that does not fit, a `save_dir` that holds something else, and
/// whatever reading or writing meets. Then `save_dir` is as it was, except that
/// it may have been created.
pub fn convert(request: &Request<'_>, save_dir: &Path, report: &dyn Report) -> Result<Vec<Written>> {
    request.check()?;
    let goal = checkpoint::iteration_dir(save_dir, checkpoint::CONVERTED);
    checkpoint::refuse_foreign(save_dir)?;
    let layout = Layout::new(request.cut.parallel);
    let ranks: Vec<(u32, u32)> = layout.ranks().collect();
    let drafts: Vec<Draft> = ranks.iter().map(|(tp, pp)| request.draft(*tp, *pp)).collect();
    report.expect(drafts.iter().map(Draft::size).sum());
    let staged = StagedDir::create(&goal)?;
    let mut paths: Vec<PathBuf> = Vec::new();
    for (tp, pp) in &ranks {
        let path = layout.file(staged.path(), *tp, *pp);
        let dir = stage::parent(&path);
        fs::create_dir(dir).map_err(|e| Error::io("create", dir, e))?;
        paths.push(path);
    }
    let mut written = for_each(ranks.len(), &|i, stop| {
        let written = request.write(&drafts[i], &paths[i], report, stop)?;
        stage::sync_directory(stage::parent(&paths[i]))?;
        Ok(written)
    })?;
    for file in &mut written {
        file.path = staged.goal_of(&file.path);
    }
    checkpoint::remove_tracker(save_dir)?;
    staged.publish()?;
    checkpoint::write_tracker(save_dir, checkpoint::CONVERTED)?;
    // Once for each shard, as the reference logs it, but only when it is true.
    for _ in &written {
        report.note(&checkpoint::saved_line(save_dir));
    }
    Ok(written)
}
