//! The commands, one file each.

mod aside;
mod audit;
mod cancel;
mod certs;
mod ckpt;
mod completion;
mod dataset;
mod describe;
mod diagnosis;
mod doctor;
mod engine;
mod events;
mod explain;
mod follow;
mod login;
mod logs;
mod man;
mod nodes;
mod npus;
mod pki;
mod plan;
mod ps;
mod report;
mod restart;
mod submit;
mod token;
mod top;
mod version;
mod wait;
mod watching;

use std::path::Path;

pub(crate) use aside::{CordonArgs, DrainArgs, NodeCommand, UncordonArgs};
pub(crate) use audit::AuditArgs;
pub(crate) use cancel::CancelArgs;
pub(crate) use certs::{CertsArgs, RevokeArgs};
pub(crate) use ckpt::CkptArgs;
pub(crate) use completion::{CompletionArgs, complete};
pub(crate) use dataset::DatasetArgs;
pub(crate) use describe::{DescribeArgs, JobArgs};
pub(crate) use doctor::DoctorArgs;
pub(crate) use engine::{EngineArgs, beside, own};
pub(crate) use events::EventsArgs;
pub(crate) use login::LoginArgs;
pub(crate) use logs::LogsArgs;
pub(crate) use man::ManArgs;
pub(crate) use nodes::NodesArgs;
pub(crate) use pki::PkiArgs;
pub(crate) use plan::PlanArgs;
pub(crate) use ps::PsArgs;
pub(crate) use restart::RestartArgs;
pub(crate) use submit::{FollowArgs, RunArgs, SubmitArgs};
pub(crate) use token::TokenArgs;
pub(crate) use top::TopArgs;
pub(crate) use version::VersionArgs;
pub(crate) use wait::WaitArgs;

use crate::args::{Cli, Command};
use crate::client::Client;
use crate::dev;
use crate::failure::Failure;
use crate::text;

/// Does what the command line asks for.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    text::called_with(cli.state_dir.as_deref());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::because("no runtime could be made", &error))?;
    let done = runtime.block_on(served(cli.command, cli.state_dir.as_deref()));
    // Nothing that still waits may hold the exit.
    runtime.shutdown_background();
    done
}

async fn served(command: Command, state_dir: Option<&Path>) -> Result<(), Failure> {
    let client = || Client::open(state_dir);
    match command {
        Command::Dev(args) => dev::run(args, state_dir).await,
        Command::Submit(args) => submit::run(args, client()?).await,
        Command::Run(args) => submit::run(args.into(), client()?).await,
        Command::Plan(args) => plan::run(&args, client()?).await,
        Command::Ps(args) => ps::run(&args, client()?).await,
        Command::Describe(args) => describe::run(&args, client()?).await,
        Command::Explain(args) => explain::run(&args, client()?).await,
        Command::Report(args) => report::run(&args, client()?).await,
        Command::Events(args) => events::run(&args, client()?).await,
        Command::Logs(args) => logs::run(args, client()?).await,
        Command::Cancel(args) => cancel::run(&args, client()?).await,
        Command::Follow(args) => submit::follow_again(&args, client()?).await,
        Command::Restart(args) => restart::run(args, client()?).await,
        Command::Cordon(args) => aside::cordon(&args, client()?).await,
        Command::Uncordon(args) => aside::uncordon(&args, client()?).await,
        Command::Drain(args) => aside::drain(&args, client()?).await,
        Command::Node(command) => aside::node(&command, client()?).await,
        Command::Wait(args) => wait::run(&args, client()?).await,
        Command::Nodes(args) => nodes::run(&args, client()?).await,
        Command::Ckpt(args) => ckpt::run(&args, client()).await,
        Command::Dataset(args) => dataset::run(&args),
        Command::Top(args) => top::run(&args, client()?).await,
        Command::Login(args) => login::run(&args, state_dir).await,
        Command::Token(args) => token::run(&args, client()?).await,
        Command::Certs(args) => certs::run(&args, client()?).await,
        Command::Revoke(args) => certs::revoke(&args, client()?).await,
        Command::Pki(args) => pki::run(&args),
        Command::Audit(args) => audit::run(&args, client()?).await,
        Command::Doctor(args) => doctor::run(&args, state_dir).await,
        Command::Version(args) => version::run(&args, client()).await,
        Command::Convert(args) => engine::run("qctl-convert", &args),
        Command::Preprocess(args) => engine::run("qctl-tokenize", &args),
        Command::Completion(args) => completion::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Session(args) => dev::session(&args),
    }
}

/// One document of each command that has its own, by the title of its section in docs/json.md.
#[cfg(test)]
pub(crate) fn examples() -> Vec<(&'static str, serde_json::Value)> {
    let mut all = vec![
        ("qctl submit", submit::example()),
        ("qctl restart", restart::example()),
        ("qctl explain", explain::example()),
        ("qctl report", report::example()),
        ("qctl audit", audit::example()),
        ("qctl certs", certs::example()),
        ("qctl doctor", doctor::example()),
        ("qctl version", version::example()),
        ("qctl dev status", dev::status::example()),
    ];
    all.extend(token::examples());
    all.extend(ckpt::examples());
    all.extend(dataset::examples());
    all
}
