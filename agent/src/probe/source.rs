//! Where a probe gets its answers from.

use std::io;
use std::path::{Path, PathBuf};

use super::outputs::Outputs;
use super::report::Report;
use super::tool::{self, Tool};

/// Where a probe gets its answers from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The host's own tool.
    #[default]
    Host,
    /// A directory of outputs.
    Recording(PathBuf),
}

/// Variables that say where CANN is.
const CANN: [&str; 2] = ["ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"];

impl Source {
    /// All that can be heard.
    ///
    /// # Errors
    ///
    /// If a recording's directory cannot be read. What the tool cannot do is
    /// told in the outputs.
    pub async fn outputs(&self) -> io::Result<Outputs> {
        match self {
            Self::Recording(dir) => read(dir).await,
            Self::Host => {
                let mut outputs = match Tool::find() {
                    Some(tool) => tool.ask_all().await,
                    None => no_tool(),
                };
                let homes: Vec<PathBuf> = CANN.iter().filter_map(std::env::var_os).map(PathBuf::from).collect();
                tool::learn_versions(&mut outputs, Path::new("/"), &homes);
                Ok(outputs)
            }
        }
    }

    /// What is understood of all that can be heard.
    pub async fn report(&self) -> Report {
        match self.outputs().await {
            Ok(outputs) => super::report(&outputs),
            Err(error) => Report::failed(format!("the recording cannot be read: {error}")),
        }
    }
}

/// The outputs of a host without the tool.
pub(super) fn no_tool() -> Outputs {
    let mut outputs = Outputs::default();
    let why = "`npu-smi` is not in PATH, /usr/local/sbin or /usr/local/bin".to_owned();
    outputs.failed.insert(super::Command::Info, why);
    outputs
}

/// Reads a recording away from the threads that must not wait for a disk.
async fn read(dir: &Path) -> io::Result<Outputs> {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || Outputs::read(&dir)).await.map_err(io::Error::other)?
}
