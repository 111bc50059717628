//! Splitting input text into tasks.

use super::survey::{DatasetSurvey, RowGroup};
use crate::arguments::preprocess::Part;

/// One task's part of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// Position of the file.
    pub(super) file: usize,
    pub(super) part: Part,
    /// Bytes of it, about.
    pub(super) bytes: u64,
}

/// Splits files into about `wanted` slices of about equal bytes, in order.
///
/// Every file has at least one slice, files that are known to be empty none.
/// Slices by rows begin at multiples of `unit`, and at row groups where one is
/// near; a file that can be cut neither by rows nor by bytes stays whole.
pub(super) fn split(files: &[DatasetSurvey], wanted: u32, unit: u64) -> Vec<Slice> {
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).max(1);
    let mut parts: Vec<usize> = files.iter().map(|file| usize::from(file.rows != Some(0))).collect();
    let mut given: usize = parts.iter().sum();
    while given < wanted {
        // The file with the largest slices is cut once more.
        let next = (0..files.len())
            .filter(|&index| parts[index] > 0 && limit(&files[index], unit) > parts[index])
            .max_by_key(|&index| (files[index].bytes / parts[index] as u64, usize::MAX - index));
        let Some(index) = next else { break };
        parts[index] += 1;
        given += 1;
    }
    files.iter().enumerate().flat_map(|(index, file)| cut(index, file, parts[index], unit)).collect()
}

/// Most slices of a file.
fn limit(file: &DatasetSurvey, unit: u64) -> usize {
    let most = match file.rows {
        Some(rows) => rows.div_ceil(unit),
        None if file.byte_slices => file.bytes.max(1),
        None => 1,
    };
    usize::try_from(most).unwrap_or(usize::MAX)
}

fn cut(file: usize, survey: &DatasetSurvey, parts: usize, unit: u64) -> Vec<Slice> {
    let Some(rows) = survey.rows else {
        if parts < 2 {
            return (0..parts).map(|_| Slice { file, part: Part::Whole, bytes: survey.bytes }).collect();
        }
        let at = |part: usize| narrow(u128::from(survey.bytes) * part as u128 / parts as u128);
        let ranges = (0..parts).map(|part| (at(part), at(part + 1)));
        return ranges
            .map(|(start, end)| Slice { file, part: Part::Bytes { start, end }, bytes: end - start })
            .collect();
    };
    let sound = survey.row_groups.iter().map(|group| group.rows).fold(0, u64::saturating_add) == rows;
    let whole = [RowGroup { rows, bytes: survey.bytes }];
    let map = Map::new(if sound && !survey.row_groups.is_empty() { &survey.row_groups } else { &whole });
    let mut slices = Vec::with_capacity(parts);
    let mut start = 0;
    for part in 1..=parts {
        let left = (parts - part) as u64;
        let end = if left == 0 {
            rows
        } else {
            let wanted = map.row_at(part as u128, parts as u128);
            let rounded = (wanted + unit / 2) / unit * unit;
            // Each slice has a unit at least, those that are still to come too.
            let last = (rows.div_ceil(unit) - left) * unit;
            rounded.clamp(start + unit, last.max(start + unit))
        };
        slices.push(Slice {
            file,
            part: Part::Rows { start, end },
            bytes: map.bytes_before(end) - map.bytes_before(start),
        });
        start = end;
    }
    slices
}

/// Which bytes the rows of a file are, about: even within a row group.
struct Map {
    /// Row and byte that each group begins at, and those behind the last.
    borders: Vec<(u64, u64)>,
}

impl Map {
    fn new(groups: &[RowGroup]) -> Self {
        let mut borders = vec![(0_u64, 0_u64)];
        let (mut row, mut byte) = (0_u64, 0_u64);
        for group in groups {
            row = row.saturating_add(group.rows);
            byte = byte.saturating_add(group.bytes);
            borders.push((row, byte));
        }
        Self { borders }
    }

    /// The row at `part` of `parts` equal stretches of bytes; a group's border
    /// where one is within an eighth of a stretch.
    fn row_at(&self, part: u128, parts: u128) -> u64 {
        let total = self.borders.last().map_or(0, |border| border.1);
        let target = narrow(u128::from(total) * part / parts);
        let near = narrow(u128::from(total) / parts / 8);
        let closest = self.borders.iter().min_by_key(|border| border.1.abs_diff(target));
        if let Some(border) = closest.filter(|border| border.1.abs_diff(target) <= near) {
            return border.0;
        }
        let mut pairs = self.borders.windows(2);
        pairs.find(|pair| pair[1].1 > target).map_or(0, |pair| {
            let share = u128::from(target.saturating_sub(pair[0].1)) * u128::from(pair[1].0 - pair[0].0);
            pair[0].0 + narrow(share / u128::from(pair[1].1 - pair[0].1).max(1))
        })
    }

