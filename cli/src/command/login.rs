//! `qctl login`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::v1;

use crate::client::Client;
use crate::context::{self, Context};
use crate::failure::{Exit, Failure};
use crate::output::say;
use crate::text::one_line;

/// How long a controller may take to answer before it counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(10);

const AFTER: &str = "\
Example:
  qctl login --controller https://10.0.0.1:7400 --identity ~/.config/qctl/ada

What is written goes into the state directory (`--state-dir`, or QCTL_STATE_DIR); one directory for each cluster \
keeps several apart.";

/// Which controller, and as whom.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct LoginArgs {
    /// The controller, as https://HOST:PORT
    #[arg(long, value_name = "URL")]
    controller: String,
    /// Directory of your ca.pem, cert.pem and key.pem, as the operator gave them to you; it stays where it is
    #[arg(long, value_name = "DIR")]
    identity: PathBuf,
}

/// Remembers a controller that has answered; one that has not leaves what was known before.
pub(crate) async fn run(args: &LoginArgs, state_dir: Option<&Path>) -> Result<(), Failure> {
    let state_dir = context::state_dir(state_dir)?;
    let identity = std::path::absolute(&args.identity)
        .map_err(|error| Failure::because(format!("`{}` is no path", args.identity.display()), &error))?;
    let controller = args.controller.trim_end_matches('/');
    if !controller.starts_with("https://") {
        let failure = Failure::new(Exit::Usage, format!("`{}` is no address of a controller", one_line(controller)));
        return Err(failure.hint("it is https://HOST:PORT"));
    }
    let context = Context { endpoint: controller.to_owned(), identity };
    let mut client = Client::of(&context)
        .map_err(|failure| failure.hint("`--identity` names the directory of your ca.pem, cert.pem and key.pem"))?;
    let asked = client.cluster.status(v1::StatusRequest {});
    let Ok(answer) = tokio::time::timeout(PATIENCE, asked).await else {
        let message = format!("{} has not answered within {} s", one_line(controller), PATIENCE.as_secs());
        return Err(Failure::new(Exit::Unreachable, message)
            .hint("is the controller up, is it its address, and does a firewall let it through?"));
    };
    let status = answer.map_err(|status| {
        let unreachable = status.code() == tonic::Code::Unavailable;
        let failure = Failure::from(status);
        if unreachable {
            failure.hint("is the controller up at this address, and is `ca.pem` its CA's?")
        } else {
            failure
        }
    })?;
    std::fs::create_dir_all(&state_dir)
        .and_then(|()| context::save(&state_dir, &context))
        .map_err(|error| Failure::because(format!("`{}` could not be written", state_dir.display()), &error))?;
    say(&format!(
        "the controller at {} answers (version {})",
        one_line(controller),
        one_line(&status.into_inner().version)
    ));
    Ok(())
}
