//! Asking the tools themselves.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command as Process;
use tokio::time::Instant;

use super::command::{Command, NETWORK};
use super::outputs::Outputs;
use super::text::{LARGEST, Text};
use super::{failure, report, versions};

/// Where the tool lies on a host, beside the directories of PATH.
const HOMES: [&str; 2] = ["/usr/local/sbin", "/usr/local/bin"];
/// Where the tool for network ports lies.
const NETWORK_HOMES: [&str; 1] = ["/usr/local/Ascend/driver/tools"];
/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(15);
/// How long all questions of one probe may take.
const ALL: Duration = Duration::from_secs(120);
/// Variables that the tool gets from this process: it finds the driver's
/// libraries by the last one.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LD_LIBRARY_PATH"];

/// What is asked about every chip.
const OF_CHIPS: [&str; 1] = ["health"];
/// What is asked about every card.
const OF_CARDS: [&str; 4] = ["board", "usages", "ecc", "proc-mem"];

/// The tool on this host.
#[derive(Clone, Debug)]
pub struct Tool {
    program: PathBuf,
    /// `hccn_tool`, where it is.
    network: Option<PathBuf>,
}

impl Tool {
    /// Finds the tool in PATH and where its packages put it.
    #[must_use]
    pub fn find() -> Option<Self> {
        let program = found("npu-smi", &HOMES)?;
        Some(Self { program, network: found("hccn_tool", &NETWORK_HOMES) })
    }

    /// A given program.
    #[must_use]
    pub fn at(program: PathBuf) -> Self {
        Self { program, network: None }
    }

    /// Asks for all that a report can hold.
    pub async fn ask_all(&self) -> Outputs {
        let mut outputs = Outputs::default();
        let end = Instant::now() + ALL;
        let mut asking = Asking { tool: self, outputs: &mut outputs, end };
        for command in [Command::Info, Command::List, Command::Mapping] {
            asking.ask(command).await;
        }
        let seen = report(asking.outputs);
        let chips: BTreeSet<(u32, Option<u32>)> =
            seen.npus.iter().filter_map(|npu| Some((npu.id?, npu.chip))).collect();
        let cards: BTreeSet<u32> = chips.iter().map(|(npu, _)| *npu).collect();
        for (npu, chip) in &chips {
            for what in OF_CHIPS {
                asking.ask(Command::about(what, Some(*npu), *chip)).await;
            }
        }
        for npu in &cards {
            for what in OF_CARDS {
                asking.ask(Command::about(what, Some(*npu), None)).await;
            }
        }
        for (npu, chip) in chips.iter().filter(|(_, chip)| chip.is_some()) {
            asking.ask(Command::about("board", Some(*npu), *chip)).await;
        }
        asking.ask(Command::about("topo", None, None)).await;
        let devices: BTreeSet<u32> = seen.npus.iter().filter_map(super::Npu::device).collect();
        for device in devices.into_iter().filter(|_| self.network.is_some()) {
            for what in NETWORK {
                asking.ask(Command::Network { device, what }).await;
            }
        }
        outputs
    }

    /// Asks again what changes: the table, and the health of `chips`.
    pub async fn ask_again(&self, outputs: &mut Outputs, chips: &[(u32, Option<u32>)]) {
        let end = Instant::now() + ALL;
        let mut asking = Asking { tool: self, outputs, end };
        asking.ask(Command::Info).await;
        for (npu, chip) in chips {
            asking.ask(Command::about("health", Some(*npu), *chip)).await;
        }
    }

    /// Asks one question.
    ///
    /// # Errors
    ///
    /// Why there is no answer, in words.
    async fn ask(&self, command: &Command, limit: Duration) -> Result<Text, String> {
        let line = command.line();
        let program = match command {
            Command::Info | Command::List | Command::Mapping | Command::About { .. } => Some(&self.program),
            Command::Network { .. } => self.network.as_ref(),
        };
        let Some(program) = program else { return Err("`hccn_tool` is not on this host".to_owned()) };
        let mut process = Process::new(program);
        process.args(command.args()).env_clear().env("LC_ALL", "C");
        process.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = process.spawn().map_err(|error| format!("`{line}` could not be started: {error}"))?;
        let Some(stdout) = child.stdout.take() else { return Err(format!("`{line}` has no output")) };
        let mut bytes = Vec::new();
        let most = u64::try_from(LARGEST).unwrap_or(u64::MAX).saturating_add(1);
        let answer = async {
            // What is beyond the bound is not read: the tool then ends by SIGPIPE.
            stdout.take(most).read_to_end(&mut bytes).await?;
            child.wait().await
        };
        let status = match tokio::time::timeout(limit, answer).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return Err(format!("`{line}` could not be read: {error}")),
            Err(_) => return Err(format!("`{line}` did not answer within {} s", limit.as_secs())),
        };
        let text = Text::new(command.file(), &bytes);
        // An error that the tool words itself is an answer.
        if status.success() || failure::find(&text).is_some() {
            return Ok(text);
        }
        Err(format!("`{line}` failed: {status}"))
    }
}

/// Finds a program in PATH, or where its packages put it.
fn found(name: &str, homes: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(homes.iter().map(PathBuf::from));
    let runs = |p: &PathBuf| std::fs::metadata(p).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    dirs.filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(runs)
}

/// One round of questions: after a silence no more are asked, since a stuck
/// driver answers none.
struct Asking<'a> {
    tool: &'a Tool,
    outputs: &'a mut Outputs,
    end: Instant,
}

impl Asking<'_> {
    async fn ask(&mut self, command: Command) {
        let left = self.end.saturating_duration_since(Instant::now()).min(LIMIT);
        let answer = if left.is_zero() {
            Err("not asked: the tool was too slow before".to_owned())
        } else {
            let begun = Instant::now();
            let answer = self.tool.ask(&command, left).await;
            if answer.is_err() && begun.elapsed() >= left {
                self.end = Instant::now();
            }
            answer
        };
        match answer {
            Ok(text) => {
                self.outputs.failed.remove(&command);
                self.outputs.texts.insert(command, text);
            }
            Err(why) => {
                self.outputs.texts.remove(&command);
                self.outputs.failed.insert(command, why);
            }
        }
    }
}

/// The versions of a host's packages.
pub(super) fn versions(root: &Path, homes: &[PathBuf]) -> super::Versions {
    let mut outputs = Outputs::default();
    learn_versions(&mut outputs, root, homes);
    outputs.versions
}

/// Learns the versions of this host's packages. `homes`: where CANN is said to
/// be, beside its usual places.
pub(super) fn learn_versions(outputs: &mut Outputs, root: &Path, homes: &[PathBuf]) {
    outputs.versions = super::Versions::default();
    for path in versions::files(root, homes) {
        outputs.learn(&path);
    }
}
