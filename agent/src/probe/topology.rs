//! How NPUs are linked: `npu-smi info -t topo`.

use std::collections::{BTreeMap, BTreeSet};

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

impl Topology {
    /// Groups of devices that are near to each other, by name: dies of one
    /// card; else rings of HCCS, where there are several; else devices with the
    /// same processors near to them. Empty where all are alike.
    #[must_use]
    pub fn groups(&self) -> BTreeMap<&str, u32> {
        let linked =
            |a: usize, b: usize, link: &str| self.links.get(a).and_then(|row| row.get(b)).is_some_and(|l| l == link);
        let all = self.devices.len();
        let by_link = |link: &str| components(all, |a, b| linked(a, b, link));
        let affinity = components(all, |a, b| {
            let near = |at: usize| self.cpu_affinity.get(at).and_then(Option::as_ref);
            near(a).is_some() && near(a) == near(b)
        });
        let tells = |groups: &Vec<u32>| (2..all).contains(&groups.iter().collect::<BTreeSet<_>>().len());
        let known = [by_link("SIO"), by_link("HCCS"), affinity].into_iter().find(tells);
        self.devices.iter().map(String::as_str).zip(known.unwrap_or_default()).collect()
    }
}

/// Per position the first position that it is joined with, directly or over others.
fn components(count: usize, joined: impl Fn(usize, usize) -> bool) -> Vec<u32> {
    let mut of: Vec<usize> = (0..count).collect();
    for a in 0..count {
        for b in 0..a {
            let (low, high) = (of[a].min(of[b]), of[a].max(of[b]));
            if low != high && joined(a, b) {
                of.iter_mut().filter(|group| **group == high).for_each(|group| *group = low);
            }
        }
    }
    of.into_iter().filter_map(|group| u32::try_from(group).ok()).collect()
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
    fn devices_that_are_near_to_each_other_are_one_group() {
        let of = |links: &[&str], affinity: &[&str]| {
            let topology = Topology {
                devices: (0..links.len()).map(|n| format!("NPU{n}")).collect(),
                links: links.iter().map(|row| row.split(' ').map(str::to_owned).collect()).collect(),
                cpu_affinity: affinity
                    .iter()
                    .map(|cpus| Some((*cpus).to_owned()).filter(|cpus| !cpus.is_empty()))
                    .collect(),
            };
            topology.groups().into_values().collect::<Vec<u32>>()
        };
        let mesh = ["X HCCS HCCS HCCS", "HCCS X HCCS HCCS", "HCCS HCCS X HCCS", "HCCS HCCS HCCS X"];
        assert_eq!(of(&mesh, &["0-23", "0-23", "24-47", "24-47"]), [0, 0, 2, 2]);
        assert!(of(&mesh, &["", "", "", ""]).is_empty() && of(&mesh, &["0-7"; 4]).is_empty());
        let rings = ["X HCCS PHB PHB", "HCCS X PHB PHB", "PHB PHB X HCCS", "PHB PHB HCCS X"];
        assert_eq!(of(&rings, &["0-7", "8-15", "0-7", "8-15"]), [0, 0, 2, 2]);
        let dies = ["X SIO HCCS HCCS", "SIO X HCCS HCCS", "HCCS HCCS X SIO", "HCCS HCCS SIO X"];
        assert_eq!(of(&dies, &["", "", "", ""]), [0, 0, 2, 2]);
    }

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
