//! The tools' command lines, and the names of files that hold their outputs.

/// One question to a tool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// `npu-smi info`
    Info,
    /// `npu-smi info -l`
    List,
    /// `npu-smi info -m`
    Mapping,
    /// `npu-smi info -t WHAT [-i NPU [-c CHIP]]`
    About {
        /// Such as `health`.
        what: String,
        /// Of one card.
        npu: Option<u32>,
        /// Of one chip of it.
        chip: Option<u32>,
    },
    /// `hccn_tool -i DEVICE -WHAT -g`
    Network {
        /// Number of the device file.
        device: u32,
        /// `link` or `net_health`.
        what: &'static str,
    },
}

/// What is asked about the network port of a device.
pub(super) const NETWORK: [&str; 2] = ["link", "net_health"];

impl Command {
    /// A question about a card or a chip of it.
    #[must_use]
    pub fn about(what: &str, npu: Option<u32>, chip: Option<u32>) -> Self {
        Self::About { what: what.to_owned(), npu, chip }
    }

    /// What comes after the tool's name.
    #[must_use]
    pub fn args(&self) -> Vec<String> {
        if let Self::Network { device, what } = self {
            return vec!["-i".to_owned(), device.to_string(), format!("-{what}"), "-g".to_owned()];
        }
        let mut args = vec!["info".to_owned()];
        let mut option = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
        match self {
            Self::Info | Self::Network { .. } => {}
            Self::List => args.push("-l".to_owned()),
            Self::Mapping => args.push("-m".to_owned()),
            Self::About { what, npu, chip } => {
                option("-t", what.clone());
                npu.iter().for_each(|npu| option("-i", npu.to_string()));
                chip.iter().for_each(|chip| option("-c", chip.to_string()));
            }
        }
        args
    }

    /// The command line in words.
    #[must_use]
    pub fn line(&self) -> String {
        let tool = match self {
            Self::Info | Self::List | Self::Mapping | Self::About { .. } => "npu-smi",
            Self::Network { .. } => "hccn_tool",
        };
        format!("{tool} {}", self.args().join(" "))
    }

    /// Name of the file that holds its output.
    #[must_use]
    pub fn file(&self) -> String {
        format!("{}.txt", self.line().replace(' ', "_"))
    }

    /// The question that a file's name stands for; options may have any order.
    #[must_use]
    pub fn from_file(name: &str) -> Option<Self> {
        let line = name.strip_suffix(".txt")?;
        if let Some(rest) = line.strip_prefix("hccn_tool_-i_") {
            let (device, rest) = rest.split_once("_-")?;
            let what = NETWORK.into_iter().find(|what| rest.strip_suffix("_-g") == Some(what))?;
            return Some(Self::Network { device: super::value::id(device).ok()??, what });
        }
        // No option of the tool holds a blank or an underscore.
        if line.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return None;
        }
        let mut words = line.split('_').filter(|word| !word.is_empty());
        if (words.next(), words.next()) != (Some("npu-smi"), Some("info")) {
            return None;
        }
        let (mut what, mut npu, mut chip, mut plain) = (None, None, None, None);
        while let Some(word) = words.next() {
            match word {
                "-l" => plain = Some(Self::List),
                "-m" => plain = Some(Self::Mapping),
                "-t" => what = Some(words.next()?.to_owned()),
                "-i" => npu = Some(super::value::id(words.next()?).ok()??),
                "-c" => chip = Some(super::value::id(words.next()?).ok()??),
                _ => return None,
            }
        }
        match (plain, what, npu, chip) {
            (None, Some(what), npu, chip) => Some(Self::About { what, npu, chip }),
            (Some(plain), None, None, None) => Some(plain),
            (None, None, None, None) => Some(Self::Info),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_after_its_command() {
        let table = [
            (Command::Info, "npu-smi_info.txt"),
            (Command::List, "npu-smi_info_-l.txt"),
            (Command::Mapping, "npu-smi_info_-m.txt"),
            (Command::about("health", Some(0), Some(1)), "npu-smi_info_-t_health_-i_0_-c_1.txt"),
            (Command::about("current-fault-event", Some(3), None), "npu-smi_info_-t_current-fault-event_-i_3.txt"),
            (Command::about("topo", None, None), "npu-smi_info_-t_topo.txt"),
            (Command::Network { device: 7, what: "link" }, "hccn_tool_-i_7_-link_-g.txt"),
            (Command::Network { device: 0, what: "net_health" }, "hccn_tool_-i_0_-net_health_-g.txt"),
        ];
        for (command, file) in table {
            assert_eq!(command.file(), file);
            assert_eq!(Command::from_file(file), Some(command));
        }
        let other_order = Command::from_file("npu-smi_info_-i_2_-c_0_-t_board.txt");
        assert_eq!(other_order, Some(Command::about("board", Some(2), Some(0))));
        for other in [
            "npu-smi_info",
            "hccn_tool_-i.txt",
            "hccn_tool_-i_0_-speed_-g.txt",
            "hccn_tool_-i_x_-link_-g.txt",
            "npu-smi_info_-t.txt",
            "npu-smi_info_-i_x_-t_a.txt",
            "npu-smi_info_-t_a b.txt",
            "npu-smi_info_-t_a\u{1}.txt",
            ".txt",
        ] {
            assert_eq!(Command::from_file(other), None, "{other}");
        }
    }
}
