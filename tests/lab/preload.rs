//! A library that changes what a daemon believes of its host's clock and disk.

use std::path::Path;
use std::process::Command;

use stories::program::run;

use crate::site::{LONG, Site};

/// Builds it into the laboratory; its path.
pub(crate) fn built(site: &Site) -> String {
    let (source, into) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/preload.c"), site.lab.root().join("preload.so"));
    // The linker of every Rust build.
    let _ = run(Command::new("cc").args(["-shared", "-fPIC", "-O", "-o"]).arg(&into).arg(source), LONG).ok();
    into.to_string_lossy().into_owned()
}
