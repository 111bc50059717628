//! `qctl pki`: the cluster's certificates, made beside its controller.

use std::path::PathBuf;
use std::process::Command;

use clap::Subcommand;

use super::beside;
use crate::failure::{Exit, Failure};

/// What to do with them.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PkiArgs {
    #[command(subcommand)]
    command: PkiCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum PkiCommand {
    /// Makes the CA, the controller's identity and the first admin's, where they are missing, and prints the CA's digest
    Init(InitArgs),
}

/// Where, and for whom.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
It is run on the controller's host, as the controller's account; everybody else gets in with a token (qctl token).

Example:
  qctl pki init --controller-dir /var/lib/qctl-controller --san 10.0.0.1 --user ada")]
struct InitArgs {
    /// The controller's state directory; `pki/` is made in it
    #[arg(long, value_name = "DIR")]
    controller_dir: PathBuf,
    /// Further addresses at which the controller is reached (repeatable)
    #[arg(long = "san", value_name = "IP")]
    addresses: Vec<std::net::IpAddr>,
    /// Name of the first user, an admin
    #[arg(long, default_value = "admin")]
    user: String,
}

/// Has the controller's own program make them.
pub(crate) fn run(args: &PkiArgs) -> Result<(), Failure> {
    let PkiCommand::Init(args) = &args.command;
    let program = beside("qctl-controller")?;
    let mut command = Command::new(&program);
    command.arg("init").arg("--state-dir").arg(&args.controller_dir).args(["--user", &args.user]);
    for address in &args.addresses {
        command.args(["--san", &address.to_string()]);
    }
    let status = command.status();
    let status =
        status.map_err(|error| Failure::because(format!("`{}` could not be run", program.display()), &error))?;
    // It has said why.
    if status.success() { Ok(()) } else { Err(Failure::Said(Exit::Failed)) }
}
