//! From outputs to a report: what several answers say about one chip.

use std::collections::BTreeMap;

use super::cards::{self, Known};
use super::command::Command;
use super::detail::{self, Board, Measures, Told};
use super::entry::Entry;
use super::failure;
use super::health::Health;
use super::info::{self, Info};
use super::listing;
use super::network;
use super::outputs::Outputs;
use super::report::{Npu, Process, Report};
use super::text::{Notes, Text};
use super::topology;
use super::value;

/// Understands all that a probe has heard.
#[must_use]
pub fn report(outputs: &Outputs) -> Report {
    let mut notes = outputs.notes.clone();
    let heard = Heard::new(outputs, &mut notes);
    let (mut info, mut error, is_doubtful) = table(outputs, &mut notes);
    let known = known(outputs, &heard, &mut notes);
    let file = Command::Info.file();
    let mut entries = cards::gather(&mut info, &known, is_doubtful, &file, &mut notes);
    healths(&mut entries, &heard, &mut notes);
    for (npu, chip, measures) in &heard.measures {
        fill(&mut entries, *npu, *chip, measures);
    }
    name(&mut entries, &heard.boards);
    if !entries.is_empty() {
        error = error.filter(|_| entries.iter().all(|entry| entry.health() == Health::Unknown));
    }
    let find = |get: fn(&Board) -> Option<&String>| heard.boards.iter().find_map(|(.., board)| get(board).cloned());
    let versions = outputs.versions.clone();
    let mut npus: Vec<Npu> = entries.into_iter().map(Npu::from).collect();
    networks(&mut npus, outputs, &mut notes);
    Report {
        npus,
        processes: processes(info.processes, heard.processes),
        driver: versions.driver.or_else(|| find(|board| board.driver.as_ref())),
        cann: versions.cann,
        firmware: versions.firmware.or_else(|| find(|board| board.firmware.as_ref())),
        npu_smi: info.version,
        topology: heard.topology,
        error,
        notes: notes.into_vec(),
    }
}

/// The two tables; why there is none; whether an error stood beside them.
fn table(outputs: &Outputs, notes: &mut Notes) -> (Info, Option<String>, bool) {
    let Some(text) = outputs.texts.get(&Command::Info) else {
        let why = outputs.failed.get(&Command::Info).cloned().unwrap_or_else(|| "`npu-smi info` failed".to_owned());
        notes.add(&Command::Info.file(), 0, &why);
        return (Info::default(), Some(why), false);
    };
    let failure = failure::find(text);
    let info = info::read(text, notes);
    let is_doubtful = failure.as_ref().is_some_and(|failure| failure.code.is_some());
    let error = match (&failure, info.is_table) {
        (_, true) => None,
        (Some(failure), false) => Some(failure.to_string()),
        (None, false) => Some("`npu-smi info` printed no table that is understood".to_owned()),
    };
    // An error that the tool printed is among the lines already.
    if let Some(error) = error.as_ref().filter(|_| failure.is_none()) {
        notes.add(&text.file, 0, error);
    }
    (info, error, is_doubtful)
}

/// Answers to questions about single cards and chips.
#[derive(Default)]
struct Heard {
    healths: Vec<(u32, Option<u32>, Told)>,
    events: Vec<(u32, Option<u32>, Told)>,
    measures: Vec<(u32, Option<u32>, Vec<Measures>)>,
    boards: Vec<(u32, Option<u32>, Board)>,
    processes: Vec<Process>,
    topology: Option<topology::Topology>,
}

impl Heard {
    fn new(outputs: &Outputs, notes: &mut Notes) -> Self {
        let mut heard = Self::default();
        for (command, text) in &outputs.texts {
            let Command::About { what, npu, chip } = command else { continue };
            if let Some(failure) = failure::find(text) {
                notes.add(&text.file, failure.line, &failure.to_string());
            }
            if what == "topo" {
                heard.topology = topology::read(text, notes).or(heard.topology);
                continue;
            }
            let (in_text, of_chip) = named(text);
            if npu.is_some() && in_text.is_some() && *npu != in_text {
                notes.add(&text.file, 0, "the answer names another NPU than the question");
            }
            let Some(npu) = npu.or(in_text) else {
                notes.add(&text.file, 0, "which NPU this is about is not said");
                continue;
            };
            heard.about(what, (npu, chip.or(of_chip)), text, notes);
        }
        heard
    }

