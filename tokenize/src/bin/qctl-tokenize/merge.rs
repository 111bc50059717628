//! `merge`: slices into one pair per key.

use tokenize::{Backend, Merge, PackMerge, Tokenizer, merge, merge_groups};

use crate::flags::{MergeFlags, RunFlags};
use crate::parts;
use crate::report::{Failure, Report};

pub(crate) fn run(flags: &MergeFlags, report: &mut Report) -> Result<(), Failure> {
    let parts = match &flags.manifest {
        Some(manifest) => parts::read(manifest)?,
        None => flags.parts.clone(),
    };
    let total = parts.len() * flags.json_keys.len();
    let pack = match (&flags.tokenizer_name_or_path, flags.seq_length) {
        (Some(directory), Some(seq_length)) if flags.pack => {
            let pad_id = Tokenizer::load(directory, Backend::Reference)?.packing_pad_id()?;
            Some(PackMerge { seq_length, pad_id })
        }
        _ => None,
    };
    let job = Merge {
        pack,
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

/// The reference's `--merge-group-keys`: no tokenizer, no texts.
pub(crate) fn run_groups(flags: &RunFlags, report: &mut Report) -> Result<(), Failure> {
    let [folder] = flags.input.as_slice() else {
        return Err(Failure::new("`--merge-group-keys` takes one `--input`", "give the directory of the pairs"));
    };
    if folder.exists() && !folder.is_dir() {
        let what = format!("`{}` is a file, and `--merge-group-keys` joins the pairs of a directory", folder.display());
        return Err(Failure::new(what, "give the directory of the `.bin` and `.idx` files as `--input`"));
    }
    let (keys, json) = (&flags.merge_group_keys, report.is_json());
    let watch = &mut |done, tokens| report.merged(done, done, tokens);
    let summary = merge_groups(folder, keys, &flags.output_prefix, json, watch)?;
    report.talk(&format!("merged: {} sequences, {} tokens", summary.sequences, summary.tokens));
    report.result(&summary);
    Ok(())
}
