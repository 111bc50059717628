//! How an agent is told what it is: flags, `QCTL_*` variables, or a file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{LabelError, Labels, NodeId};
use proto::v1::DeviceKind;
use serde::Deserialize;

use crate::probe::Source;

/// Flags of `qctl-agent run`. Each can also stand in the file of `--config`,
/// spelled with `_`; flags and variables win over the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// File (TOML) with the values that are not given otherwise.
    #[arg(long, env = "QCTL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// This node's id: 1 to 63 of a-z, 0-9, `-` and `.`.
    #[arg(long, env = "QCTL_NODE", value_name = "ID")]
    pub node: Option<String>,
    /// The controller, as https://host:port; several with commas between.
    #[arg(long, env = "QCTL_CONTROLLER", value_name = "URL")]
    pub controller: Option<String>,
    /// Directory of ca.pem, cert.pem and key.pem.
    #[arg(long, env = "QCTL_PKI", value_name = "DIR")]
    pub pki: Option<PathBuf>,
    /// Directory of everything that the agent remembers.
    #[arg(long, env = "QCTL_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Address at which other nodes reach this one.
    #[arg(long, env = "QCTL_ADDRESS", value_name = "ADDRESS")]
    pub address: Option<String>,
    /// What a slot stands for: `ascend` or `cpu`.
    #[arg(long, env = "QCTL_DEVICE", value_name = "KIND")]
    pub device: Option<String>,
    /// Number of slots: NPUs, or shares of the processors.
    #[arg(long, env = "QCTL_SLOTS", value_name = "N")]
    pub slots: Option<u32>,
    /// One-use token to get a certificate with.
    #[arg(long, alias = "token", env = "QCTL_JOIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub join_token: Option<String>,
    /// Digest of the cluster's CA, to know the controller by when joining.
    #[arg(long, env = "QCTL_CA_DIGEST", value_name = "DIGEST")]
    pub ca_digest: Option<String>,
    /// Where qctl-shim and the engines are; beside this program unless told.
    #[arg(long, env = "QCTL_BIN_DIR", value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Directory of recorded outputs of npu-smi to read instead of asking it.
    #[arg(long, env = "QCTL_PROBE_RECORDING", value_name = "DIR")]
    pub probe_recording: Option<PathBuf>,
    /// Traces as JSON lines.
    #[arg(long, env = "QCTL_LOG_JSON")]
    pub log_json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct InFile {
    node: Option<String>,
    controller: Option<String>,
    pki: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    address: Option<String>,
    device: Option<String>,
    slots: Option<u32>,
    join_token: Option<String>,
    ca_digest: Option<String>,
    bin_dir: Option<PathBuf>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    spare: bool,
    #[serde(default)]
    slot_groups: Vec<Vec<u32>>,
    #[serde(default)]
    probe: InProbe,
}

/// The table `[probe]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct InProbe {
    recording: Option<PathBuf>,
    period_seconds: Option<u64>,
}

/// What an agent is, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's id.
    pub node: NodeId,
    /// The controller, as https://host:port; several with commas between.
    pub controller: String,
    /// Directory of the certificate.
    pub pki: PathBuf,
    /// Directory of everything that the agent remembers; absolute.
    pub state_dir: PathBuf,
    /// Address at which other nodes reach this one.
    pub address: String,
    /// What a slot stands for.
    pub device: DeviceKind,
    /// Number of slots.
    pub slots: u32,
    /// What jobs may choose it by.
    pub labels: Labels,
    /// Whether it takes only replacements of lost or failed seats.
    pub spare: bool,
    /// Per slot the group of slots that are near to each other; empty = as the probe sees it.
    pub slot_groups: Vec<u32>,
    /// How to get a certificate, if there is none.
    pub join: Option<Join>,
    /// Where qctl-shim and the engines are.
    pub bin_dir: PathBuf,
    /// How its NPUs are probed; none where it has none.
    pub probe: Option<Source>,
    /// How often; 1 s to a day.
    pub probe_period: Duration,
}

