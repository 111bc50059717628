//! Every format reads as the reference's own reader does.
//!
//! `data/read` holds small files of each format, and in `expected.json` the
//! texts that `datasets` 2.21 with pandas and pyarrow reads from them.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, StringArray};
use common::{names, plain_run, read_pair, tiny_tokenizer, write_columns};
use serde_json::Value;
use tokenize::{Backend, Error, Options, Slice, Source, Tokenizer, describe_input, run};

type Texts = Vec<Option<String>>;

fn recorded() -> Vec<(PathBuf, Texts)> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/read");
    let expected: Value = serde_json::from_slice(&fs::read(data.join("expected.json")).unwrap()).unwrap();
    let texts = |value: &Value| value.as_array().unwrap().iter().map(|text| text.as_str().map(str::to_owned)).collect();
    expected.as_object().unwrap().iter().map(|(name, value)| (data.join(name), texts(value))).collect()
}

fn read(input: &Path, slice: &Slice) -> Result<Texts, Error> {
    let mut texts = Vec::new();
    Source::open(input)?.each_value("text", slice, usize::MAX, &mut |text| {
        texts.push(text.map(str::to_owned));
        true
    })?;
    Ok(texts)
}

#[test]
fn recorded_files_read_as_the_reference_reads_them() {
    let all = recorded();
    assert!(all.len() >= 16, "{}", all.len());
    for (path, expected) in all {
        assert_eq!(read(&path, &Slice::All).unwrap(), expected, "{}", path.display());
        assert_eq!(
            describe_input(&Source::open(&path).unwrap(), true, 1 << 20).unwrap().rows,
            Some(expected.len() as u64)
        );
        for begin in 0..=expected.len() {
            for end in [begin, begin + 1, begin + 4, expected.len()] {
                let end = end.min(expected.len()).max(begin);
                let found = read(&path, &Slice::Rows(begin as u64..end as u64)).unwrap();
                assert_eq!(found, expected[begin..end], "{} {begin}..{end}", path.display());
            }
        }
    }
}

#[test]
fn packed_text_files_read_like_plain_ones() {
    let place = tempfile::tempdir().unwrap();
    for (path, expected) in recorded() {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".parquet") || name.ends_with(".arrow") {
            continue;
        }
        let content = fs::read(&path).unwrap();
        // Two members, as from `cat a.gz b.gz`.
        let (front, back) = content.split_at(content.len() / 2);
        let gz = place.path().join(format!("{name}.gz"));
        let mut file = fs::File::create(&gz).unwrap();
        for part in [front, back] {
            let mut encoder = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap();
        }
        let zst = place.path().join(format!("{name}.zst"));
        let frames: Vec<u8> = [front, back].iter().flat_map(|part| zstd::encode_all(*part, 1).unwrap()).collect();
        fs::write(&zst, frames).unwrap();
        for packed in [gz, zst] {
            assert_eq!(read(&packed, &Slice::All).unwrap(), expected, "{}", packed.display());
            assert!(!Source::open(&packed).unwrap().has_byte_slices());
            let cut = fs::read(&packed).unwrap();
            fs::write(&packed, &cut[..cut.len() - 5]).unwrap();
            let error = read(&packed, &Slice::All).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
        }
    }
}

#[test]
fn lines_of_text_are_cut_by_bytes_anywhere() {
    let (path, expected) = recorded().into_iter().find(|(path, _)| path.ends_with("ends.txt")).unwrap();
    let size = fs::metadata(&path).unwrap().len();
    for cut in 0..=size {
        let mut found = read(&path, &Slice::Bytes(0..cut)).unwrap();
        found.extend(read(&path, &Slice::Bytes(cut..size)).unwrap());
        assert_eq!(found, expected, "cut at {cut}");
    }
}

