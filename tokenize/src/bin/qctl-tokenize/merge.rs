//! `merge`: slices into one pair per key.

use tokenize::{Merge, merge};

use crate::flags::MergeFlags;
use crate::parts;
use crate::report::{Failure, Report};

pub(crate) fn run(flags: &MergeFlags, report: &mut Report) -> Result<(), Failure> {
    let parts = match &flags.manifest {
        Some(manifest) => parts::read(manifest)?,
        None => flags.parts.clone(),
    };
    let total = parts.len() * flags.json_keys.len();
    let job = Merge {
        output_prefix: flags.output_prefix.clone(),
        keys: flags.json_keys.clone(),
        parts,
        remove_parts: flags.remove_parts,
        digests: report.is_json(),
    };
    let summary = merge(&job, &mut |done, tokens| report.merged(done, total, tokens))?;
    report.talk(&format!(
        "merged {} parts: {} sequences, {} tokens",
        job.parts.len(),
        summary.sequences,
        summary.tokens
    ));
    report.result(&summary);
    Ok(())
}
