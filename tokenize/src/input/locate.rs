//! From the `--input` argument to a list of files of one format.

use std::fs;
use std::path::{Path, PathBuf};

use super::Format;
use crate::error::Error;
use crate::output::directory;

/// Returns the format and the files, sorted by name.
pub(super) fn locate(input: &Path) -> Result<(Format, Vec<PathBuf>), Error> {
    match fs::metadata(input) {
        Ok(data) if data.is_file() => Ok((format_of(input)?, vec![input.to_owned()])),
        Ok(data) if data.is_dir() => list(input, input, |_| true),
        Ok(_) => Err(Error::NotAFile { path: input.to_owned() }),
        Err(_) => {
            let pattern = input.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !pattern.contains(['*', '?']) {
                return Err(Error::NoInput { path: input.to_owned() });
            }
            list(input, &directory(input), |name| matches(pattern.as_bytes(), name.as_bytes()))
        }
    }
}

/// The data files directly in `folder` whose names are wanted.
fn list(input: &Path, folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<(Format, Vec<PathBuf>), Error> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ours = !name.starts_with('.') && wanted(&name) && path.is_file();
        if let (true, Ok(format)) = (ours, format_of(&path)) {
            files.push((path, format));
        }
    }
    files.sort_by(|left, right| left.0.cmp(&right.0));
    let Some(&(_, format)) = files.first() else {
        return Err(Error::NothingToRead { path: input.to_owned() });
    };
    if files.iter().any(|(_, other)| *other != format) {
        return Err(Error::MixedFormats { path: input.to_owned() });
    }
    Ok((format, files.into_iter().map(|(path, _)| path).collect()))
}

fn format_of(path: &Path) -> Result<Format, Error> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match extension.as_str() {
        "parquet" => Ok(Format::Parquet),
        "jsonl" | "json" => Ok(Format::Jsonl),
        other => Err(Error::Format { path: path.to_owned(), extension: format!(".{other}") }),
    }
}

/// Shell-like matching of one name: `*` any run, `?` any byte.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut here) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while here < name.len() {
        if pattern.get(at) == Some(&b'*') {
            retry = Some((at + 1, here));
            at += 1;
        } else if pattern.get(at).is_some_and(|&byte| byte == b'?' || byte == name[here]) {
            at += 1;
            here += 1;
        } else if let Some((after_star, start)) = retry {
            retry = Some((after_star, start + 1));
            at = after_star;
            here = start + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_like_a_shell() {
        let table = [
            ("*.jsonl", "a.jsonl", true),
            ("*.jsonl", "a.json", false),
            ("train-*-of-?.parquet", "train-000-of-3.parquet", true),
            ("train-*-of-?.parquet", "train-000-of-10.parquet", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("?", "", false),
            ("*", "", true),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
