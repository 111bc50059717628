//! Rows of the tables: cells between bars, values in cells.

use super::header::{Column, Header, Placed, words};

/// A line of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Row<'a> {
    /// `+-----+`
    Border,
    /// `| a | b |`
    Cells {
        cells: Vec<&'a str>,
        /// Whether the last bar is missing: the last cell may be cut short.
        open: bool,
    },
}

/// Splits a line, if it is one of a table.
pub(super) fn split(line: &str) -> Option<Row<'_>> {
    let line = line.trim();
    if line.starts_with('+') {
        return line.chars().all(|c| matches!(c, '+' | '-' | '=')).then_some(Row::Border);
    }
    let inner = line.strip_prefix('|')?;
    let open = !inner.ends_with('|');
    Some(Row::Cells { cells: inner.strip_suffix('|').unwrap_or(inner).split('|').collect(), open })
}

/// One value of a cell and where it begins, in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item<'a> {
    pub(super) at: usize,
    pub(super) value: Value<'a>,
}

/// A value as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    One(&'a str),
    /// `used / total`, however it is spaced.
    Pair(&'a str, &'a str),
}

/// The values of a cell.
pub(super) fn items(cell: &str) -> Vec<Item<'_>> {
    let mut parts: Vec<(&str, usize)> = Vec::new();
    for (word, at) in words(cell) {
        let word_len = word.len();
        let is_absent = word.eq_ignore_ascii_case("n/a");
        let mut from = 0;
        for (slash, _) in word.match_indices('/').filter(|_| !is_absent) {
            parts.push((&word[from..slash], at + from));
            parts.push((&word[slash..=slash], at + slash));
            from = slash + 1;
        }
        if from < word_len {
            parts.push((&word[from..], at + from));
        }
    }
    parts.retain(|(part, _)| !part.is_empty());
    let mut items = Vec::new();
    let mut next = 0;
    while let Some((part, at)) = parts.get(next).copied() {
        match (parts.get(next + 1), parts.get(next + 2)) {
            (Some(("/", _)), Some((total, _))) if part != "/" && *total != "/" => {
                items.push(Item { at, value: Value::Pair(part, total) });
                next += 3;
            }
            _ => {
                items.push(Item { at, value: Value::One(part) });
                next += 1;
            }
        }
    }
    items
}

/// Gives each column of a cell its value: in order where the numbers fit, else
/// by kind (single or pair), else by place. What cannot be told has none.
pub(super) fn assign<'a>(columns: &[Placed], cell: &'a str) -> Vec<(Column, Option<Value<'a>>)> {
    let items = items(cell);
    let fits = |column: Column, value: &Value<'_>| {
        column.is_pair().is_none_or(|pair| pair == matches!(value, Value::Pair(..)))
    };
    if columns.len() == items.len() && columns.iter().zip(&items).all(|((c, _), item)| fits(*c, &item.value)) {
        return columns.iter().zip(&items).map(|((column, _), item)| (*column, Some(item.value))).collect();
    }
    let known = columns.iter().all(|(column, _)| column.is_pair().is_some());
    let mut given = Vec::new();
    for (column, place) in columns {
        let same: Vec<&Placed> = columns.iter().filter(|(c, _)| c.is_pair() == column.is_pair()).collect();
        let values: Vec<&Item<'_>> = items.iter().filter(|item| fits(*column, &item.value)).collect();
        let rank = same.iter().position(|(c, at)| (c, at) == (column, place));
        let value = if known && same.len() == values.len() {
            rank.and_then(|rank| values.get(rank).map(|item| item.value))
        } else {
            under(*place, columns, &items).filter(|value| fits(*column, value))
        };
        given.push((*column, value));
    }
    given
}

/// The one value that begins nearer to this column's name than to any other's.
fn under<'a>(place: usize, columns: &[Placed], items: &[Item<'a>]) -> Option<Value<'a>> {
    let nearest = |item: &&Item<'_>| {
        columns.iter().map(|(_, at)| *at).min_by_key(|at| at.abs_diff(item.at)).is_some_and(|at| at == place)
    };
    let mut below = items.iter().filter(nearest);
    let first = below.next()?;
    below.next().is_none().then_some(first.value)
}

