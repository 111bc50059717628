//! `qctl man`.

use std::path::PathBuf;

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::{print_bytes, say};

/// Where to.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  qctl man | man -l -
  qctl man ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Directory for one page for each command; without it, the first page goes to stdout
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    directory: Option<PathBuf>,
}

/// Writes the pages.
pub(crate) fn run(args: &ManArgs) -> Result<(), Failure> {
    let command = Cli::command();
    let Some(directory) = &args.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return print_bytes(&page);
    };
    let failed =
        |error: &std::io::Error| Failure::because(format!("`{}` could not be written", directory.display()), error);
    std::fs::create_dir_all(directory).map_err(|error| failed(&error))?;
    clap_mangen::generate_to(command, directory).map_err(|error| failed(&error))?;
    say(&format!("written; read one: man {}", directory.join("qctl-logs.1").display()));
    Ok(())
}