    fn about(&mut self, what: &str, (npu, chip): (u32, Option<u32>), text: &Text, notes: &mut Notes) {
        match what {
            "health" => {
                let told = detail::health(text, notes);
                if told.level() == Health::Unknown {
                    notes.add(&text.file, 0, told.word.as_deref().unwrap_or("no health is said"));
                }
                self.healths.push((npu, chip, told));
            }
            "current-fault-event" => self.events.push((npu, chip, detail::events(text, notes))),
            "usages" | "common" | "temp" | "power" | "ecc" => {
                self.measures.push((npu, chip, detail::measures(text, notes)));
            }
            "board" => self.boards.push((npu, chip, detail::board(text, notes))),
            "proc-mem" => {
                let of = |process: detail::Process| Process {
                    npu: Some(npu),
                    chip: chip.or(process.chip),
                    pid: Some(process.pid),
                    container_pid: None,
                    name: process.name,
                    memory_mib: process.memory,
                };
                self.processes.extend(detail::processes(text, notes).into_iter().map(of));
            }
            other => notes.add(&text.file, 0, &format!("answers about `{other}` are not read")),
        }
    }
}

/// The card that an answer names, and its chip if it names exactly one.
fn named(text: &Text) -> (Option<u32>, Option<u32>) {
    let pairs = super::block::pairs(text);
    let ids = |key: &str| -> Vec<u32> {
        let of_key = pairs.iter().filter(|pair| pair.key == key);
        of_key.filter_map(|pair| value::id(pair.value).ok().flatten()).collect()
    };
    let chip = match ids("chip id")[..] {
        [chip] => Some(chip),
        _ => None,
    };
    (ids("npu id").first().copied(), chip)
}

fn known(outputs: &Outputs, heard: &Heard, notes: &mut Notes) -> Known {
    let mut known = Known::default();
    if let Some(text) = outputs.texts.get(&Command::Mapping) {
        known.mapping = listing::mapping(text, notes);
    }
    if let Some(text) = outputs.texts.get(&Command::List) {
        known.list = listing::list(text, notes);
    }
    for command in [Command::Mapping, Command::List] {
        if let Some(failure) = outputs.texts.get(&command).and_then(failure::find) {
            notes.add(&command.file(), failure.line, &failure.to_string());
        }
    }
    let buses = heard.boards.iter().filter_map(|(npu, chip, board)| Some((*npu, *chip, board.bus_id.clone()?)));
    known.buses = buses.collect();
    known
}

/// Lets every answer about health count, those about single chips first.
fn healths(entries: &mut Vec<Entry>, heard: &Heard, notes: &mut Notes) {
    let (of_chips, of_cards): (Vec<_>, Vec<_>) = heard.healths.iter().partition(|(_, chip, _)| chip.is_some());
    for (npu, chip, told) in of_chips.into_iter().chain(of_cards) {
        let mut ours: Vec<&mut Entry> = entries.iter_mut().filter(|entry| entry.is(*npu, *chip)).collect();
        if ours.is_empty() {
            if told.word.is_some() {
                let text = format!("NPU {npu} is said to be {} and is in no list", told.level().word());
                notes.add("", 0, &text);
                let chip = info::Chip { npu: Some(*npu), chip: *chip, ..info::Chip::default() };
                let mut entry = Entry::new(chip, super::entry::Word::NoTable);
                entry.tell(told.level());
                entry.explain(told);
                entries.push(entry);
            }
            continue;
        }
        apply(&mut ours, told, Some(told.level()), chip.is_some());
        ours.iter_mut().filter(|_| told.word.is_some()).for_each(|entry| entry.confirm());
    }
    for (npu, chip, told) in &heard.events {
        let mut ours: Vec<&mut Entry> = entries.iter_mut().filter(|entry| entry.is(*npu, *chip)).collect();
        // Hints are worth their codes and no health.
        let level = told.least.filter(|level| *level > Health::Ok);
        apply(&mut ours, told, level, chip.is_some());
    }
}

