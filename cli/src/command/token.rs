//! `qctl token`: tokens that others become members with.

use clap::{Subcommand, ValueEnum};
use proto::v1;
use runtime::clock::now_ms;
use serde::Serialize;

use crate::client::Client;
use crate::failure::Failure;
use crate::moment::span;
use crate::output::{Format, print_json, print_line, print_yaml, say};
use crate::table::print_table;
use crate::text::{duration, one_line};
use crate::view::Document;

/// What to do with tokens.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum TokenCommand {
    /// Makes a token, good for one use, and prints it
    Create(CreateArgs),
    /// Lists tokens that wait for their use
    Ls(ListArgs),
}

/// For whom, as what, for how long.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
An operator makes tokens of agents, an admin all. A token that is not used is taken back with `qctl revoke NAME`.

Examples:
  qctl token create --role agent --name node-7 --ttl 1h
  qctl token create --role user --name bob")]
struct CreateArgs {
    /// What its user becomes
    #[arg(long, value_enum)]
    role: Role,
    /// Name of the node or user, as it stands in the certificate
    #[arg(long, value_name = "NAME")]
    name: String,
    /// How long it is good for: one minute to a day
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = span)]
    ttl: u64,
    /// How it is written; `name` gives the token alone
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// A host's agent
    Agent,
    /// Looks
    Viewer,
    /// Has jobs of its own
    User,
    /// Looks after nodes and everybody's jobs
    Operator,
    /// Also lets others in
    Admin,
}

/// How to list.
#[derive(Clone, Debug, clap::Args)]
struct ListArgs {
    /// How the list is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Makes or lists tokens.
pub(crate) async fn run(args: &TokenArgs, client: Client) -> Result<(), Failure> {
    match &args.command {
        TokenCommand::Create(args) => create(args, client).await,
        TokenCommand::Ls(args) => list(args, client).await,
    }
}

async fn create(args: &CreateArgs, mut client: Client) -> Result<(), Failure> {
    let role = args.role.to_possible_value().map(|role| role.get_name().to_owned()).unwrap_or_default();
    let request = v1::CreateTokenRequest { role, name: args.name.clone(), ttl_ms: args.ttl };
    let made = client.cluster.create_token(request).await?.into_inner();
    let (token, digest) = (one_line(&made.token), one_line(&made.ca_digest));
    match args.output {
        Format::Json => print_json(&created(made)),
        Format::Yaml => print_yaml(&created(made)),
        Format::Name => print_line(&token),
        Format::Table | Format::Wide => {
            print_line(&token)?;
            let left = duration(args.ttl);
            let command = if args.role == Role::Agent {
                format!("qctl-agent join --node {} --controller URL --pki DIR --ca-digest {digest}", args.name)
            } else {
                format!("qctl login --controller URL --ca-digest {digest}")
            };
            let variable = if args.role == Role::Agent { "QCTL_JOIN_TOKEN" } else { "QCTL_TOKEN" };
            say(&format!("good once, for {left}; with it in {variable}: {command}"));
            Ok(())
        }
    }
}

async fn list(args: &ListArgs, mut client: Client) -> Result<(), Failure> {
    let tokens = client.cluster.list_tokens(v1::ListTokensRequest {}).await?.into_inner().tokens;
    match args.output {
        Format::Json => print_json(&document(tokens)),
        Format::Yaml => print_yaml(&document(tokens)),
        Format::Name => tokens.iter().try_for_each(|token| print_line(&one_line(&token.name))),
        Format::Table | Format::Wide if tokens.is_empty() => {
            say("no token waits for its use; make one: qctl token create --help");
            Ok(())
        }
        Format::Table | Format::Wide => {
            let row = |token: &v1::TokenView| {
                let left = duration(token.expires_ms.saturating_sub(now_ms()));
                [token.role.clone(), token.name.clone(), format!("for {left}"), token.by.clone()]
            };
            print_table(["ROLE", "NAME", "GOOD", "MADE BY"], tokens.iter().map(row).collect())
        }
    }
}

#[derive(Debug, Serialize)]
struct Created {
    token: String,
    expires_ms: u64,
    ca_digest: String,
}

#[derive(Debug, Serialize)]
struct Tokens {
    tokens: Vec<Token>,
}

#[derive(Debug, Serialize)]
struct Token {
    role: String,
    name: String,
    made_by: String,
    made_ms: u64,
    expires_ms: u64,
}

fn created(made: v1::CreateTokenReply) -> Document<Created> {
    Document::new(Created { token: made.token, expires_ms: made.expires_ms, ca_digest: made.ca_digest })
}

fn document(tokens: Vec<v1::TokenView>) -> Document<Tokens> {
    let token = |token: v1::TokenView| Token {
        role: token.role,
        name: token.name,
        made_by: token.by,
        made_ms: token.made_ms,
        expires_ms: token.expires_ms,
    };
    Document::new(Tokens { tokens: tokens.into_iter().map(token).collect() })
}

#[cfg(test)]
pub(super) fn examples() -> Vec<(&'static str, serde_json::Value)> {
    let value = |made: serde_json::Result<serde_json::Value>| made.unwrap_or_default();
    vec![
        ("qctl token create", value(serde_json::to_value(created(v1::CreateTokenReply::default())))),
        ("qctl token ls", value(serde_json::to_value(document(vec![v1::TokenView::default()])))),
    ]
}
