//! `qctl login`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::v1;
use proto::v1::cluster_client::ClusterClient;
use runtime::channel::{addresses, anonymous_channel};
use runtime::files::write_durably;
use runtime::tls::{Identity, peer_of_pem};

use crate::client::Client;
use crate::context::{self, Context};
use crate::failure::{Exit, Failure, exit_of};
use crate::output::say;
use crate::text::one_line;

/// How long a controller may take to answer before it counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(10);

const AFTER: &str = "\
Examples:
  QCTL_TOKEN=… qctl login --controller https://10.0.0.1:7400 --ca-digest blake3:…
  qctl login --controller https://10.0.0.1:7400 --identity ~/.config/qctl/ada
  qctl login --renew

What is written goes into the state directory (`--state-dir`, or QCTL_STATE_DIR); one directory for each cluster \
keeps several apart.";

/// Which controller, and as whom.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct LoginArgs {
    /// The controller, as https://HOST:PORT; several with commas between
    #[arg(long, value_name = "URL", required_unless_present = "renew")]
    controller: Option<String>,
    /// Directory of your ca.pem, cert.pem and key.pem, as an admin gave them to you; it stays where it is
    #[arg(long, value_name = "DIR", conflicts_with = "token", required_unless_present_any = ["token", "renew"])]
    identity: Option<PathBuf>,
    /// The token that an admin gave you: it is exchanged for a certificate. Better in QCTL_TOKEN than on a command line
    #[arg(long, env = "QCTL_TOKEN", hide_env_values = true, value_name = "TOKEN", requires = "ca_digest")]
    token: Option<String>,
    /// Digest of the cluster's CA, as it came with the token, to know the controller by
    #[arg(long, value_name = "DIGEST")]
    ca_digest: Option<String>,
    /// Gets another certificate in place of the present one, before that ends
    #[arg(long, conflicts_with_all = ["controller", "identity", "token", "ca_digest"])]
    renew: bool,
}

/// Remembers a controller that has answered; one that has not leaves what was known before.
pub(crate) async fn run(args: &LoginArgs, state_dir: Option<&Path>) -> Result<(), Failure> {
    let state_dir = context::state_dir(state_dir)?;
    let Some(controller) = &args.controller else { return renew(&context::load(&state_dir)?).await };
    let controller = controller.trim_end_matches('/');
    if let Some(wrong) = addresses(controller).iter().find(|one| !one.starts_with("https://")) {
        let failure = Failure::new(Exit::Usage, format!("`{}` is no address of a controller", one_line(wrong)));
        return Err(failure.hint("it is https://HOST:PORT"));
    }
    let identity = match (&args.identity, &args.token, &args.ca_digest) {
        (Some(identity), _, _) => std::path::absolute(identity)
            .map_err(|error| Failure::because(format!("`{}` is no path", identity.display()), &error))?,
        (None, Some(token), Some(digest)) => join(controller, token, digest, &state_dir).await?,
        (None, _, _) => return Err(Failure::new(Exit::Usage, "neither an identity nor a token was given")),
    };
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

/// Exchanges a token for an identity below the state directory; returns where it lies.
async fn join(controllers: &str, token: &str, digest: &str, state_dir: &Path) -> Result<PathBuf, Failure> {
    let mut refused = None;
    for controller in addresses(controllers) {
        match ask(&controller, token, digest).await {
            Ok((identity, who)) => {
                let dir = state_dir.join("identity").join(one_line(&who.name));
                make_private(&state_dir.join("identity"))
                    .and_then(|()| identity.save(&dir))
                    .map_err(|error| Failure::because(format!("`{}` could not be written", dir.display()), &error))?;
                say(&format!("you are {} `{}`", one_line(&who.role), one_line(&who.name)));
                return Ok(dir);
            }
            // Of several controllers the one that leads answers; the others say who does.
            Err((failure, true)) => return Err(failure),
            Err((failure, false)) => refused = refused.or(Some(failure)),
        }
    }
    Err(refused.unwrap_or_else(|| Failure::new(Exit::Usage, "no controller was named")))
}

/// The identity that the token is good for; or why not, and whether another controller need not be asked.
async fn ask(controller: &str, token: &str, digest: &str) -> Result<(Identity, v1::JoinReply), (Failure, bool)> {
    let elsewhere = |failure| (failure, false);
    let (asked, pinned) = (controller.to_owned(), digest.to_owned());
    let shown = tokio::task::spawn_blocking(move || runtime::pinned::find_ca(&asked, &pinned)).await;
    let shown = shown.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let unreachable = format!("{} could not be asked for its CA", one_line(controller));
    let ca = shown.map_err(|error| {
        elsewhere(Failure::new(Exit::Unreachable, format!("{unreachable}: {error}")).hint("is it up, at this address?"))
    })?;
    let Some(ca) = ca else {
        let failure = format!("{} shows no CA of that digest: it is not your controller", one_line(controller));
        let failure = Failure::new(Exit::NotPermitted, failure);
        return Err(elsewhere(
            failure.hint("check address and digest with whoever gave you the token; it was not sent"),
        ));
    };
    let made = runtime::pki::new_key_and_csr("new");
    let (key, csr) = made.map_err(|error| (Failure::because("no key could be made", &error), true))?;
    let channel = anonymous_channel(controller, &ca)
        .map_err(|error| elsewhere(Failure::because("the controller cannot be called", &error)))?;
    let request = v1::JoinRequest { token: token.to_owned(), node: String::new(), csr };
    let reply = ClusterClient::new(channel).join(request).await.map_err(|status| {
        let last = exit_of(status.code()) != Exit::Unreachable;
        (Failure::from(status), last)
    })?;
    let reply = reply.into_inner();
    // Who one is the certificate says; the name is a directory's.
    let holder = peer_of_pem(&reply.certificate).filter(|peer| runtime::pki::is_name(&peer.name) && peer.name != "..");
    let Some(holder) = holder else {
        return Err((Failure::new(Exit::Failed, "the controller gave no certificate of this cluster"), true));
    };
    let identity = Identity { ca, cert: reply.certificate.clone(), key };
    Ok((identity, v1::JoinReply { role: holder.role.name().to_owned(), name: holder.name, ..reply }))
}

/// Gets another certificate for the same key: it alone is replaced, in one rename.
async fn renew(context: &Context) -> Result<(), Failure> {
    let mut client = Client::of(context)?;
    let failed = |what: &str, error: &dyn std::error::Error| Failure::because(what, error);
    let identity =
        Identity::load(&context.identity).map_err(|error| failed("the client certificate is missing", &error))?;
    let csr = runtime::pki::csr_of(&identity.key).map_err(|error| failed("the key cannot be used", &error))?;
    let renewed = client.cluster.renew(v1::RenewRequest { csr }).await?.into_inner().certificate;
    let path = context.identity.join("cert.pem");
    write_durably(&path, renewed.as_bytes())
        .map_err(|error| failed(&format!("`{}` could not be written", path.display()), &error))?;
    let days = runtime::pki::ends(&renewed).unwrap_or_default().saturating_sub(runtime::clock::now_ms()) / 86_400_000;
    say(&format!("your certificate is good for {days} days"));
    Ok(())
}

fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