/// Gives an answer to the chips that it is about. One about a whole card is
/// news to its chips only if none of them is as bad as that.
fn apply(ours: &mut [&mut Entry], told: &Told, level: Option<Health>, is_of_chip: bool) {
    if let Some(level) = level {
        let worst = ours.iter().map(|entry| entry.health()).max().unwrap_or(Health::Ok);
        let is_news = is_of_chip || level == Health::Ok || level > worst;
        ours.iter_mut().filter(|_| is_news).for_each(|entry| entry.tell(level));
    }
    let worst = ours.iter().map(|entry| entry.health()).max();
    ours.iter_mut().filter(|entry| Some(entry.health()) == worst).for_each(|entry| entry.explain(told));
}

/// Fills in what answers measured, where it is clear which chip is meant.
fn fill(entries: &mut [Entry], npu: u32, chip: Option<u32>, all: &[Measures]) {
    for measures in all {
        let chip = if measures.is_mcu { None } else { measures.chip.or(chip) };
        let mut ours: Vec<&mut Entry> = entries.iter_mut().filter(|entry| entry.is(npu, chip)).collect();
        let [only] = &mut ours[..] else { continue };
        // A controller measures the card's power, and a temperature of its own.
        let of_card = Measures { power: measures.power, ..Measures::default() };
        only.fill(if measures.is_mcu { &of_card } else { measures });
    }
}

/// Takes the exact model where the table has only the family's name, or none.
fn name(entries: &mut [Entry], boards: &[(u32, Option<u32>, Board)]) {
    for (npu, chip, board) in boards {
        let mut ours: Vec<&mut Entry> = entries.iter_mut().filter(|entry| entry.is(*npu, *chip)).collect();
        let is_only = ours.len() == 1;
        for entry in &mut ours {
            let family = entry.chip.name.as_deref().is_none_or(|name| name.eq_ignore_ascii_case("Ascend910"));
            if family {
                let exact = board.npu_name.clone().or_else(|| board.chip_name.clone());
                entry.chip.name = exact.or(entry.chip.name.take());
            }
            if is_only {
                entry.chip.bus_id = entry.chip.bus_id.take().or_else(|| board.bus_id.clone());
            }
        }
    }
}

/// What is said of network ports; of no chip in the list, a note.
fn networks(npus: &mut [Npu], outputs: &Outputs, notes: &mut Notes) {
    for (command, text) in &outputs.texts {
        let Command::Network { device, what } = command else { continue };
        let Some(npu) = npus.iter_mut().find(|npu| npu.device() == Some(*device)) else {
            notes.add(&text.file, 0, "no chip in the list has this device");
            continue;
        };
        match *what {
            "link" => npu.link = network::link(text, notes),
            _ => npu.network = network::health(text, notes),
        }
    }
}

/// The table's processes, and those that it leaves out (it prints eight a chip).
fn processes(table: Vec<info::Process>, asked: Vec<Process>) -> Vec<Process> {
    let of_table = table.into_iter().map(|process| Process {
        npu: process.npu,
        chip: process.chip,
        pid: process.pid,
        container_pid: process.container_pid,
        name: process.name,
        memory_mib: process.memory,
    });
    let mut all: BTreeMap<_, Process> = BTreeMap::new();
    for (place, process) in of_table.chain(asked).enumerate() {
        // Without a number it may be any process.
        let unknown = process.pid.is_none().then_some(place);
        let same = all.entry((process.npu, process.chip, process.pid, unknown)).or_insert_with(|| process.clone());
        same.name = same.name.take().or(process.name);
        same.memory_mib = same.memory_mib.or(process.memory_mib);
    }
    all.into_values().collect()
}
