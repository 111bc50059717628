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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_command_has_a_page_and_hidden_ones_have_none() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("share/man1");
        run(&ManArgs { directory: Some(directory.clone()) }).unwrap();
        let text = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
        for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
            let page = directory.join(format!("qctl-{}.1", command.get_name()));
            assert_eq!(page.is_file(), !command.is_hide_set(), "{}", page.display());
        }
        assert!(text("qctl.1").contains("Exit codes") && text("qctl-logs.1").contains("grep"));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(run(&ManArgs { directory: Some(file.join("x")) }), Err(Failure::Told { .. })));
    }
}
