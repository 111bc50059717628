//! `qctl convert`, `qctl preprocess`: the engines, as they are.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::failure::{Exit, Failure};

/// Arguments that are not read here.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EngineArgs {
    /// Arguments of the engine; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) args: Vec<OsString>,
}

/// Becomes the engine; returns only if that fails.
pub(crate) fn run(program: &str, args: &EngineArgs) -> Result<(), Failure> {
    let path = beside(program)?;
    let error = Command::new(&path).args(&args.args).exec();
    Err(Failure::because(format!("`{}` could not be started", path.display()), &error))
}

/// Path of this program; the first answer is kept, since a program that is
/// replaced while it runs does not find itself again.
pub(crate) fn own() -> Result<PathBuf, Failure> {
    static OWN: OnceLock<PathBuf> = OnceLock::new();
    if let Some(own) = OWN.get() {
        return Ok(own.clone());
    }
    let own = std::env::current_exe().map_err(|error| Failure::because("this program's path is not known", &error))?;
    Ok(OWN.get_or_init(|| own).clone())
}

/// Path of a program that is installed beside this one.
pub(crate) fn beside(program: &str) -> Result<PathBuf, Failure> {
    let path = own()?.with_file_name(program);
    if path.is_file() {
        return Ok(path);
    }
    let failure = Failure::new(Exit::Failed, format!("`{program}` is not installed: there is no `{}`", path.display()));
    Err(failure.hint("install all programs of qctl into one directory"))
}
