//! `qctl completion`, and what it completes with.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::CommandFactory as _;
use clap_complete::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};
use proto::v1;

use crate::args::Cli;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::print_bytes;

/// The variable by which the script asks for candidates.
const ASKED: &str = "QCTL_COMPLETE";
/// How long a key press may wait for the controller.
const PATIENCE: Duration = Duration::from_millis(150);
/// Jobs that are offered, the newest first.
const OFFERED: u32 = 100;

/// Which shell.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Jobs, stages and nodes are completed too, from the controller if it is up.

Examples:
  source <(qctl completion bash)
  qctl completion zsh > ~/.zfunc/_qctl
  qctl completion fish > ~/.config/fish/completions/qctl.fish")]
pub(crate) struct CompletionArgs {
    /// The shell to write for
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionArgs) -> Result<(), Failure> {
    let shell = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let mut script = Vec::new();
    if let Some(writer) = Shells::builtins().completer(shell) {
        // The program is named as it is found on the PATH, so that the script outlives an upgrade.
        writer.write_registration(ASKED, "qctl", "qctl", "qctl", &mut script)?;
    }
    print_bytes(&script)
}

/// Answers a shell that asks for candidates, and ends; returns if none asks.
pub(crate) fn complete() {
    CompleteEnv::with_factory(Cli::command).var(ASKED).complete();
}

/// Candidates for a JOB.
pub(crate) fn jobs(begun: &OsStr) -> Vec<CompletionCandidate> {
    let found = ask(async |mut client: Client| {
        let reply = client.jobs.list(v1::ListJobsRequest { all: true, limit: OFFERED }).await.ok()?;
        Some(reply.into_inner().jobs)
    });
    let mut offered = vec![];
    for job in found.into_iter().flatten() {
        let told = |other: &str| Some(format!("{}, {}", job.phase, crate::text::one_line(other)).into());
        offered.push(CompletionCandidate::new(&job.name).help(told(&job.id)));
        offered.push(CompletionCandidate::new(&job.id).help(told(&job.name)));
    }
    if !offered.is_empty() {
        offered.push(CompletionCandidate::new("last").help(Some("the newest job".into())));
    }
    begun_with(offered, begun)
}

/// Candidates for a stage of the job that the command line names.
pub(crate) fn stages(begun: &OsStr) -> Vec<CompletionCandidate> {
    let job = typed(|matches| {
        let one = |name| matches.try_get_one::<String>(name).ok().flatten().cloned();
        one("job").or_else(|| matches.try_get_many::<String>("jobs").ok()??.next().cloned())
    });
    let job = job.unwrap_or_else(|| "last".to_owned());
    let found = ask(async |mut client: Client| {
        Some(client.jobs.get(v1::GetJobRequest { job }).await.ok()?.into_inner().stages)
    });
    let stages = found.into_iter().flatten();
    begun_with(stages.map(|stage| CompletionCandidate::new(stage.name).help(Some(stage.phase.into()))).collect(), begun)
}

/// Candidates for a node.
pub(crate) fn nodes(begun: &OsStr) -> Vec<CompletionCandidate> {
    let found =
        ask(async |mut client: Client| Some(client.nodes.list(v1::ListNodesRequest {}).await.ok()?.into_inner().nodes));
    let nodes = found.into_iter().flatten();
    begun_with(nodes.map(|node| CompletionCandidate::new(node.id).help(Some(node.phase.into()))).collect(), begun)
}

/// Those that go on as `begun`, each once.
fn begun_with(mut offered: Vec<CompletionCandidate>, begun: &OsStr) -> Vec<CompletionCandidate> {
    let begun = begun.to_string_lossy();
    let mut seen = std::collections::BTreeSet::new();
    offered.retain(|one| {
        let value = one.get_value();
        value.to_string_lossy().starts_with(&*begun) && seen.insert(value.to_owned())
    });
    offered
}

/// Asks the controller, for a moment only and in silence: a key press is no place for an error.
fn ask<T>(question: impl AsyncFnOnce(Client) -> Option<T>) -> Option<T> {
    let named = typed(|matches| matches.try_get_one::<PathBuf>("state_dir").ok().flatten().cloned());
    let state_dir = named.or_else(|| std::env::var_os("QCTL_STATE_DIR").map(PathBuf::from));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let answer = runtime.block_on(async {
        let client = Client::open(state_dir.as_deref()).ok()?;
        tokio::time::timeout(PATIENCE, question(client)).await.ok()?
    });
    runtime.shutdown_background();
    answer
}

/// Reads something from the words typed so far, which come behind `--`; they may be malformed.
fn typed<T>(read: impl Fn(&clap::ArgMatches) -> Option<T>) -> Option<T> {
    let words: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(words).ok()?;
    let mut at = Some(&matches);
    while let Some(level) = at {
        if let Some(found) = read(level) {
            return Some(found);
        }
        at = level.subcommand().map(|(_, inner)| inner);
    }
    None
}
