//! `qctl certs` and `qctl revoke`: who was let in, and who is out again.

use proto::v1;
use runtime::clock::now_ms;
use serde::Serialize;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Format, print_json, print_line, print_yaml, say};
use crate::table::print_table;
use crate::text::{duration, one_line, plural};
use crate::view::Document;

/// Which certificates, and how.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Certificates that were made beside the controller (qctl pki init) are known once they have been shown to it.

Example:
  qctl certs --name node-7")]
pub(crate) struct CertsArgs {
    /// Only this node's or user's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How the list is written; `name` gives serial numbers
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Whose, and why.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
What is revoked is refused at once, and its open connections end. By name, tokens that wait are taken back too. A new
token for the name lets it in again. What a node runs goes on, and is silent.

Example:
  qctl revoke node-7 --reason \"sold\"")]
pub(crate) struct RevokeArgs {
    /// A node's or user's name, for all that it has, or a certificate's serial number
    #[arg(value_name = "NAME|SERIAL")]
    word: String,
    /// Why, for those who ask
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// Lists certificates.
pub(crate) async fn run(args: &CertsArgs, mut client: Client) -> Result<(), Failure> {
    let mut all = client.cluster.list_certificates(v1::ListCertificatesRequest {}).await?.into_inner().certificates;
    all.retain(|one| args.name.as_ref().is_none_or(|name| one.name == *name));
    match args.output {
        Format::Json => print_json(&document(all)),
        Format::Yaml => print_yaml(&document(all)),
        Format::Name => all.iter().try_for_each(|one| print_line(&one_line(&one.serial))),
        Format::Table | Format::Wide if all.is_empty() => {
            say("no certificate of that name is known");
            Ok(())
        }
        Format::Table => print_table(HEADER, all.iter().map(line).collect()),
        Format::Wide => {
            let wide = |one: &v1::CertificateView| {
                let [role, name, standing, serial] = line(one);
                [role, name, standing, serial, one.revoked_by.clone(), one.reason.clone()]
            };
            print_table(["ROLE", "NAME", "STANDING", "SERIAL", "REVOKED BY", "WHY"], all.iter().map(wide).collect())
        }
    }
}

/// Takes certificates and tokens back.
pub(crate) async fn revoke(args: &RevokeArgs, mut client: Client) -> Result<(), Failure> {
    let request = v1::RevokeRequest { word: args.word.clone(), reason: args.reason.clone() };
    let done = client.cluster.revoke(request).await?.into_inner();
    for one in &done.certificates {
        print_line(&one_line(&format!("revoked {} {} {}", one.role, one.name, one.serial)))?;
    }
    let tokens = usize::try_from(done.tokens).unwrap_or(usize::MAX);
    if tokens > 0 {
        say(&format!("{} taken back", plural(tokens, "token")));
    }
    if done.certificates.is_empty() && tokens == 0 {
        say(&format!("no good certificate of `{}` is known; one made before now is refused", one_line(&args.word)));
    }
    Ok(())
}

const HEADER: [&str; 4] = ["ROLE", "NAME", "STANDING", "SERIAL"];

fn line(one: &v1::CertificateView) -> [String; 4] {
    let now = now_ms();
    let ago = |at: u64| duration(now.saturating_sub(at));
    let standing = match one {
        one if one.revoked_ms > 0 => format!("revoked {} ago", ago(one.revoked_ms)),
        one if one.expires_ms <= now => format!("ended {} ago", ago(one.expires_ms)),
        one => format!("good for {}", duration(one.expires_ms - now)),
    };
    [one.role.clone(), one.name.clone(), standing, one.serial.clone()]
}

#[derive(Debug, Serialize)]
struct Certificates {
    certificates: Vec<Certificate>,
}

#[derive(Debug, Serialize)]
struct Certificate {
    serial: String,
    role: String,
    name: String,
    known_ms: u64,
    expires_ms: u64,
    revoked_ms: Option<u64>,
    revoked_by: Option<String>,
    reason: Option<String>,
}

fn document(all: Vec<v1::CertificateView>) -> Document<Certificates> {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let certificate = |one: v1::CertificateView| Certificate {
        serial: one.serial,
        role: one.role,
        name: one.name,
        known_ms: one.known_ms,
        expires_ms: one.expires_ms,
        revoked_ms: Some(one.revoked_ms).filter(|at| *at > 0),
        revoked_by: given(one.revoked_by),
        reason: given(one.reason),
    };
    Document::new(Certificates { certificates: all.into_iter().map(certificate).collect() })
}

#[cfg(test)]
pub(super) fn example() -> serde_json::Value {
    serde_json::to_value(document(vec![v1::CertificateView::default()])).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_good_ended_or_revoked() {
        let now = now_ms();
        let one = |expires_ms, revoked_ms| v1::CertificateView { expires_ms, revoked_ms, ..Default::default() };
        let standing = |view: &v1::CertificateView| line(view)[2].clone();
        assert!(standing(&one(now + 90_000, 0)).starts_with("good for 1 m"));
        assert!(standing(&one(now - 90_000, 0)).starts_with("ended 1 m"));
        assert!(standing(&one(now + 90_000, now - 5000)).starts_with("revoked 5."));
    }
}
