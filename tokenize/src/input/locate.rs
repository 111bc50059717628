//! From the `--input` arguments to a list of files of one format.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Compression, Format};
use crate::error::Error;
use crate::output::directory;

/// A file and what its name says about it.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

/// What the end of a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) format: Format,
    pub(super) compression: Compression,
}

/// Returns the files of all inputs: in the given order, those of a directory
/// or pattern by name.
pub(super) fn locate(inputs: &[PathBuf]) -> Result<Vec<Located>, Error> {
    let mut files: Vec<Located> = Vec::new();
    for input in inputs {
        let found = locate_one(input)?;
        let first = files.first().or(found.first()).map(|file| file.kind.format);
        if let Some(other) = found.iter().find(|file| Some(file.kind.format) != first) {
            let first = first.map_or("", Format::name);
            return Err(Error::MixedFormats { path: input.clone(), first, other: other.kind.format.name() });
        }
        files.extend(found);
    }
    Ok(files)
}

fn locate_one(input: &Path) -> Result<Vec<Located>, Error> {
    match fs::metadata(input) {
        Ok(data) if data.is_file() => Ok(vec![Located { path: input.to_owned(), kind: kind_of(input)? }]),
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
fn list(input: &Path, folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<Located>, Error> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ours = !name.starts_with('.') && wanted(&name) && path.is_file();
        if let (true, Ok(kind)) = (ours, kind_of(&path)) {
            files.push(Located { path, kind });
        }
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    if files.is_empty() {
        return Err(Error::NothingToRead { path: input.to_owned() });
    }
    Ok(files)
}

fn kind_of(path: &Path) -> Result<Kind, Error> {
    let extension = |path: &Path| path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let outer = extension(path);
    let compression = match outer.as_str() {
        "gz" => Compression::Gzip,
        "zst" => Compression::Zstd,
        _ => Compression::None,
    };
    let inner = if compression == Compression::None { outer.clone() } else { extension(&path.with_extension("")) };
    let format = match inner.as_str() {
        "parquet" => Format::Parquet,
        "jsonl" | "json" => Format::Jsonl,
        "csv" => Format::Csv,
        "txt" => Format::Text,
        "arrow" => Format::Arrow,
        _ => return Err(Error::Format { path: path.to_owned(), extension: format!(".{outer}") }),
    };
    if compression != Compression::None && matches!(format, Format::Parquet | Format::Arrow) {
        return Err(Error::Format { path: path.to_owned(), extension: format!(".{inner}.{outer}") });
    }
    Ok(Kind { format, compression })
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
