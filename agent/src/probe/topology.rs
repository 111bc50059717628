//! How NPUs are linked: `npu-smi info -t topo`.

use serde::Serialize;

use super::text::{Notes, Text};

/// Most devices of one matrix.
const MOST: usize = 256;
/// The links that the tool names.
const LINKS: [&str; 12] = ["X", "SYS", "PHB", "HCCS", "PXB", "PIX", "SIO", "HCCS_SW", "UB", "NA", "XLink", "XLink_SW"];

/// The matrix of links.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// Names of the devices, such as `NPU0` or `Phy-ID12`.
    pub devices: Vec<String>,
    /// Per device its link to each, in the tool's words.
    pub links: Vec<Vec<String>>,
    /// Per device the processors near to it, where the tool says so.
    pub cpu_affinity: Vec<Option<String>>,
}

/// Reads the matrix; none if there is no whole one.
pub(super) fn read(text: &Text, notes: &mut Notes) -> Option<Topology> {
    let mut topology = Topology::default();
    for (line, said) in text.lines() {
        let words: Vec<&str> = said.split_whitespace().collect();
        if words.first().is_some_and(|word| word.eq_ignore_ascii_case("legend:")) {
            break;
        }
        let names: Vec<String> =
            words.iter().take_while(|word| is_device(word)).map(|word| (*word).to_owned()).collect();
        let is_header = topology.devices.is_empty()
            && !names.is_empty()
            && (names.len() == words.len() || words[names.len()..].join(" ").eq_ignore_ascii_case("cpu affinity"));
        if is_header {
            topology.devices = names;
            topology.devices.truncate(MOST);
            continue;
        }
        if row(&mut topology, &words).is_none() {
            notes.add(&text.file, line, said);
        }
    }
    let is_whole = !topology.devices.is_empty() && topology.links.len() == topology.devices.len();
    if !is_whole {
        notes.add(&text.file, 0, "the matrix of links is not whole");
    }
    is_whole.then_some(topology)
}

fn row(topology: &mut Topology, words: &[&str]) -> Option<()> {
    let (label, rest) = words.split_first()?;
    let (links, rest) = rest.split_at_checked(topology.devices.len())?;
    let is_next = topology.devices.get(topology.links.len()).is_some_and(|device| device == label);
    if !is_next || !links.iter().all(|link| LINKS.contains(link)) || rest.len() > 1 {
        return None;
    }
    topology.links.push(links.iter().map(|link| (*link).to_owned()).collect());
    topology.cpu_affinity.push(rest.first().map(|cpus| (*cpus).to_owned()));
    Some(())
}

fn is_device(word: &str) -> bool {
    let number = word.strip_prefix("NPU").or_else(|| word.strip_prefix("Phy-ID"));
    number.is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_has_a_row_for_each_device() {
        let said = "\t   NPU0   NPU1   CPU Affinity\nNPU0  X  HCCS  144-167\nNPU1  HCCS  X  0-23,48-71\n\nLegend:\n  X = Self\n";
        let mut notes = Notes::default();
        let topology = read(&Text::new("t", said.as_bytes()), &mut notes).unwrap();
        assert_eq!(topology.links, [["X", "HCCS"], ["HCCS", "X"]]);
        assert_eq!(topology.cpu_affinity[1].as_deref(), Some("0-23,48-71"));
        let dies = "Phy-ID12 Phy-ID13\nPhy-ID12 X SIO\nPhy-ID13 SIO X\n";
        let topology = read(&Text::new("t", dies.as_bytes()), &mut notes).unwrap();
        assert_eq!((topology.devices[0].as_str(), topology.cpu_affinity[0].as_ref()), ("Phy-ID12", None));
        assert!(notes.clone().into_vec().is_empty());
        for broken in ["", "NPU0 NPU1\nNPU0 X HCCS\n", "NPU0\nNPU0 FAST\n", "NPU0\nNPU1 X\n"] {
            assert_eq!(read(&Text::new("t", broken.as_bytes()), &mut notes), None, "{broken}");
        }
    }
}