#[test]
fn directories_and_patterns_are_read_by_name() {
    let place = tempfile::tempdir().unwrap();
    for name in ["b.jsonl", "a.jsonl", "c.json", "d.jsonl.gz"] {
        let line = format!("{{\"text\": \"{name}\"}}\n");
        if name.ends_with("gz") {
            let mut file = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            file.write_all(line.as_bytes()).unwrap();
            fs::write(place.path().join(name), file.finish().unwrap()).unwrap();
        } else {
            fs::write(place.path().join(name), line).unwrap();
        }
    }
    fs::write(place.path().join("README"), "not data").unwrap();
    fs::write(place.path().join(".hidden.jsonl"), "not data").unwrap();
    let found = |input: &str| -> Vec<String> {
        read(&place.path().join(input), &Slice::All).unwrap().into_iter().flatten().collect()
    };
    assert_eq!(found(""), ["a.jsonl", "b.jsonl", "c.json", "d.jsonl.gz"]);
    assert_eq!(found("*.jsonl"), ["a.jsonl", "b.jsonl"]);
    let several = [place.path().join("c.json"), place.path().join("a.jsonl")];
    let source = Source::open_all(&several).unwrap();
    assert_eq!(source.paths().collect::<Vec<_>>(), several.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    fs::write(place.path().join("e.csv"), "text\na\n").unwrap();
    let error = Source::open(place.path()).unwrap_err();
    assert!(error.to_string().contains("mixes jsonl and csv"), "{error}");
}

#[test]
fn files_of_other_columns_and_nested_columns_are_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    tiny_tokenizer(&place.path().join("tokenizer"));
    let mut tokenizer = Tokenizer::load(&place.path().join("tokenizer"), Backend::Auto).unwrap();
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let mut refused = |input: &str, parts: &[&str]| {
        let source = Source::open(&place.path().join(input)).unwrap();
        let error = run(&source, &mut tokenizer, &Options::new(place.path().join("x")), &mut |_| {}).unwrap_err();
        for part in parts {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(error.hint().is_some(), "{error}");
    };
    write_columns(&place.path().join("1.parquet"), vec![("text", text.clone()), ("id", text.clone())], 10);
    write_columns(&place.path().join("2.parquet"), vec![("id", text.clone()), ("text", text.clone())], 10);
    write_columns(&place.path().join("3.parquet"), vec![("text", text.clone())], 10);
    refused("*.parquet", &["3.parquet", "has no column `id`", "1.parquet"]);
    fs::write(place.path().join("1.csv"), "text,id\na,1\n").unwrap();
    fs::write(place.path().join("2.csv"), "text,id,more\na,1,2\n").unwrap();
    refused("*.csv", &["2.csv", "has a column `more`", "1.csv"]);
    let mut list = ListBuilder::new(StringBuilder::new());
    list.append_value([Some("a")]);
    list.append_value([Some("b")]);
    write_columns(&place.path().join("nested.parquet"), vec![("text", Arc::new(list.finish()))], 10);
    refused("nested.parquet", &["column `text`", "nested.parquet", "List", "not text"]);
    assert_eq!(names(place.path()).iter().filter(|name| name.starts_with('x')).count(), 0);
}

#[test]
fn no_cut_or_flipped_byte_of_an_arrow_file_is_fatal() {
    let place = tempfile::tempdir().unwrap();
    for (path, expected) in recorded().into_iter().filter(|(path, _)| path.extension().unwrap() == "arrow") {
        let content = fs::read(&path).unwrap();
        let copy = place.path().join("copy.arrow");
        let is_file = content.starts_with(b"ARROW1");
        let mut refused = 0;
        for at in 0..content.len() {
            fs::write(&copy, &content[..at]).unwrap();
            let is_refused = read(&copy, &Slice::All).is_err();
            // A stream need not have an end mark, a file has a footer.
            assert!(is_refused || !is_file, "cut at {at}");
            refused += usize::from(is_refused);
        }
        for at in (0..content.len()).step_by(5) {
            for flip in [1, 0x80] {
                let mut other = content.clone();
                other[at] ^= flip;
                fs::write(&copy, other).unwrap();
                // What it reads may be wrong: there is no checksum. It must not crash or hang.
                let _ = read(&copy, &Slice::All);
            }
        }
        assert!(refused > 100, "{refused}");
        fs::write(&copy, &content).unwrap();
        assert_eq!(read(&copy, &Slice::All).unwrap(), expected);
    }
}

#[test]
fn each_format_gives_the_same_pair() {
    let place = tempfile::tempdir().unwrap();
    let directory = tiny_tokenizer(&place.path().join("tokenizer"));
    let mut tokenizer = Tokenizer::load(&directory, Backend::Auto).unwrap();
    for (path, texts) in recorded() {
        let options = Options { workers: 2, ..Options::new(place.path().join("x")) };
        let outcome = run(&Source::open(&path).unwrap(), &mut tokenizer, &options, &mut |_| {});
        if texts.contains(&None) {
            assert!(outcome.unwrap_err().to_string().contains("null in `text`"), "{}", path.display());
            continue;
        }
        outcome.unwrap();
        let texts: Vec<String> = texts.into_iter().flatten().collect();
        let expected = plain_run(&[texts], &directory, false, None);
        assert!(read_pair(&options.output_prefix, "text") == expected[0], "{}", path.display());
    }
}
