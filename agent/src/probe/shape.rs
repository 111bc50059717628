//! What a row is, by its header or else by its looks.

use super::header::{Column, Header};
use super::health::Health;
use super::row::{Value, items};
use super::value;

/// What a row of the table of chips is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// With the card's id and the health.
    First,
    /// With the bus id.
    Second,
}

/// Which line of a chip a row is. `expects_second`: a first line came before.
pub(super) fn of(
    cells: &[&str],
    first: Option<&Header>,
    second: Option<&Header>,
    expects_second: bool,
) -> Option<Shape> {
    let cell = |header: Option<&Header>, column, default: usize| {
        let at = header.and_then(|header| header.find(column)).unwrap_or(default);
        cells.get(at).copied().unwrap_or_default().trim()
    };
    // Health and bus id stand in the same cell, next to the last.
    let default = cells.len().checked_sub(2)?;
    if value::is_bus_id(cell(second, Column::BusId, default)) {
        return Some(Shape::Second);
    }
    if Health::from_word(cell(first, Column::Health, default)).is_some() {
        return Some(Shape::First);
    }
    let (singles, pairs) = values(cells);
    match (singles, pairs) {
        (_, 0) => None,
        (2.., _) => Some(Shape::First),
        (1, 2..) => Some(Shape::Second),
        _ if expects_second => Some(Shape::Second),
        (1, 1) => Some(Shape::Second),
        _ => None,
    }
}

/// The layout of a first line, by its number of cells.
pub(super) fn first(cells: &[&str]) -> Option<Header> {
    use Column::{Health, Hugepages, Name, Npu, Power, Temperature};
    match cells.len() {
        3 => Some(Header::of(&[&[Npu, Name], &[Health], &[Power, Temperature, Hugepages]])),
        4 => Some(Header::of(&[&[Npu], &[Name], &[Health], &[Power, Temperature, Hugepages]])),
        _ => None,
    }
}

/// The layout of a second line, by its number of cells and values.
pub(super) fn second(cells: &[&str]) -> Option<Header> {
    use Column::{AiCore, BusId, Chip, Device, Hbm, Memory, NpuUtil, PhyId};
    let (_, pairs) = values(cells);
    let ids = items(cells.first()?).len();
    // A second id is the physical one beside HBM, and the logical one without.
    match (cells.len(), ids, pairs) {
        (3, 1, 2) => Some(Header::of(&[&[Chip], &[BusId], &[AiCore, Memory, Hbm]])),
        (3, 2, 2) => Some(Header::of(&[&[Chip, PhyId], &[BusId], &[AiCore, Memory, Hbm]])),
        (3, 1, 1) => Some(Header::of(&[&[Chip], &[BusId], &[AiCore, Memory]])),
        (3, 2, 1) => Some(Header::of(&[&[Chip, Device], &[BusId], &[AiCore, Memory]])),
        (4, 0, 2) => Some(Header::of(&[&[], &[], &[BusId], &[NpuUtil, Memory, Hbm]])),
        _ => None,
    }
}

/// Whether a row without a header can only be a process.
pub(super) fn is_process(cells: &[&str]) -> bool {
    let last = cells.last().copied().unwrap_or_default().trim();
    cells.len() >= 4
        && value::whole(cells[1], u64::MAX).is_ok_and(|pid| pid.is_some())
        && value::whole(last, u64::MAX).is_ok_and(|memory| memory.is_some())
}

/// The layout of a process, by its number of cells and ids.
pub(super) fn processes(cells: &[&str]) -> Option<Header> {
    use Column::{Chip, Npu, Pid, ProcessMemory, ProcessName};
    match (cells.len(), items(cells.first()?).len()) {
        (4, 1) => Some(Header::of(&[&[Npu], &[Pid], &[ProcessName], &[ProcessMemory]])),
        (4, 2) => Some(Header::of(&[&[Npu, Chip], &[Pid], &[ProcessName], &[ProcessMemory]])),
        _ => None,
    }
}

/// Single values and pairs of the last cell.
fn values(cells: &[&str]) -> (usize, usize) {
    let items = items(cells.last().copied().unwrap_or_default());
    let pairs = items.iter().filter(|item| matches!(item.value, Value::Pair(..))).count();
    (items.len() - pairs, pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(row: &str, expects_second: bool) -> Option<Shape> {
        of(&row.split('|').collect::<Vec<_>>(), None, None, expects_second)
    }

    #[test]
    fn rows_are_told_apart_without_a_header() {
        let table = [
            (" 0 910B3 | OK | 101.8 43 0 / 0 ", false, Some(Shape::First)),
            (" 0 910B3 | Odd | 101.8 43 0 / 0 ", false, Some(Shape::First)),
            (" 0 | 0000:C1:00.0 | 0 0 / 0 3318 / 65536 ", false, Some(Shape::Second)),
            (" 0 | NA | 0 0 / 0 3318 / 65536 ", false, Some(Shape::Second)),
            (" 0 0 | 00x0 | 0 577 / 7759 ", false, Some(Shape::Second)),
            (" 0 0 | NA | - 577 / 7759 ", true, Some(Shape::Second)),
            (" 0 0 | x | 577 / 7759 ", false, None),
            (" 0 0 | x | y ", true, None),
        ];
        for (row, expects_second, shape) in table {
            assert_eq!(kind(row, expects_second), shape, "{row}");
        }
        assert!(is_process(&[" 0 0 ", " 17 ", " python ", " 5 "]));
        assert!(!is_process(&[" 0 ", " xxx ", " OK ", " 204.4 56 0 / 0 "]));
    }
}
