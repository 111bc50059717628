//! Lists of ranks on the command line.

/// Most ranks of one list.
const MOST: u32 = 65_536;

/// Reads `0,8-15`: numbers and closed ranges, sorted and each once.
///
/// # Errors
///
/// A sentence about the first part that is malformed.
pub(crate) fn parse(text: &str) -> Result<Vec<u32>, String> {
    let mut ranges = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first, part)?, number(last, part)?);
        if last < first {
            return Err(format!("range `{part}` ends before it begins"));
        }
        ranges.push((first, last));
    }
    ranges.sort_unstable();
    let mut ranks = Vec::new();
    let mut next = 0;
    for (first, last) in ranges {
        ranks.extend(first.max(next)..=last);
        next = next.max(last + 1);
    }
    Ok(ranks)
}

fn number(text: &str, part: &str) -> Result<u32, String> {
    let wanted = "a rank is a number, a range is `first-last`, as in `0,8-15`";
    let rank: u32 = text.trim().parse().map_err(|_| format!("`{part}` is no rank; {wanted}"))?;
    if rank >= MOST {
        return Err(format!("rank {rank} is above {}", MOST - 1));
    }
    Ok(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_single() {
        let table: [(&str, &[u32]); 4] = [
            ("3", &[3]),
            ("0,2-4", &[0, 2, 3, 4]),
            ("2-3, 1 ,3", &[1, 2, 3]),
            ("7-7,1-9,2-3,9-10", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ];
        for (text, ranks) in table {
            assert_eq!(parse(text).unwrap(), ranks, "{text}");
        }
    }

    #[test]
    fn malformed_parts_are_named() {
        for (text, part) in [("", "``"), ("1,x", "`x`"), ("3-1", "`3-1`"), ("-1", "`-1`"), ("0-99999999", "99999999")] {
            assert!(parse(text).unwrap_err().contains(part), "{text}");
        }
    }
}