/// The cells of a row in the shape of a header; where a row of processes has
/// more, a name holds bars of its own.
pub(super) fn fit<'a>(
    header: &Header,
    cells: &[&'a str],
    wide: Option<usize>,
) -> Option<Vec<std::borrow::Cow<'a, str>>> {
    let wanted = header.cells.len();
    if cells.len() == wanted {
        return Some(cells.iter().map(|cell| (*cell).into()).collect());
    }
    let wide = wide.filter(|_| cells.len() > wanted)?;
    let after = wanted - wide - 1;
    let (head, rest) = cells.split_at_checked(wide)?;
    let (middle, tail) = rest.split_at_checked(rest.len().checked_sub(after)?)?;
    let head = head.iter().map(|cell| (*cell).into());
    Some(head.chain([middle.join("|").into()]).chain(tail.iter().map(|cell| (*cell).into())).collect())
}

#[cfg(test)]
mod tests {
    use super::Value::{One, Pair};
    use super::*;

    fn values(cell: &str) -> Vec<Value<'_>> {
        items(cell).into_iter().map(|item| item.value).collect()
    }

    #[test]
    fn values_are_found_however_they_touch() {
        assert_eq!(
            values(" 0           4565 / 15137      30710/ 32768"),
            [One("0"), Pair("4565", "15137"), Pair("30710", "32768")]
        );
        assert_eq!(values("61609/65536 1 /2 NA 5"), [Pair("61609", "65536"), Pair("1", "2"), One("NA"), One("5")]);
        assert_eq!(values("N/A  7 / "), [One("N/A"), One("7"), One("/")]);
        assert_eq!(values("/ / /"), [One("/"), One("/"), One("/")]);
        assert_eq!(values("  "), []);
    }

    #[test]
    fn values_go_to_their_columns_also_where_one_is_blank() {
        let Some(super::super::header::Kind::First(header)) =
            Header::read(&[" NPU   Name ", " Health ", " Power(W)    Temp(C)           Hugepages-Usage(page)"])
        else {
            panic!("no header")
        };
        let of = |cell| assign(&header.cells[2], cell).into_iter().map(|(_, v)| v).collect::<Vec<_>>();
        assert_eq!(of(" 101.8       43       0 / 0"), [Some(One("101.8")), Some(One("43")), Some(Pair("0", "0"))]);
        assert_eq!(of("             43                0    / 0 "), [None, Some(One("43")), Some(Pair("0", "0"))]);
        assert_eq!(of(" 101.8                         0    / 0 "), [Some(One("101.8")), None, Some(Pair("0", "0"))]);
        assert_eq!(of("   "), [None, None, None]);
    }

    #[test]
    fn borders_and_bars_make_a_table() {
        assert_eq!(split("+---+===+ "), Some(Row::Border));
        assert_eq!(split(" | a | b |"), Some(Row::Cells { cells: vec![" a ", " b "], open: false }));
        assert_eq!(split("| a | b"), Some(Row::Cells { cells: vec![" a ", " b"], open: true }));
        assert_eq!((split("a | b |"), split(""), split("+ a")), (None, None, None));
    }

    #[test]
    fn a_process_s_name_may_hold_bars() {
        let header = Header::of(&[&[Column::Npu], &[Column::Pid], &[Column::ProcessName], &[Column::ProcessMemory]]);
        let cells = fit(&header, &["0 0", "17", "a", "b", "5"], Some(2)).unwrap();
        assert_eq!(cells, ["0 0", "17", "a|b", "5"]);
        assert_eq!(fit(&header, &["0 0", "17", "5"], Some(2)), None);
        assert_eq!(fit(&header, &["0 0", "17", "a", "b", "5"], None), None);
    }
}
