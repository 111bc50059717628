//! Columns of the tables, found by their names.

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Npu,
    Name,
    Chip,
    PhyId,
    /// Logic id, in tables of chips without HBM.
    Device,
    Health,
    BusId,
    Power,
    Temperature,
    Hugepages,
    AiCore,
    /// Of the whole NPU: not the same as of its AI cores.
    NpuUtil,
    Memory,
    Hbm,
    Pid,
    ContainerPid,
    ProcessName,
    ProcessMemory,
    /// One that is not known.
    Other,
}

impl Column {
    /// Whether its values are `used / total`.
    pub(super) fn is_pair(self) -> Option<bool> {
        match self {
            Self::Hugepages | Self::Memory | Self::Hbm => Some(true),
            Self::Other => None,
            Self::Npu
            | Self::Name
            | Self::Chip
            | Self::PhyId
            | Self::Device
            | Self::Health
            | Self::BusId
            | Self::Power
            | Self::Temperature
            | Self::AiCore
            | Self::NpuUtil
            | Self::Pid
            | Self::ContainerPid
            | Self::ProcessName
            | Self::ProcessMemory => Some(false),
        }
    }
}

/// Names of columns, word by word, longer ones first.
const NAMES: [(&[&str], Column); 23] = [
    (&["process", "id", "in", "container"], Column::ContainerPid),
    (&["process", "id"], Column::Pid),
    (&["process", "name"], Column::ProcessName),
    (&["process", "memory(mb)"], Column::ProcessMemory),
    (&["npu", "util(%)"], Column::NpuUtil),
    (&["ai", "core(%)"], Column::AiCore),
    (&["npu", "id"], Column::Npu),
    (&["chip", "id"], Column::Chip),
    (&["npu"], Column::Npu),
    (&["name"], Column::Name),
    (&["chip"], Column::Chip),
    (&["phy-id"], Column::PhyId),
    (&["device"], Column::Device),
    (&["logic-id"], Column::Device),
    (&["health"], Column::Health),
    (&["bus-id"], Column::BusId),
    (&["power(w)"], Column::Power),
    (&["temp(c)"], Column::Temperature),
    (&["temperature(c)"], Column::Temperature),
    (&["hugepages-usage(page)"], Column::Hugepages),
    (&["aicore(%)"], Column::AiCore),
    (&["memory-usage(mb)"], Column::Memory),
    (&["hbm-usage(mb)"], Column::Hbm),
];

/// A column and where its name begins in its cell, in characters.
pub(super) type Placed = (Column, usize);

/// The columns of each cell of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) cells: Vec<Vec<Placed>>,
}

/// The three kinds of headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Above a chip's first line.
    First(Header),
    /// Above a chip's second line.
    Second(Header),
    /// Above processes.
    Processes(Header),
}

impl Header {
    /// The header that a row's cells are, if they are one.
    pub(super) fn read(cells: &[&str]) -> Option<Kind> {
        let header = Self { cells: cells.iter().map(|cell| columns(cell)).collect() };
        let has = |wanted: &[Column]| wanted.iter().any(|column| header.find(*column).is_some());
        if has(&[Column::Pid]) && has(&[Column::ProcessName, Column::ProcessMemory]) {
            return Some(Kind::Processes(header));
        }
        if has(&[Column::Npu]) && has(&[Column::Health]) && has(&[Column::Power, Column::Temperature]) {
            return Some(Kind::First(header));
        }
        let values = [Column::AiCore, Column::NpuUtil, Column::Memory, Column::Hbm];
        (has(&[Column::BusId]) && has(&values)).then_some(Kind::Second(header))
    }

    /// A header made of columns alone.
    pub(super) fn of(cells: &[&[Column]]) -> Self {
        let place = |columns: &&[Column]| columns.iter().zip(0..).map(|(column, at)| (*column, at)).collect();
        Self { cells: cells.iter().map(place).collect() }
    }

    /// The cell that has a column.
    pub(super) fn find(&self, column: Column) -> Option<usize> {
        self.cells.iter().position(|cell| cell.iter().any(|(c, _)| *c == column))
    }
}

fn columns(cell: &str) -> Vec<Placed> {
    let words = words(cell);
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let named = NAMES.iter().find(|(name, _)| {
            let given = words.get(at..at + name.len());
            given.is_some_and(|given| given.iter().zip(*name).all(|((word, _), part)| word.eq_ignore_ascii_case(part)))
        });
        match named {
            Some((name, column)) => {
                found.push((*column, words[at].1));
                at += name.len();
            }
            None => {
                // Words with one blank between them are one unknown name.
                let is_next = found.last().is_some_and(|(column, _)| *column == Column::Other)
                    && at > 0
                    && words[at - 1].1 + words[at - 1].0.chars().count() + 1 == words[at].1;
                if !is_next {
                    found.push((Column::Other, words[at].1));
                }
                at += 1;
            }
        }
    }
    found
}

/// The words of a cell and where they begin, in characters.
pub(super) fn words(cell: &str) -> Vec<(&str, usize)> {
    let mut words = Vec::new();
    let mut begin: Option<(usize, usize)> = None;
    for (place, (at, c)) in cell.char_indices().enumerate() {
        match (c.is_whitespace(), begin) {
            (false, None) => begin = Some((at, place)),
            (true, Some((from, position))) => {
                words.push((&cell[from..at], position));
                begin = None;
            }
            (false, Some(_)) | (true, None) => {}
        }
    }
    if let Some((from, position)) = begin {
        words.push((&cell[from..], position));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cell: &str) -> Vec<Column> {
        columns(cell).into_iter().map(|(column, _)| column).collect()
    }

    #[test]
    fn columns_are_found_by_name_however_they_are_spaced() {
        use Column::{
            AiCore, Chip, Device, Hbm, Hugepages, Memory, Name, Npu, NpuUtil, Other, PhyId, Power, Temperature,
        };
        let table: [(&str, &[Column]); 8] = [
            (" NPU   Name  ", &[Npu, Name]),
            (" NPU ID ", &[Npu]),
            (" Chip  Phy-ID ", &[Chip, PhyId]),
            (" Chip    Device ", &[Chip, Device]),
            (" Power(W)    Temp(C)           Hugepages-Usage(page)", &[Power, Temperature, Hugepages]),
            (" NPU Util(%) Memory-Usage(MB)  HBM-Usage(MB) ", &[NpuUtil, Memory, Hbm]),
            (" AICore(%)  Some Thing(%)  Memory-Usage(GB)  HBM-Usage(MB)", &[AiCore, Other, Other, Hbm]),
            ("   ", &[]),
        ];
        for (cell, columns) in table {
            assert_eq!(names(cell), columns, "{cell}");
        }
    }

    #[test]
    fn rows_of_values_are_no_headers() {
        for cells in [
            vec![" 0     910B3 ", " OK ", " 101.8  43   0 / 0 "],
            vec![" 0  ", " 0000:C1:00.0  ", " 0 0 / 0 1 / 2"],
            vec![" 0       0 ", " 139667 ", " health ", " 30780 "],
            vec![" npu-smi 25.2.0   Version: 25.2.0 "],
        ] {
            assert_eq!(Header::read(&cells), None, "{cells:?}");
        }
    }
}
