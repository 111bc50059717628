//! Splitting input text into tasks.

use super::survey::{DatasetSurvey, RowGroup};
use crate::arguments::preprocess::Rows;

/// One task's part of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// Position of the file.
    pub(super) file: usize,
    /// Its rows; absent: all of them.
    pub(super) rows: Option<Rows>,
    /// Bytes of it, about.
    pub(super) bytes: u64,
}

/// Splits files into about `wanted` slices, in order.
///
/// Every file has at least one slice, files that are known to be empty none.
/// Where there are enough row groups, slices end at their borders; a file
/// whose rows are not counted stays whole.
pub(super) fn split(files: &[DatasetSurvey], wanted: u32) -> Vec<Slice> {
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).max(1);
    let mut parts: Vec<usize> = files.iter().map(|file| usize::from(file.rows != Some(0))).collect();
    let mut given: usize = parts.iter().sum();
    while given < wanted {
        // The file with the largest slices is cut once more.
        let next = (0..files.len())
            .filter(|&index| parts[index] > 0 && limit(&files[index]) > parts[index])
            .max_by_key(|&index| (files[index].bytes / parts[index] as u64, usize::MAX - index));
        let Some(index) = next else { break };
        parts[index] += 1;
        given += 1;
    }
    files.iter().enumerate().flat_map(|(index, file)| cut(index, file, parts[index])).collect()
}

/// Most slices of a file.
fn limit(file: &DatasetSurvey) -> usize {
    file.rows.map_or(1, |rows| usize::try_from(rows).unwrap_or(usize::MAX))
}

fn cut(file: usize, survey: &DatasetSurvey, parts: usize) -> Vec<Slice> {
    let Some(rows) = survey.rows else {
        return (0..parts).map(|_| Slice { file, rows: None, bytes: survey.bytes }).collect();
    };
    let sound = survey.row_groups.iter().map(|group| group.rows).fold(0, u64::saturating_add) == rows;
    if sound && survey.row_groups.len() >= parts {
        by_groups(file, &survey.row_groups, parts)
    } else {
        by_rows(file, survey.bytes, rows, parts)
    }
}

/// Equal numbers of rows.
fn by_rows(file: usize, bytes: u64, rows: u64, parts: usize) -> Vec<Slice> {
    let at = |part: usize| narrow(u128::from(rows) * part as u128 / parts.max(1) as u128);
    (0..parts)
        .map(|part| {
            let (start, end) = (at(part), at(part + 1));
            let share = narrow(u128::from(bytes) * u128::from(end - start) / u128::from(rows.max(1)));
            Slice { file, rows: Some(Rows { start, end }), bytes: share }
        })
        .collect()
}

/// Consecutive row groups of about equal bytes, at least one group a slice.
fn by_groups(file: usize, groups: &[RowGroup], parts: usize) -> Vec<Slice> {
    let total: u128 = groups.iter().map(|group| u128::from(group.bytes)).sum();
    let mut slices = Vec::with_capacity(parts);
    let (mut start, mut end, mut bytes) = (0_u64, 0_u64, 0_u64);
    let mut passed = 0_u128;
    for (index, group) in groups.iter().enumerate() {
        end += group.rows;
        bytes = bytes.saturating_add(group.bytes);
        passed += u128::from(group.bytes);
        let open = parts - slices.len();
        let left = groups.len() - index - 1;
        let full = passed * parts as u128 >= total * (slices.len() as u128 + 1);
        // The groups that are left must suffice for the slices that are left.
        if left == 0 || open > left || (full && open > 1) {
            slices.push(Slice { file, rows: Some(Rows { start, end }), bytes });
            (start, bytes) = (end, 0);
        }
    }
    slices
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
            row_groups: groups.iter().map(|&(rows, bytes)| RowGroup { rows, bytes }).collect(),
            columns: Vec::new(),
            digest: String::new(),
        }
    }

    fn ranges(slices: &[Slice]) -> Vec<(usize, u64, u64)> {
        slices.iter().map(|s| (s.file, s.rows.unwrap().start, s.rows.unwrap().end)).collect()
    }

    #[test]
    fn slices_end_at_row_groups_of_about_equal_bytes() {
        let one = file(Some(100), 1000, &[(10, 500), (30, 100), (30, 200), (30, 200)]);
        assert_eq!(ranges(&split(std::slice::from_ref(&one), 2)), [(0, 0, 10), (0, 10, 100)]);
        assert_eq!(ranges(&split(std::slice::from_ref(&one), 4)), [(0, 0, 10), (0, 10, 40), (0, 40, 70), (0, 70, 100)]);
        assert_eq!(split(std::slice::from_ref(&one), 1).len(), 1);
    }

    #[test]
    fn too_few_row_groups_are_cut_by_rows() {
        let one = file(Some(10), 100, &[(10, 100)]);
        assert_eq!(ranges(&split(&[one], 3)), [(0, 0, 3), (0, 3, 6), (0, 6, 10)]);
    }

    #[test]
    fn row_groups_that_contradict_the_count_are_not_trusted() {
        let one = file(Some(10), 100, &[(10, 50), (10, 50)]);
        assert_eq!(ranges(&split(&[one], 2)), [(0, 0, 5), (0, 5, 10)]);
    }

    #[test]
    fn large_files_are_cut_first_and_empty_ones_left_out() {
        let files = [file(Some(10), 100, &[]), file(Some(0), 0, &[]), file(Some(10), 300, &[])];
        assert_eq!(ranges(&split(&files, 4)), [(0, 0, 10), (2, 0, 3), (2, 3, 6), (2, 6, 10)]);
        assert_eq!(ranges(&split(&files, 1)), [(0, 0, 10), (2, 0, 10)]);
    }

    #[test]
    fn uncounted_files_stay_whole() {
        let slices = split(&[file(None, 100, &[])], 8);
        assert_eq!(slices, [Slice { file: 0, rows: None, bytes: 100 }]);
    }

    #[test]
    fn never_more_slices_than_rows_and_no_row_lost() {
        for rows in 1..20_u64 {
            for wanted in 1..25 {
                let groups: Vec<(u64, u64)> = (0..rows).map(|i| (1, (i * 7919) % 13)).collect();
                for groups in [&groups[..], &[]] {
                    let slices = split(&[file(Some(rows), 50, groups)], wanted);
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
