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

/// A directory joined with a name, in the directory's own spelling.
pub(crate) fn join(dir: &str, name: &str) -> String {
    match dir.trim_end_matches('/') {
        "" => format!("/{name}"),
        dir => format!("{dir}/{name}"),
    }
}
