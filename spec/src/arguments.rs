//! Exact command lines.
//!
//! The reference scripts' own lines come first, word for word; what is changed
//! afterwards stands in [`corrections`], each entry with its reason.

pub mod convert;
pub mod corrections;
pub mod export;
mod list;
pub mod msrun;
pub mod preprocess;
pub mod resume;
pub mod train;

pub(crate) use list::Arguments;

/// How layers are dealt, under the names that converter and training script share.
fn deal(arguments: &mut Arguments, deal: &model::Deal) {
    let joined = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    if let Some(list) = &deal.list {
        arguments.value("--num-layer-list", joined(list));
    }
    if let Some(layers) = deal.per_chunk {
        arguments.value("--num-layers-per-virtual-pipeline-stage", layers);
    }
    if !deal.noop.is_empty() {
        arguments.value("--noop-layers", joined(&deal.noop));
    }
}

/// A directory joined with a name, in the directory's own spelling.
pub(crate) fn join(dir: &str, name: &str) -> String {
    match dir.trim_end_matches('/') {
        "" => format!("/{name}"),
        dir => format!("{dir}/{name}"),
    }
}
