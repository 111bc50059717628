//! The command line as a whole.

use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

use crate::command::{
    AuditArgs, CancelArgs, CertsArgs, CkptArgs, CompletionArgs, CordonArgs, DatasetArgs, DescribeArgs, DoctorArgs,
    DrainArgs, EngineArgs, EventsArgs, FollowArgs, JobArgs, LoginArgs, LogsArgs, ManArgs, NodeCommand, NodesArgs,
    PkiArgs, PlanArgs, PsArgs, RestartArgs, RevokeArgs, RunArgs, SubmitArgs, TokenArgs, TopArgs, UncordonArgs,
    VersionArgs, WaitArgs,
};
use crate::dev::{DevArgs, SessionArgs};
use crate::{output, text};

/// Prepares, runs and watches training jobs on a cluster of Ascend hosts, or on one computer with `qctl dev`
#[derive(Debug, Parser)]
#[command(name = "qctl", version, propagate_version = false, after_help = AFTER, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Where `qctl dev` keeps its state, and other commands find the controller
    #[arg(long, global = true, env = "QCTL_STATE_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "\
Start here:
  qctl dev --detach                   a controller and two agents on this computer
  qctl run -f pipeline.yaml           submit a job and follow it to its end
  qctl logs last --stage train -f     what its processes say

A JOB is an id, a name, the beginning of either, or `last`.

Exit codes: 0 ok, 1 failed, 2 usage, 3 job failed, 4 job cancelled, 5 not found, 6 controller unreachable, \
7 not permitted, 130 left by Ctrl-C.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a controller and agents on this computer
    Dev(DevArgs),
    /// Submits a job
    Submit(SubmitArgs),
    /// Submits a job and follows it to its end
    Run(RunArgs),
    /// Shows what a job would do, to the last argument, and runs nothing
    Plan(PlanArgs),
    /// Lists jobs
    Ps(PsArgs),
    /// Shows all of a job
    Describe(DescribeArgs),
    /// Says why a job is as it is: why it waits, or why it failed
    Explain(JobArgs),
    /// Sums a job up: stages, attempts, loss, speed, time lost, checkpoints
    Report(JobArgs),
    /// Lists what happened to a job
    Events(EventsArgs),
    /// Prints what a job's processes wrote
    Logs(LogsArgs),
    /// Ends jobs
    Cancel(CancelArgs),
    /// Goes on with a job that has ended, or begins a part of it again
    Restart(RestartArgs),
    /// Follows a job to its end
    Follow(FollowArgs),
    /// Waits until jobs have ended
    Wait(WaitArgs),
    /// Shows jobs, training and nodes on one screen
    Top(TopArgs),
    /// Lists nodes
    Nodes(NodesArgs),
    /// Keeps new work away from nodes
    Cordon(CordonArgs),
    /// Lets work come to nodes again
    Uncordon(UncordonArgs),
    /// Keeps new work away from nodes, and empties them
    Drain(DrainArgs),
    /// Says of nodes what only an operator can know
    #[command(subcommand)]
    Node(NodeCommand),
    /// Remembers which controller to speak to, and as whom
    Login(LoginArgs),
    /// Tokens that nodes and users get in with
    Token(TokenArgs),
    /// Lists who was let in
    Certs(CertsArgs),
    /// Takes certificates and tokens back
    Revoke(RevokeArgs),
    /// Makes the certificates of a new cluster
    Pki(PkiArgs),
    /// Lists what was changed and what was refused, by whom
    Audit(AuditArgs),
    /// Checks this installation, the controller, its agents, and what a file asks for
    Doctor(DoctorArgs),
    /// Checkpoints
    Ckpt(CkptArgs),
    /// Token files
    Dataset(DatasetArgs),
    /// Converts weights here, without a controller; all arguments are qctl-convert's
    #[command(disable_help_flag = true)]
    Convert(EngineArgs),
    /// Tokenizes a dataset here, without a controller; all arguments are qctl-tokenize's
    #[command(disable_help_flag = true)]
    Preprocess(EngineArgs),
    /// Prints a script that completes this command line
    Completion(CompletionArgs),
    /// Writes manual pages
    Man(ManArgs),
    /// Prints the versions of this program and the controller
    Version(VersionArgs),
    /// Runs a program in a session of its own
    #[command(hide = true)]
    Session(SessionArgs),
}

/// Says what is wrong with the command line, with the next step where one is known, and ends the program.
pub(crate) fn refuse(error: &clap::Error) -> ! {
    if let Some(hint) = hint(error) {
        // A program that cannot be told has nobody to tell.
        let _ = error.print();
        output::say(&format!("hint: {}", text::one_line(&hint)));
        std::process::exit(error.exit_code());
    }
    error.exit()
}

fn hint(error: &clap::Error) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    let word = context(ContextKind::InvalidArg)?;
    // A name that looks like a spec's is meant as one, also where it is misspelt.
    let looks = Path::new(word).extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|one| end == *one));
    if error.kind() == ErrorKind::UnknownArgument && (looks || Path::new(word).is_file()) {
        return Some(format!("a job's file is named by -f: -f {word}"));
    }
    let again = error.kind() == ErrorKind::ArgumentConflict && word.starts_with("--file");
    let twice = again && context(ContextKind::PriorArg).is_some_and(|prior| prior == word);
    twice.then(|| "a file is a job; submit one after the other".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fmt::Write as _;

    use clap::CommandFactory as _;

    use super::*;

    fn help_of(command: &mut clap::Command, path: &str, all: &mut String) {
        writeln!(all, "$ {path} --help\n{}", command.render_long_help().to_string().trim_end()).unwrap();
        writeln!(all).unwrap();
        let names: Vec<String> =
            command.get_subcommands().filter(|c| !c.is_hide_set()).map(|c| c.get_name().into()).collect();
        for name in names.iter().filter(|name| *name != "help") {
            help_of(command.find_subcommand_mut(name).unwrap(), &format!("{path} {name}"), all);
        }
    }

    #[test]
    fn the_whole_help_is_as_it_was_agreed() {
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut all = String::new();
        help_of(&mut command, "qctl", &mut all);
        let all: String = all.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/help.txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &all).unwrap();
        }
        let agreed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(agreed == all, "the help has changed; look at it with BLESS=1 and git diff:\n{all}");
    }

    #[test]
    fn likely_slips_have_a_next_step() {
        let told = |words: &[&str]| hint(&Cli::try_parse_from(["qctl"].iter().chain(words)).unwrap_err());
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert_eq!(told(&["submit", "-f", "a", file]), Some(format!("a job's file is named by -f: -f {file}")));
        assert!(told(&["submit", "-f", "a", "-f", "b"]).unwrap().contains("one after the other"));
        assert!(told(&["run", "-f", "a", "misspelt.yaml"]).unwrap().ends_with("-f misspelt.yaml"));
        assert_eq!(told(&["submit", "-f", "a", "no-file"]), None);
        assert_eq!(told(&["submit", "--wait", "--follow", "-f", "a"]), None);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn engines_get_their_arguments_as_they_are() {
        let cli = Cli::parse_from(["qctl", "preprocess", "--input", "-x", "--help", "--state-dir", "y"]);
        let Command::Preprocess(engine) = cli.command else { panic!("{cli:?}") };
        assert_eq!(engine.args, ["--input", "-x", "--help", "--state-dir", "y"]);
        assert!(cli.state_dir.is_none());
    }
}
