//! Reading a log file: its last lines, and its next whole lines.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use regex::bytes::Regex;

/// Largest batch and read, in bytes.
pub(super) const BLOCK: usize = 64 << 10;

/// Where the last `lines` lines of a file of `length` bytes begin.
///
/// An unfinished last line counts as one. Reads backwards, a block at a time.
pub(super) fn last_lines(file: &File, length: u64, lines: u64) -> io::Result<u64> {
    if lines == 0 {
        return Ok(length);
    }
    let mut block = vec![0; BLOCK];
    let mut wanted = lines;
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let part = &mut block[..usize::try_from(end - start).unwrap_or(BLOCK)];
        file.read_exact_at(part, start)?;
        for (at, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = start + at as u64 + 1;
            // The newline that ends the file begins no line.
            if after == length {
                continue;
            }
            wanted -= 1;
            if wanted == 0 {
                return Ok(after);
            }
        }
        end = start;
    }
    Ok(0)
}

/// The next whole lines from `offset`, at most one block; `None` if there is no
/// whole line yet. With `rest`, an unfinished last line is given too.
pub(super) fn next_lines(file: &File, offset: u64, rest: bool) -> io::Result<Option<Vec<u8>>> {
    let mut block = vec![0; BLOCK];
    let mut filled = 0;
    while filled < BLOCK {
        match file.read_at(&mut block[filled..], offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    block.truncate(filled);
    match block.iter().rposition(|byte| *byte == b'\n') {
        Some(last) if filled == BLOCK || !rest => block.truncate(last + 1),
        Some(_) => {}
        // A line longer than a block is given in pieces.
        None if filled == BLOCK || (rest && filled > 0) => {}
        None => return Ok(None),
    }
    Ok(Some(block))
}

/// The beginning of the first line that begins at `offset` or behind it.
pub(super) fn line_start(file: &File, offset: u64) -> io::Result<u64> {
    let Some(mut at) = offset.checked_sub(1) else { return Ok(0) };
    let mut block = vec![0; BLOCK];
    loop {
        let read = file.read_at(&mut block, at)?;
        match block[..read].iter().position(|byte| *byte == b'\n') {
            Some(newline) => return Ok(at + newline as u64 + 1),
            None if read == 0 => return Ok(at.max(offset)),
            None => at += read as u64,
        }
    }
}

/// Runs of whole lines that match `pattern`, each with its place in `data`.
pub(super) fn matching<'a>(data: &'a [u8], pattern: &'a Regex) -> impl Iterator<Item = (u64, &'a [u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let mut begin = None;
        while at < data.len() {
            let end = data[at..].iter().position(|byte| *byte == b'\n').map_or(data.len(), |newline| at + newline + 1);
            let line = &data[at..end];
            let matches = pattern.is_match(line.strip_suffix(b"\n").unwrap_or(line));
            match (matches, begin) {
                (true, None) => begin = Some(at),
                (false, Some(begin)) => return Some((begin as u64, &data[begin..at])),
                (true, Some(_)) | (false, None) => {}
            }
            at = end;
        }
        begin.map(|begin: usize| (begin as u64, &data[begin..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file
    }

    #[test]
    fn the_last_lines_are_found_from_behind() {
        let table: [(&[u8], u64, u64); 9] = [
            (b"", 3, 0),
            (b"a\nb\nc\n", 0, 6),
            (b"a\nb\nc\n", 1, 4),
            (b"a\nb\nc\n", 2, 2),
            (b"a\nb\nc\n", 3, 0),
            (b"a\nb\nc\n", 9, 0),
            (b"a\nb\nc", 1, 4),
            (b"a\nb\nc", 2, 2),
            (b"\n\n", 1, 1),
        ];
        for (text, lines, offset) in table {
            let found = last_lines(&file(text), text.len() as u64, lines).unwrap();
            assert_eq!(found, offset, "{:?} {lines}", String::from_utf8_lossy(text));
        }
        let long: Vec<u8> = (0..40_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        let start = last_lines(&file(&long), long.len() as u64, 30_000).unwrap();
        assert!(long[usize::try_from(start).unwrap()..].starts_with(b"line 10000\n"));
    }

    #[test]
    fn lines_are_found_from_any_place() {
        let text = file(b"ab\ncd\nef");
        for (offset, start) in [(0, 0), (1, 3), (3, 3), (4, 6), (6, 6), (7, 8), (8, 8)] {
            assert_eq!(line_start(&text, offset).unwrap(), start, "{offset}");
        }
    }

    #[test]
    fn matching_lines_come_in_runs_with_their_places() {
        let runs = |pattern: &str| {
            let pattern = Regex::new(pattern).unwrap();
            let runs =
                matching(b"a1\na2\nb\n\na3", &pattern).map(|(at, run)| (at, String::from_utf8_lossy(run).into_owned()));
            runs.collect::<Vec<_>>()
        };
        assert_eq!(runs("a"), [(0, "a1\na2\n".to_owned()), (9, "a3".to_owned())]);
        assert_eq!(runs("^b$"), [(6, "b\n".to_owned())]);
        assert_eq!(runs("^$"), [(8, "\n".to_owned())]);
        assert!(runs("z").is_empty());
    }

    #[test]
    fn only_whole_lines_are_given_until_the_end() {
        let short = file(b"one\ntwo\nthr");
        assert_eq!(next_lines(&short, 0, false).unwrap().unwrap(), b"one\ntwo\n");
        assert_eq!(next_lines(&short, 8, false).unwrap(), None);
        assert_eq!(next_lines(&short, 8, true).unwrap().unwrap(), b"thr");
        assert_eq!(next_lines(&short, 11, true).unwrap(), None);
        let endless = file(&vec![b'x'; BLOCK + 10]);
        assert_eq!(next_lines(&endless, 0, false).unwrap().unwrap().len(), BLOCK);
        assert_eq!(next_lines(&endless, BLOCK as u64, false).unwrap(), None);
    }
}
