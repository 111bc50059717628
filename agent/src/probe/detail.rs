//! Answers about one card or chip: `npu-smi info -t …`.

use super::block::{self, Block, Pair};
use super::health::Health;
use super::text::{Notes, Text};
use super::value::{self, Quantity, Strange};

/// Most error codes of one chip; the driver returns up to 128.
const CODES: usize = 128;
/// Most processes of one answer.
const PROCESSES: usize = 4096;

/// What `-t health` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The tool's word, if there is one.
    pub(super) word: Option<String>,
    /// Without `0x`, in capitals.
    pub(super) codes: Vec<String>,
    /// One sentence per code, as the driver words it.
    pub(super) information: Vec<String>,
    /// The worst that other words of the answer mean.
    pub(super) least: Option<Health>,
}

impl Told {
    /// No word, or one that is not known, is never good.
    pub(super) fn level(&self) -> Health {
        let said = self.word.as_deref().map(|word| Health::from_word(word).unwrap_or(Health::Unknown));
        said.into_iter().chain(self.least).max().unwrap_or(Health::Unknown)
    }
}

/// Reads `-t health`.
pub(super) fn health(text: &Text, notes: &mut Notes) -> Told {
    let mut told = Told::default();
    let mut is_information = false;
    for pair in block::pairs(text) {
        let of_information = pair.key.is_empty() && is_information;
        is_information = of_information || pair.key == "error information";
        match pair.key.as_str() {
            "health status" | "health" => {
                let level = |word: &str| Health::from_word(word).unwrap_or(Health::Unknown);
                if told.word.as_deref().is_none_or(|old| level(old) < level(pair.value)) {
                    told.word = Some(pair.value.to_owned());
                }
            }
            "error code" => codes(&text.file, &pair, &mut told.codes, notes),
            _ if is_information && !value::is_absent(pair.value) && told.information.len() < CODES => {
                told.information.push(pair.value.to_owned());
            }
            _ => {}
        }
    }
    told
}

/// Reads `-t current-fault-event`: codes, and how bad they are.
pub(super) fn events(text: &Text, notes: &mut Notes) -> Told {
    let mut told = Told::default();
    for pair in block::pairs(text).iter().filter(|pair| matches!(pair.key.as_str(), "fault event information" | "")) {
        let field = |name: &str| pair.value.split(',').find_map(|part| part.trim().strip_prefix(name));
        let Some(id) = field("event id=") else { continue };
        codes(&text.file, &Pair { value: id, ..pair.clone() }, &mut told.codes, notes);
        let severity = field("severity=").and_then(|severity| value::whole(severity, 9).ok().flatten());
        told.least = told.least.max(Some(severity.map_or(Health::Unknown, Health::from_severity)));
    }
    told
}

fn codes(file: &str, pair: &Pair<'_>, codes: &mut Vec<String>, notes: &mut Notes) {
    if value::is_absent(pair.value) {
        return;
    }
    for word in pair.value.split([' ', '\t', ',', ';']).filter(|word| !word.is_empty()) {
        let code = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).unwrap_or(word);
        let is_code = (1..=16).contains(&code.len()) && code.chars().all(|c| c.is_ascii_hexdigit());
        if !is_code || codes.len() == CODES {
            notes.add(file, pair.line, &format!("`{word}` is no error code"));
            continue;
        }
        let code = code.to_ascii_uppercase();
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
}

/// What the other answers measure, by chip.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Measures {
    /// As the answer says; none where it does not.
    pub(super) chip: Option<u32>,
    /// Whether it is the card's controller that says so.
    pub(super) is_mcu: bool,
    pub(super) power: Option<Quantity>,
    pub(super) temperature: Option<Quantity>,
    pub(super) aicore: Option<Quantity>,
    pub(super) npu_util: Option<Quantity>,
    pub(super) memory_total: Option<u64>,
    pub(super) hbm_total: Option<u64>,
    /// Counters of memory errors, named as the tool does.
    pub(super) ecc: Vec<(String, u64)>,
}

/// Reads `-t usages`, `common`, `temp`, `power` and `ecc`.
pub(super) fn measures(text: &Text, notes: &mut Notes) -> Vec<Measures> {
    let blocks = block::blocks(text);
    if blocks.is_empty() {
        notes.add(&text.file, 0, "no value was found");
    }
    blocks.iter().map(|block| measured(&text.file, block, notes)).collect()
}

fn measured(file: &str, block: &Block<'_>, notes: &mut Notes) -> Measures {
    let mut quantity = |keys: &[&str], most: f64| {
        let pair = block.get(keys)?;
        value::quantity(pair.value, -100.0, most).unwrap_or_else(|Strange| {
            notes.add(file, pair.line, &format!("`{}` is no value of `{}`", pair.value, pair.key));
            None
        })
    };
    let power = quantity(&["npu real-time power(w)", "power dissipation(w)"], 100_000.0);
    let temperature = quantity(&["npu temperature (c)", "temperature (c)", "temperature(c)"], 300.0);
    let aicore = quantity(&["aicore usage rate(%)"], 100.0);
    let npu_util = quantity(&["npu utilization(%)"], 100.0);
    let mebibytes = |key| block.get(&[key]).and_then(|pair| value::mebibytes(pair.value).ok().flatten());
    let counters = block.pairs.iter().filter(|pair| pair.key.contains(" bit "));
    let counter = |pair: &Pair<'_>| Some((pair.key.clone(), value::whole(pair.value, u64::MAX).ok()??));
    Measures {
        chip: block.chip,
        is_mcu: block.is_mcu,
        power,
        temperature,
        aicore,
        npu_util,
        memory_total: mebibytes("ddr capacity(mb)").or(mebibytes("memory capacity(mb)")),
        hbm_total: mebibytes("hbm capacity(mb)"),
        ecc: counters.filter_map(counter).collect(),
    }
}

