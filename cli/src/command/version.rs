//! `qctl version`.

use proto::v1;
use serde::Serialize;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Format, print_json, print_line, print_yaml, say};
use crate::text::one_line;
use crate::view::Document;

/// How to say it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct VersionArgs {
    /// How it is written; `name` gives this program's version
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Versions {
    client: &'static str,
    /// `null` if no controller can be reached.
    controller: Option<String>,
}

#[cfg(test)]
pub(crate) fn example() -> serde_json::Value {
    let versions = Versions { client: "1", controller: Some("1".into()) };
    serde_json::to_value(Document::new(versions)).unwrap_or_default()
}

/// Prints this program's version, and the controller's if it can be reached.
pub(crate) async fn run(args: &VersionArgs, client: Result<Client, Failure>) -> Result<(), Failure> {
    let controller = match client {
        Ok(mut client) => {
            client.cluster.status(v1::StatusRequest {}).await.ok().map(|reply| reply.into_inner().version)
        }
        Err(_) => None,
    };
    let versions = Versions { client: env!("CARGO_PKG_VERSION"), controller };
    match args.output {
        Format::Json => print_json(&Document::new(versions)),
        Format::Yaml => print_yaml(&Document::new(versions)),
        Format::Name => print_line(versions.client),
        Format::Table | Format::Wide => {
            print_line(&format!("client      {}", versions.client))?;
            match versions.controller {
                Some(version) => print_line(&format!("controller  {}", one_line(&version))),
                None => {
                    say("controller  unreachable");
                    Ok(())
                }
            }
        }
    }
}