/// How to get a certificate.
#[derive(Clone)]
pub struct Join {
    /// One-use token.
    pub token: String,
    /// Digest of the cluster's CA.
    pub ca_digest: String,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join").field("ca_digest", &self.ca_digest).finish_non_exhaustive()
    }
}

/// Why an agent does not know what it is.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("`{}` cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is malformed.
    #[error("`{}` is no agent's configuration", path.display())]
    Toml {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: toml::de::Error,
    },
    /// Something is missing.
    #[error("{0} is not given")]
    Missing(&'static str),
    /// The node's id is malformed.
    #[error(transparent)]
    Node(#[from] model::NameError),
    /// No such kind of device.
    #[error("device `{0}` is not known; it is `ascend` or `cpu`")]
    Device(String),
    /// A label is malformed.
    #[error("`labels` cannot be used")]
    Labels(#[from] LabelError),
    /// The groups of slots do not hold each slot once.
    #[error("`slot_groups` must hold each slot from 0 to {last} once")]
    SlotGroups {
        /// The last slot.
        last: u32,
    },
    /// Only one half of what joining needs.
    #[error("a join token and a CA digest go together")]
    HalfJoin,
    /// This program does not know where it is.
    #[error("the directory of this program is not known")]
    Home(#[source] io::Error),
}

impl Flags {
    /// Completes the flags from the file, and checks them.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first thing that is missing or malformed.
    pub fn check(self) -> Result<Config, ConfigError> {
        let file = self.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let device = self.device.or(file.device).unwrap_or_else(|| "ascend".to_owned());
        let device = match device.as_str() {
            "ascend" => DeviceKind::Ascend,
            "cpu" => DeviceKind::Cpu,
            other => return Err(ConfigError::Device(other.chars().take(64).collect())),
        };
        let join = match (self.join_token.or(file.join_token), self.ca_digest.or(file.ca_digest)) {
            (Some(token), Some(ca_digest)) => Some(Join { token, ca_digest }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(ConfigError::HalfJoin),
        };
        let bin_dir = match self.bin_dir.or(file.bin_dir) {
            Some(dir) => std::path::absolute(dir).map_err(ConfigError::Home)?,
            None => home()?,
        };
        let recording = self.probe_recording.or(file.probe.recording).map(std::path::absolute).transpose();
        let recording = recording.map_err(ConfigError::Home)?.map(Source::Recording);
        let probe = recording.or_else(|| (device == DeviceKind::Ascend).then_some(Source::Host));
        let probe_period = Duration::from_secs(file.probe.period_seconds.unwrap_or(30).clamp(1, 86_400));
        let slots = self.slots.or(file.slots).ok_or(ConfigError::Missing("--slots"));
        let state_dir = self.state_dir.or(file.state_dir).ok_or(ConfigError::Missing("--state-dir"))?;
        let slot_groups = groups(&file.slot_groups, *slots.as_ref().unwrap_or(&0))?;
        Ok(Config {
            node: NodeId::new(self.node.or(file.node).ok_or(ConfigError::Missing("--node"))?)?,
            controller: self.controller.or(file.controller).ok_or(ConfigError::Missing("--controller"))?,
            pki: self.pki.or(file.pki).ok_or(ConfigError::Missing("--pki"))?,
            state_dir: std::path::absolute(&state_dir)
                .map_err(|source| ConfigError::File { path: state_dir, source })?,
            address: self.address.or(file.address).ok_or(ConfigError::Missing("--address"))?,
            device,
            slots: slots?,
            labels: Labels::new(file.labels)?,
            spare: file.spare,
            slot_groups,
            join,
            bin_dir,
            probe,
            probe_period,
        })
    }
}

/// Per slot its group; empty where the file names none.
fn groups(written: &[Vec<u32>], slots: u32) -> Result<Vec<u32>, ConfigError> {
    let wrong = || ConfigError::SlotGroups { last: slots.saturating_sub(1) };
    let of: BTreeMap<u32, u32> =
        written.iter().zip(0_u32..).flat_map(|(slots, group)| slots.iter().map(move |slot| (*slot, group))).collect();
    let once = written.iter().map(Vec::len).sum::<usize>() == of.len();
    let whole = of.keys().copied().eq(0..slots);
    if written.is_empty() || once && whole { Ok(of.into_values().collect()) } else { Err(wrong()) }
}

impl Config {
    /// What `qctl-agent join` needs; the rest is said when it runs.
    ///
    /// # Errors
    ///
    /// As [`Flags::check`].
    pub fn joining(mut flags: Flags) -> Result<Self, ConfigError> {
        let file = flags.config.as_deref().map(read).transpose()?.unwrap_or_default();
        if file.state_dir.is_none() {
            flags.state_dir = flags.state_dir.or_else(|| Some(PathBuf::from("/")));
        }
        if file.address.is_none() {
            flags.address = flags.address.or_else(|| Some(String::new()));
        }
        if file.slots.is_none() {
            flags.slots = flags.slots.or(Some(0));
        }
        // As people write it: host:port.
        if let Some(controller) = flags.controller.as_mut() {
            let full = |one: &str| if one.contains("://") { one.to_owned() } else { format!("https://{one}") };
            *controller = controller.split(',').map(|one| full(one.trim())).collect::<Vec<_>>().join(",");
        }
        flags.check()
    }
}

fn read(path: &Path) -> Result<InFile, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| ConfigError::Toml { path: path.to_owned(), source })
}

fn home() -> Result<PathBuf, ConfigError> {
    let program = std::env::current_exe().map_err(ConfigError::Home)?;
    Ok(program.parent().map(Path::to_owned).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn flags(file: &Path) -> Flags {
        Flags { config: Some(file.to_owned()), ..Flags::default() }
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(
            &file,
            "node = 'n1'\ncontroller = 'https://c:1'\npki = '/p'\nstate_dir = '/s'\naddress = 'a'\nslots = 8\n",
        )
        .unwrap();
        let config = Flags { slots: Some(2), ..flags(&file) }.check().unwrap();
        assert_eq!((config.node.as_str(), config.slots, config.device), ("n1", 2, DeviceKind::Ascend));
        assert!(config.join.is_none());
        assert_eq!((config.probe, config.probe_period.as_secs()), (Some(Source::Host), 30));
        assert!(config.labels.is_empty() && config.slot_groups.is_empty() && !config.spare);
        let text = "slot_groups = [[0, 3], [1, 2]]\nspare = true\nlabels = { rack = 'r1' }\n\
                    [probe]\nrecording = '/r'\nperiod_seconds = 5\n";
        let text = std::fs::read_to_string(&file).unwrap() + text;
        std::fs::write(&file, text).unwrap();
        let config = Flags { device: Some("cpu".into()), slots: Some(4), ..flags(&file) }.check().unwrap();
        assert_eq!((config.labels.get("rack"), config.spare, config.slot_groups), (Some("r1"), true, vec![0, 1, 1, 0]));
        let twice = Flags { slots: Some(5), ..flags(&file) }.check().unwrap_err();
        assert_eq!(twice.to_string(), "`slot_groups` must hold each slot from 0 to 4 once");
        let recording = Some(Source::Recording("/r".into()));
        assert_eq!((config.probe, config.probe_period.as_secs()), (recording, 5));
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, "nodes = 'n1'\n").unwrap();
        assert!(matches!(flags(&file).check(), Err(ConfigError::Toml { .. })));
        assert_eq!(Flags::default().check().unwrap_err().to_string(), "--state-dir is not given");
        let device = Flags { device: Some("gpu".into()), ..Flags::default() };
        assert_eq!(device.check().unwrap_err().to_string(), "device `gpu` is not known; it is `ascend` or `cpu`");
        let door = |given: &str| Flags {
            node: Some("n1".into()),
            controller: Some(given.into()),
            pki: Some("/p".into()),
            ..Flags::default()
        };
        let joining = Config::joining(door("c:1, https://d:2")).unwrap();
        assert_eq!(joining.controller, "https://c:1,https://d:2");
        let half = Flags { join_token: Some("t".into()), ..Flags::default() };
        assert!(matches!(half.check(), Err(ConfigError::HalfJoin)));
    }
}
