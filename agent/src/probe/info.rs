//! The two tables of `npu-smi info`.
//!
//! Five layouts are known (with and without HBM, two dies a card, wider ones,
//! and one of four cells); rows are read by the names of their header's columns,
//! or by their shape where the header is missing. A chip has two lines: the
//! first with the card's id and the health, the second with the bus id. A chip
//! whose health cannot be read has the second line only.

use super::header::{Column, Header, Kind};
use super::health::Health;
use super::row::{self, Row, Value};
use super::shape::{self, Shape};
use super::text::{Notes, Text};
use super::value::{self, Quantity, Strange};

/// Most chips, and most processes, that are taken.
const MOST: usize = 4096;

/// What the tables say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Info {
    /// Whether a table of chips was there at all.
    pub(super) is_table: bool,
    /// The tool's own version.
    pub(super) version: Option<String>,
    pub(super) chips: Vec<Chip>,
    pub(super) processes: Vec<Process>,
    /// Cards that are said to run no process.
    pub(super) idle: Vec<u32>,
}

/// One chip.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chip {
    /// Line of its first row.
    pub(super) line: usize,
    pub(super) npu: Option<u32>,
    pub(super) chip: Option<u32>,
    pub(super) phy_id: Option<u32>,
    pub(super) logic_id: Option<u32>,
    pub(super) name: Option<String>,
    /// What the table says; none where it has no first line for this chip.
    pub(super) health: Option<String>,
    pub(super) power: Option<Quantity>,
    pub(super) temperature: Option<Quantity>,
    pub(super) bus_id: Option<String>,
    pub(super) aicore: Option<Quantity>,
    pub(super) npu_util: Option<Quantity>,
    pub(super) memory: Usage,
    pub(super) hbm: Usage,
    /// Whether both of its lines were there.
    pub(super) whole: bool,
}

/// Used and total, in MiB.
pub(super) type Usage = (Option<u64>, Option<u64>);

/// One process on one chip.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) npu: Option<u32>,
    pub(super) chip: Option<u32>,
    pub(super) pid: Option<u64>,
    pub(super) container_pid: Option<u64>,
    pub(super) name: Option<String>,
    pub(super) memory: Option<u64>,
}

impl Chip {
    /// The worst that the table's word can mean: a missing line, or a word that
    /// is not known, is never good.
    pub(super) fn level(&self) -> Health {
        let said = self.health.as_deref().and_then(Health::from_word).unwrap_or(Health::Unknown);
        if self.whole { said } else { said.max(Health::Unknown) }
    }
}

/// Reads both tables; what is not understood goes to `notes`.
pub(super) fn read(text: &Text, notes: &mut Notes) -> Info {
    let mut reader = Reader {
        notes,
        file: &text.file,
        info: Info::default(),
        first: None,
        second: None,
        processes: None,
        pending: None,
    };
    for (line, said) in text.lines() {
        if !reader.line(line, said) {
            reader.notes.add(&text.file, line, said);
        }
    }
    reader.flush();
    reader.info
}

struct Reader<'n> {
    notes: &'n mut Notes,
    file: &'n str,
    info: Info,
    first: Option<Header>,
    second: Option<Header>,
    processes: Option<Header>,
    /// A first line whose second is still to come.
    pending: Option<Chip>,
}

