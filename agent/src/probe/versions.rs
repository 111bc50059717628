//! Versions of driver, firmware and CANN, from the files that their packages
//! leave behind.

use std::path::{Path, PathBuf};

use super::text::Text;

/// Versions, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// Of the driver.
    pub driver: Option<String>,
    /// Of the firmware.
    pub firmware: Option<String>,
    /// Of CANN.
    pub cann: Option<String>,
}

/// Which of the three a file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `driver/version.info`
    Driver,
    /// `firmware/version.info`
    Firmware,
    /// `ascend_toolkit_install.info` or `version.cfg`
    Cann,
}

impl Subject {
    /// The name that a recording gives to such a file.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Driver => "driver_version.info.txt",
            Self::Firmware => "firmware_version.info.txt",
            Self::Cann => "cann_install.info.txt",
        }
    }
}

/// What a file of versions is about, by what it says, else by its name.
#[must_use]
pub fn subject(text: &Text) -> Option<Subject> {
    let name = text.file.to_ascii_lowercase();
    if !["version.info", "install.info", "version.cfg"].iter().any(|known| name.contains(known)) {
        return None;
    }
    let says = |key: &str| fields(text).any(|(name, _)| name == key);
    if fields(text).any(|(name, _)| name.ends_with("_running_version"))
        || fields(text).any(|(name, value)| name == "package_name" && value.to_ascii_lowercase().contains("cann"))
    {
        return Some(Subject::Cann);
    }
    if says("firmware_version") || name.contains("firmware") {
        return Some(Subject::Firmware);
    }
    if says("ascendhal_version") || name.contains("driver") {
        return Some(Subject::Driver);
    }
    ["cann", "toolkit", "version.cfg"].iter().any(|part| name.contains(part)).then_some(Subject::Cann)
}

/// The version that a file of this subject gives.
#[must_use]
pub fn version(subject: Subject, text: &Text) -> Option<String> {
    let get = |key: &str| fields(text).find(|(name, _)| name == key).map(|(_, value)| value);
    let version = match subject {
        Subject::Driver | Subject::Firmware => get("package_version").or_else(|| get("version")),
        Subject::Cann => {
            let running = |key: &str| {
                let value = get(key)?;
                // `[inner:outer]`: the outer one is the package's.
                let inside = value.trim_start_matches('[').trim_end_matches(']').to_owned();
                inside.rsplit(':').next().map(str::to_owned)
            };
            get("version").or_else(|| running("toolkit_running_version")).or_else(|| running("runtime_running_version"))
        }
    };
    version.map(|version| version.trim().to_owned()).filter(|version| is_version(version))
}

impl Versions {
    /// Takes what a file says, unless a file before it said so.
    pub fn learn(&mut self, subject: Subject, text: &Text) {
        let place = match subject {
            Subject::Driver => &mut self.driver,
            Subject::Firmware => &mut self.firmware,
            Subject::Cann => &mut self.cann,
        };
        if place.is_none() {
            *place = version(subject, text);
        }
    }
}

/// Where the files of a host lie, the preferred ones first. `homes`: where CANN
/// is said to be, such as `$ASCEND_TOOLKIT_HOME`.
#[must_use]
pub fn files(root: &Path, homes: &[PathBuf]) -> Vec<PathBuf> {
    let mut files =
        vec![root.join("usr/local/Ascend/driver/version.info"), root.join("usr/local/Ascend/firmware/version.info")];
    let usual = ["usr/local/Ascend/cann", "usr/local/Ascend/ascend-toolkit/latest"].map(|home| root.join(home));
    for home in homes.iter().chain(&usual) {
        for arch in ["aarch64-linux", "x86_64-linux"] {
            files.push(home.join(arch).join("ascend_toolkit_install.info"));
        }
        files.push(home.join("ascend_toolkit_install.info"));
        files.push(home.join("version.cfg"));
    }
    files
}

/// Whether a version is a required one, or begins with it at a dot; big and
/// small letters are the same (`25.3.rc1` and `25.3.RC1` are one driver), and
/// what comes before a version (`.alpha003`) is not yet that version.
#[must_use]
pub fn fits(version: &str, required: &str) -> bool {
    let (version, required) = (version.trim().to_ascii_lowercase(), required.trim().to_ascii_lowercase());
    let is_part = |rest: &str| {
        rest.is_empty() || (rest.starts_with('.') && !rest.starts_with(".alpha") && !rest.starts_with(".beta"))
    };
    !required.is_empty() && version.strip_prefix(&required).is_some_and(is_part)
}

fn is_version(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= 64
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+'))
}

fn fields(text: &Text) -> impl Iterator<Item = (String, String)> {
    let field = |(_, line): (usize, &str)| {
        let (name, value) = line.split_once('=')?;
        Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    text.lines().filter_map(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, said: &str) -> Option<(Subject, Option<String>)> {
        let text = Text::new(file, said.as_bytes());
        subject(&text).map(|subject| (subject, version(subject, &text)))
    }

    #[test]
    fn files_are_known_by_what_they_say() {
        let table = [
            ("version.info", "Version=24.1\nascendhal_version=7\n", Subject::Driver, Some("24.1")),
            (
                "version.info.txt",
                "Version=1\nascendhal_version=7\npackage_version=25.3.rc1\r\n",
                Subject::Driver,
                Some("25.3.rc1"),
            ),
            (
                "a_version.info",
                "Version=7.1.0\nfirmware_version=1.0\npackage_version=23.0.7\n",
                Subject::Firmware,
                Some("23.0.7"),
            ),
            (
                "x_install.info",
                "package_name=Ascend-cann-toolkit\nversion=8.2.RC1\ninnerversion=V1\n",
                Subject::Cann,
                Some("8.2.RC1"),
            ),
            (
                "version.cfg",
                "# version: 1.0\ntoolkit_running_version=[7.6.0.1.220:8.0.0]\n",
                Subject::Cann,
                Some("8.0.0"),
            ),
            ("driver_version.info", "Version=[x\n", Subject::Driver, None),
        ];
        for (file, said, subject, version) in table {
            assert_eq!(read(file, said), Some((subject, version.map(str::to_owned))), "{file}");
        }
        assert_eq!(read("npu-smi_info.txt", "Version=1\nascendhal_version=7\n"), None);
        assert_eq!(read("version.info", "x\n"), None);
    }

    #[test]
    fn versions_fit_at_dots_in_any_letters() {
        for (version, required, fit) in [
            ("25.3.rc1", "25.3.RC1", true),
            ("8.2.RC1", "8.2", true),
            ("8.2.RC1", "8.2.RC2", false),
            ("8.2.RC10", "8.2.RC1", false),
            ("8.3.RC1.alpha003", "8.3.RC1", false),
            ("8.2.RC1", "", false),
        ] {
            assert_eq!(fits(version, required), fit, "{version} {required}");
        }
    }
}
