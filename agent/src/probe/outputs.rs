//! All that a probe has heard: outputs by question, and versions.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::command::Command;
use super::text::{LARGEST, Notes, Text};
use super::versions::{self, Versions};

/// Most files of a recording that are looked at.
const FILES: usize = 4096;

/// All that a probe has heard.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// What the tool said.
    pub texts: BTreeMap<Command, Text>,
    /// Why a question has no answer, where more is known than that.
    pub failed: BTreeMap<Command, String>,
    /// From the packages' own files.
    pub versions: Versions,
    /// Those files, by the names that a recording gives them.
    pub version_files: BTreeMap<&'static str, Text>,
    /// What is odd about the files themselves.
    pub notes: Notes,
}

impl Outputs {
    /// Reads a recording: a directory with one file per command line. A file
    /// that is not there means that the tool failed.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let mut outputs = Self::default();
        let mut names: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(dir)?.take(FILES) {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        // A directory has no order of its own.
        names.sort_unstable();
        for name in names {
            outputs.take(dir, &name);
        }
        for path in versions::files(dir, &[]) {
            outputs.learn(&path);
        }
        Ok(outputs)
    }

    /// Learns a version from a file, if it is there.
    pub fn learn(&mut self, path: &Path) {
        let Ok(bytes) = bounded(path) else { return };
        let text = Text::new(path.to_string_lossy(), &bytes);
        if let Some(subject) = versions::subject(&text) {
            self.versions.learn(subject, &text);
            self.version_files.entry(subject.file()).or_insert(text);
        }
    }

    fn take(&mut self, dir: &Path, name: &str) {
        let path = dir.join(name);
        if !path.is_file() {
            return;
        }
        let bytes = match bounded(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.notes.add(name, 0, &format!("cannot be read: {error}"));
                return;
            }
        };
        let text = Text::new(name, &bytes);
        if text.is_cut() {
            self.notes.add(name, 0, "longer than what is read of an output");
        }
        if let Some(command) = Command::from_file(name) {
            self.texts.insert(command, text);
        } else if let Some(subject) = versions::subject(&text) {
            self.versions.learn(subject, &text);
            if versions::version(subject, &text).is_none() {
                self.notes.add(name, 0, "no version was found");
            }
        } else {
            self.notes.add(name, 0, "not a file that a probe reads");
        }
    }
}

/// Reads one byte more than what is looked at, so that a cut is seen.
fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(LARGEST).unwrap_or(u64::MAX);
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_a_directory_of_outputs_and_versions() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, said: &str| std::fs::write(dir.path().join(name), said).unwrap();
        put("npu-smi_info.txt", "x\n");
        put("driver_version.info.txt", "Version=25.2.0\nascendhal_version=7\n");
        put("other.txt", "x");
        std::fs::create_dir_all(dir.path().join("usr/local/Ascend/ascend-toolkit/latest")).unwrap();
        put("usr/local/Ascend/ascend-toolkit/latest/version.cfg", "toolkit_running_version=[7:8.0.0]\n");
        let outputs = Outputs::read(dir.path()).unwrap();
        assert_eq!(outputs.texts.keys().collect::<Vec<_>>(), [&Command::Info]);
        let (driver, cann) = (outputs.versions.driver.as_deref(), outputs.versions.cann.as_deref());
        assert_eq!((driver, cann, outputs.versions.firmware), (Some("25.2.0"), Some("8.0.0"), None));
        assert_eq!(outputs.notes.into_vec()[0].file, "other.txt");
        assert!(Outputs::read(&dir.path().join("none")).is_err());
    }
}