impl Reader<'_> {
    /// Takes a line; whether it was understood.
    fn line(&mut self, line: usize, said: &str) -> bool {
        let (cells, open) = match row::split(said) {
            None => return false,
            Some(Row::Border) => {
                self.flush();
                return true;
            }
            Some(Row::Cells { cells, open }) => (cells, open),
        };
        match Header::read(&cells) {
            Some(Kind::First(header)) => {
                self.flush();
                (self.first, self.processes, self.info.is_table) = (Some(header), None, true);
                return true;
            }
            Some(Kind::Second(header)) => {
                (self.second, self.info.is_table) = (Some(header), true);
                return true;
            }
            Some(Kind::Processes(header)) => {
                self.flush();
                self.processes = Some(header);
                return true;
            }
            None => {}
        }
        if let [only] = cells[..] {
            return self.single(only);
        }
        if self.processes.is_some() || shape::is_process(&cells) {
            return self.process(line, &cells, open);
        }
        match shape::of(&cells, self.first.as_ref(), self.second.as_ref(), self.pending.is_some()) {
            Some(Shape::First) => self.first_line(line, &cells, open),
            Some(Shape::Second) => self.second_line(line, &cells, open),
            None => false,
        }
    }

    /// A row of one cell: the tool's version, or that a card is idle.
    fn single(&mut self, cell: &str) -> bool {
        let words: Vec<&str> = cell.split_whitespace().collect();
        if words.first() == Some(&"npu-smi") {
            self.info.version = words.get(1).map(|version| (*version).to_owned());
            return true;
        }
        if !cell.to_ascii_lowercase().contains("no running process") {
            return false;
        }
        let npu = words.last().and_then(|word| value::id(word).ok().flatten());
        if self.info.idle.len() < MOST {
            self.info.idle.extend(npu);
        }
        true
    }

    fn first_line(&mut self, line: usize, cells: &[&str], open: bool) -> bool {
        self.flush();
        let default = shape::first(cells);
        let Some(header) = self.first.clone().filter(|h| h.cells.len() == cells.len()).or(default) else {
            return false;
        };
        let mut chip = Chip { line, ..Chip::default() };
        for (index, (columns, cell)) in header.cells.iter().zip(cells).enumerate() {
            let is_cut = open && index + 1 == cells.len();
            match columns[..] {
                [(Column::Npu, _), (Column::Name, _)] => {
                    let cell = cell.trim();
                    let (id, name) = cell.split_once(char::is_whitespace).unwrap_or((cell, ""));
                    chip.npu = self.take(line, value::id(id), id);
                    chip.name = text(name);
                }
                [(Column::Health, _)] => chip.health = text(cell),
                [(Column::Name, _)] => chip.name = text(cell),
                _ => self.first_values(&mut chip, columns, cell, is_cut),
            }
        }
        if chip.npu.is_none() {
            return false;
        }
        self.pending = Some(chip);
        true
    }

    fn first_values(&mut self, chip: &mut Chip, columns: &[(Column, usize)], cell: &str, is_cut: bool) {
        let line = chip.line;
        if self.cut(line, cell, is_cut) {
            return;
        }
        self.count(line, columns, cell);
        for (column, value) in row::assign(columns, cell) {
            match (column, value) {
                (Column::Npu, Some(Value::One(id))) => chip.npu = self.take(line, value::id(id), id),
                (Column::Name, Some(Value::One(name))) => chip.name = text(name),
                (Column::Health, Some(Value::One(word))) => chip.health = text(word),
                (Column::Power, Some(Value::One(power))) => {
                    chip.power = self.take(line, value::quantity(power, 0.0, 100_000.0), power);
                }
                (Column::Temperature, Some(Value::One(degrees))) => {
                    chip.temperature = self.take(line, value::quantity(degrees, -100.0, 300.0), degrees);
                }
                _ => {}
            }
        }
    }

    fn second_line(&mut self, line: usize, cells: &[&str], open: bool) -> bool {
        let default = shape::second(cells);
        let header = self.second.clone().filter(|h| h.cells.len() == cells.len()).or(default);
        let Some(header) = header else { return false };
        let mut chip = self.pending.take().unwrap_or(Chip { line, ..Chip::default() });
        chip.whole = chip.health.is_some();
        for (index, (columns, cell)) in header.cells.iter().zip(cells).enumerate() {
            let is_cut = open && index + 1 == cells.len();
            match columns[..] {
                [(Column::BusId, _)] => chip.bus_id = self.bus_id(line, cell),
                _ => self.second_values(line, &mut chip, columns, cell, is_cut),
            }
        }
        self.push(chip);
        true
    }

    fn second_values(&mut self, line: usize, chip: &mut Chip, columns: &[(Column, usize)], cell: &str, is_cut: bool) {
        if self.cut(line, cell, is_cut) {
            return;
        }
        self.count(line, columns, cell);
        for (column, value) in row::assign(columns, cell) {
            match (column, value) {
                (Column::Chip, Some(Value::One(id))) => chip.chip = self.take(line, value::id(id), id),
                (Column::PhyId, Some(Value::One(id))) => chip.phy_id = self.take(line, value::id(id), id),
                (Column::Device, Some(Value::One(id))) => chip.logic_id = self.take(line, value::id(id), id),
                (Column::BusId, Some(Value::One(id))) => chip.bus_id = self.bus_id(line, id),
                (Column::AiCore, Some(Value::One(rate))) => chip.aicore = self.percent(line, rate),
                (Column::NpuUtil, Some(Value::One(rate))) => chip.npu_util = self.percent(line, rate),
                (Column::Memory, Some(Value::Pair(used, total))) => chip.memory = self.usage(line, used, total),
                (Column::Hbm, Some(Value::Pair(used, total))) => chip.hbm = self.usage(line, used, total),
                _ => {}
            }
        }
    }

    fn process(&mut self, line: usize, cells: &[&str], open: bool) -> bool {
        let header = self.processes.clone().or_else(|| shape::processes(cells));
        let Some(header) = header else { return false };
        let wide = header.find(Column::ProcessName);
        let Some(cells) = row::fit(&header, cells, wide) else { return false };
        let mut process = Process::default();
        for (columns, cell) in header.cells.iter().zip(&cells) {
            if let [(Column::ProcessName, _)] = columns[..] {
                process.name = text(cell);
                continue;
            }
            for (column, value) in row::assign(columns, cell) {
                let Some(Value::One(word)) = value else { continue };
                if column == Column::Npu {
                    process.npu = self.take(line, value::id(word), word);
                } else if column == Column::Chip {
                    process.chip = self.take(line, value::id(word), word);
                } else if column == Column::Pid {
                    process.pid = self.take(line, value::whole(word, PIDS), word);
                } else if column == Column::ContainerPid {
                    process.container_pid = self.take(line, value::whole(word, PIDS), word);
                } else if column == Column::ProcessMemory && !open {
                    process.memory = self.take(line, value::mebibytes(word), word);
                }
            }
        }
        if process.npu.is_none() || self.info.processes.len() == MOST {
            return false;
        }
        self.info.processes.push(process);
        true
    }

    fn bus_id(&mut self, line: usize, cell: &str) -> Option<String> {
        let id = cell.trim();
        if value::is_bus_id(id) {
            return Some(id.to_owned());
        }
        if !value::is_absent(id) {
            self.notes.add(self.file, line, &format!("`{id}` is no bus id"));
        }
        None
    }

    fn percent(&mut self, line: usize, rate: &str) -> Option<Quantity> {
        self.take(line, value::quantity(rate.strip_suffix('%').unwrap_or(rate), 0.0, 100.0), rate)
    }

    fn usage(&mut self, line: usize, used: &str, total: &str) -> Usage {
        (self.take(line, value::mebibytes(used), used), self.take(line, value::mebibytes(total), total))
    }

    fn take<T>(&mut self, line: usize, value: Result<Option<T>, Strange>, raw: &str) -> Option<T> {
        value.unwrap_or_else(|Strange| {
            self.notes.add(self.file, line, &format!("`{raw}` is no value of its column"));
            None
        })
    }

    /// Notes where a cell has more or fewer values than its header has columns.
    fn count(&mut self, line: usize, columns: &[(Column, usize)], cell: &str) {
        let values = row::items(cell).len();
        if values != columns.len() && values > 0 {
            let text = format!("{values} values stand under {} columns: {}", columns.len(), cell.trim());
            self.notes.add(self.file, line, &text);
        }
    }

    /// Whether a cell that ends without a bar must not be believed.
    fn cut(&mut self, line: usize, cell: &str, is_cut: bool) -> bool {
        if is_cut {
            self.notes.add(self.file, line, &format!("the row is cut off: {}", cell.trim()));
        }
        is_cut
    }

    /// A first line without its second says nothing about a certain chip.
    fn flush(&mut self) {
        if let Some(chip) = self.pending.take() {
            self.notes.add(self.file, chip.line, "the second line of this chip is missing");
            self.push(chip);
        }
    }

    fn push(&mut self, chip: Chip) {
        self.info.is_table = true;
        if self.info.chips.len() < MOST {
            self.info.chips.push(chip);
        }
    }
}

/// Largest process number.
const PIDS: u64 = 1 << 32;

fn text(cell: &str) -> Option<String> {
    let cell = cell.trim();
    (!value::is_absent(cell)).then(|| cell.to_owned())
}