/// What `-t board` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Board {
    pub(super) chip_name: Option<String>,
    pub(super) npu_name: Option<String>,
    /// Version of the driver.
    pub(super) driver: Option<String>,
    pub(super) firmware: Option<String>,
    /// Whether driver and firmware fit together, in the tool's word.
    pub(super) compatibility: Option<String>,
    pub(super) bus_id: Option<String>,
}

/// Reads `-t board`.
pub(super) fn board(text: &Text, notes: &mut Notes) -> Board {
    let all = Block { pairs: block::pairs(text), ..Block::default() };
    if all.pairs.is_empty() {
        notes.add(&text.file, 0, "no value was found");
    }
    let get = |key: &str| {
        let value = all.get(&[key])?.value;
        (!value::is_absent(value)).then(|| value.to_owned())
    };
    Board {
        chip_name: get("chip name"),
        npu_name: get("npu name"),
        driver: get("software version"),
        firmware: get("firmware version"),
        compatibility: get("compatibility"),
        bus_id: get("pcie bus info").filter(|id| value::is_bus_id(id)),
    }
}

/// One process of `-t proc-mem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) chip: Option<u32>,
    pub(super) pid: u64,
    pub(super) name: Option<String>,
    pub(super) memory: Option<u64>,
}

/// Reads `-t proc-mem`.
pub(super) fn processes(text: &Text, notes: &mut Notes) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    // The chip's id stands below its processes.
    let mut begin = 0;
    for (line, said) in text.lines() {
        let said = said.trim();
        let small = said.to_ascii_lowercase();
        if small.starts_with("process id") {
            match process(said) {
                Some(process) if found.len() < PROCESSES => found.push(process),
                Some(_) | None => notes.add(&text.file, line, said),
            }
        } else if small.starts_with("chip id") {
            let chip = said.split_once(':').and_then(|(_, id)| value::id(id).ok().flatten());
            found[begin..].iter_mut().for_each(|process| process.chip = chip);
            begin = found.len();
        } else if !["npu id", "chip count", "no process in device"].iter().any(|known| small.starts_with(known)) {
            notes.add(&text.file, line, said);
        }
    }
    found
}

/// `Process id:PID Process name:X Process memory(MB):N`
fn process(said: &str) -> Option<Process> {
    let (_, rest) = said.split_once(':')?;
    let (pid, rest) = rest.split_once("Process name:")?;
    let (name, memory) = rest.rsplit_once("Process memory(MB):")?;
    let name = name.trim();
    Some(Process {
        chip: None,
        pid: value::whole(pid, 1 << 32).ok()??,
        name: (!value::is_absent(name)).then(|| name.to_owned()),
        memory: value::mebibytes(memory).ok().flatten(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(said: &str) -> Text {
        Text::new("f", said.as_bytes())
    }

    #[test]
    fn a_health_has_a_word_codes_and_sentences() {
        let said = "\tHealth Status                  : Alarm\n\tError Code                     : 80E01801 0x81078603\n\
                    \tError Information              : first: one\n\n\t                               : second\n";
        let told = health(&text(said), &mut Notes::default());
        assert_eq!(told.level(), Health::Alarm);
        assert_eq!(told.codes, ["80E01801", "81078603"]);
        assert_eq!(told.information, ["first: one", "second"]);
        let fine = health(&text("\tHealth : OK\n\tError Code : NA\n\tError Information : NA\n"), &mut Notes::default());
        assert_eq!((fine.level(), fine.codes.len(), fine.information.len()), (Health::Ok, 0, 0));
    }

    #[test]
    fn no_word_and_an_unknown_word_are_not_good() {
        for said in ["", "garbage", "Error Code : NA", "Health : fine", "Health : ", "Health Status : NA"] {
            assert_eq!(health(&text(said), &mut Notes::default()).level(), Health::Unknown, "{said}");
        }
        let two = health(&text("Health : OK\nHealth : Critical\nHealth : OK\n"), &mut Notes::default());
        assert_eq!(two.level(), Health::Critical);
    }

    #[test]
    fn events_have_codes_and_severities() {
        let said = "Fault Event Count : 1\nFault Event Information : event id=0x81AF8000, severity=2, node id=0\n";
        let told = events(&text(said), &mut Notes::default());
        assert_eq!((told.codes, told.least), (vec!["81AF8000".to_owned()], Some(Health::Alarm)));
        assert_eq!(events(&text("Fault Event Count : 0\n"), &mut Notes::default()).least, None);
    }

    #[test]
    fn processes_belong_to_the_chip_below_them() {
        let said = "NPU ID : 0\n\tProcess id:1 Process name:a b   Process memory(MB):177\n\tProcess id:2 Process name: Process memory(MB):x\n\
                    Chip ID : 0\nProcess id:3 Process name:c Process memory(MB):5\nChip ID : 1\nProcess id:zzz\n";
        let mut notes = Notes::default();
        let found = processes(&text(said), &mut notes);
        let short: Vec<_> = found.iter().map(|p| (p.chip, p.pid, p.name.as_deref(), p.memory)).collect();
        let wanted = [(Some(0), 1, Some("a b"), Some(177)), (Some(0), 2, None, None), (Some(1), 3, Some("c"), Some(5))];
        assert_eq!(short, wanted);
        assert_eq!(notes.into_vec().len(), 1);
    }
}