    fn bytes_before(&self, row: u64) -> u64 {
        let mut pairs = self.borders.windows(2);
        let all = self.borders.last().map_or(0, |border| border.1);
        pairs.find(|pair| pair[1].0 > row).map_or(all, |pair| {
            let share = u128::from(row.saturating_sub(pair[0].0)) * u128::from(pair[1].1 - pair[0].1);
            pair[0].1 + narrow(share / u128::from(pair[1].0 - pair[0].0).max(1))
        })
    }
}

fn narrow(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::survey::DataFormat;

    fn file(rows: Option<u64>, bytes: u64, groups: &[(u64, u64)]) -> DatasetSurvey {
        DatasetSurvey {
            path: "f".into(),
            format: DataFormat::Parquet,
            rows,
            bytes,
            byte_slices: rows.is_none(),
            row_groups: groups.iter().map(|&(rows, bytes)| RowGroup { rows, bytes }).collect(),
            columns: Vec::new(),
            digest: String::new(),
        }
    }

    fn ranges(slices: &[Slice]) -> Vec<(usize, u64, u64)> {
        let rows = |slice: &Slice| match slice.part {
            Part::Rows { start, end } => (slice.file, start, end),
            Part::Whole | Part::Bytes { .. } => panic!("{slice:?}"),
        };
        slices.iter().map(rows).collect()
    }

    #[test]
    fn slices_end_at_row_groups_of_about_equal_bytes() {
        let one = file(Some(100), 1000, &[(10, 500), (30, 100), (30, 200), (30, 200)]);
        assert_eq!(ranges(&split(std::slice::from_ref(&one), 2, 1)), [(0, 0, 10), (0, 10, 100)]);
        assert_eq!(
            ranges(&split(std::slice::from_ref(&one), 4, 1)),
            [(0, 0, 5), (0, 5, 10), (0, 10, 62), (0, 62, 100)]
        );
        assert_eq!(split(std::slice::from_ref(&one), 1, 1).len(), 1);
        let near = file(Some(100), 1000, &[(40, 480), (60, 520)]);
        assert_eq!(ranges(&split(&[near], 2, 1)), [(0, 0, 40), (0, 40, 100)]);
    }

    #[test]
    fn too_few_row_groups_are_cut_by_rows() {
        let one = file(Some(10), 100, &[(10, 100)]);
        assert_eq!(ranges(&split(&[one], 3, 1)), [(0, 0, 3), (0, 3, 6), (0, 6, 10)]);
    }

    #[test]
    fn row_groups_that_contradict_the_count_are_not_trusted() {
        let one = file(Some(10), 100, &[(10, 50), (10, 50)]);
        assert_eq!(ranges(&split(&[one], 2, 1)), [(0, 0, 5), (0, 5, 10)]);
    }

    #[test]
    fn large_files_are_cut_first_and_empty_ones_left_out() {
        let files = [file(Some(10), 100, &[]), file(Some(0), 0, &[]), file(Some(10), 300, &[])];
        assert_eq!(ranges(&split(&files, 4, 1)), [(0, 0, 10), (2, 0, 3), (2, 3, 6), (2, 6, 10)]);
        assert_eq!(ranges(&split(&files, 1, 1)), [(0, 0, 10), (2, 0, 10)]);
    }

    #[test]
    fn uncounted_files_are_cut_by_bytes_where_they_can_be() {
        let lines = file(None, 100, &[]);
        let slices = split(std::slice::from_ref(&lines), 3, 1);
        let parts: Vec<Part> = slices.iter().map(|slice| slice.part).collect();
        let bytes = |start, end| Part::Bytes { start, end };
        assert_eq!(parts, [bytes(0, 33), bytes(33, 66), bytes(66, 100)]);
        let packed = DatasetSurvey { byte_slices: false, ..lines };
        assert_eq!(split(&[packed], 8, 1), [Slice { file: 0, part: Part::Whole, bytes: 100 }]);
    }

    #[test]
    fn grouped_rows_are_cut_at_multiples_of_fifty() {
        let one = file(Some(1234), 1000, &[]);
        assert_eq!(ranges(&split(std::slice::from_ref(&one), 3, 50)), [(0, 0, 400), (0, 400, 800), (0, 800, 1234)]);
        assert_eq!(split(&[file(Some(60), 10, &[])], 9, 50).len(), 2);
    }

    #[test]
    fn never_more_slices_than_rows_and_no_row_lost() {
        for rows in 1..20_u64 {
            for wanted in 1..25 {
                let groups: Vec<(u64, u64)> = (0..rows).map(|i| (1, (i * 7919) % 13)).collect();
                for groups in [&groups[..], &[]] {
                    let slices = split(&[file(Some(rows), 50, groups)], wanted, 1);
                    assert_eq!(slices.len() as u64, u64::from(wanted).min(rows));
                    let mut at = 0;
                    for (_, start, end) in ranges(&slices) {
                        assert!(start == at && end > start);
                        at = end;
                    }
                    assert_eq!(at, rows);
                }
            }
        }
    }
}
