//! Bad inputs: each is refused with a sentence and a hint, and leaves nothing.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, BinaryArray, DictionaryArray, Int64Array, LargeStringArray, StringArray, StringViewArray};
use common::{names, plain_run, read_pair, tiny_tokenizer, write_columns, write_parquet};
use serde_json::json;
use tokenize::{Backend, Error, Merge, Options, Pair, Slice, Source, Tokenizer, describe_pair, merge, run};

/// A place with a tokenizer and an empty directory for the output.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        tiny_tokenizer(&root.path().join("tokenizer"));
        fs::create_dir(root.path().join("out")).unwrap();
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn options(&self) -> Options {
        Options { workers: 2, ..Options::new(self.path("out/x")) }
    }

    fn run(&self, input: &Path, options: &Options) -> Result<tokenize::Summary, Error> {
        let source = Source::open(input)?;
        let mut tokenizer = Tokenizer::load(&self.path("tokenizer"), Backend::Auto)?;
        run(&source, &mut tokenizer, options, &mut |_| {})
    }

    /// Runs, expects a refusal with all `parts` in its sentence, a hint, and
    /// no file.
    fn refused(&self, input: &Path, options: &Options, parts: &[&str]) {
        let error = self.run(input, options).expect_err(&format!("{parts:?}"));
        assert_says(&error, parts);
        assert_eq!(names(&self.path("out")), Vec::<String>::new(), "{error}");
    }
}

fn assert_says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{text}` lacks `{part}`");
    }
    assert!(!text.ends_with('.') && !text.starts_with(char::is_uppercase), "`{text}` is not in house style");
    let explains_itself = matches!(error, Error::Options { .. });
    assert!(explains_itself || error.hint().is_some(), "`{text}` has no hint");
}

#[test]
fn bad_jsonl_is_refused_with_its_line() {
    let place = Place::new();
    let good = r#"{"text": "fine"}"#;
    let table: &[(&str, &[u8], &[&str])] = &[
        ("no rows", b"", &["has no rows"]),
        ("blank lines", b"\n \n\r\n", &["has no rows"]),
        ("cut short", br#"{"text": "a"#, &["line 2", "not a JSON object", "column"]),
        ("two objects", br#"{"text": "a"} {"text": "b"}"#, &["line 2", "trailing"]),
        ("a list", b"[1]", &["line 2", "not a JSON object"]),
        ("a number", b"17", &["line 2", "not a JSON object"]),
        ("no key", br#"{"txt": "a"}"#, &["line 2", "has no key `text`"]),
        ("a null", br#"{"text": null}"#, &["line 2", "null in `text`"]),
        ("a number in it", br#"{"text": 1.5}"#, &["line 2", "a number in `text`"]),
        ("a list in it", br#"{"text": ["a"]}"#, &["line 2", "a list in `text`"]),
        ("an object in it", br#"{"text": {"a": 1}}"#, &["line 2", "an object in `text`"]),
        ("a truth value in it", br#"{"text": true}"#, &["line 2", "a truth value in `text`"]),
        ("twice", br#"{"text": "a", "text": "b"}"#, &["line 2", "`text` twice"]),
        ("not UTF-8", b"{\"text\": \"a\xff\"}", &["line 2", "UTF-8", "byte 12"]),
        ("half a pair", br#"{"text": "\ud83d"}"#, &["line 2", "surrogate"]),
        ("the other half", br#"{"text": "\udc00x"}"#, &["line 2", "surrogate"]),
        ("a raw control", b"{\"text\": \"a\x01b\"}", &["line 2", "control character"]),
        ("not quoted", b"{text: \"a\"}", &["line 2", "not a JSON object"]),
        ("NaN", br#"{"text": NaN}"#, &["line 2", "not a JSON object"]),
    ];
    for (name, line, parts) in table {
        let content = if parts[0].starts_with("line") {
            [good.as_bytes(), line, good.as_bytes()].join(&b'\n')
        } else {
            line.to_vec()
        };
        let input = place.file("in.jsonl", &content);
        place.refused(&input, &place.options(), parts);
        // The same line numbers when the reader begins in the middle.
        if parts[0].starts_with("line") {
            let slice = Slice::Bytes(5..content.len() as u64);
            place.refused(&input, &Options { slice, ..place.options() }, parts);
        }
        let _ = name;
    }
}

#[test]
fn files_that_are_not_what_they_seem_are_refused() {
    let place = Place::new();
    let table: &[(&str, &[u8], &[&str])] = &[
        ("a.parquet", b"<!DOCTYPE html><html>", &["HTML page", "parquet"]),
        ("b.parquet", b"\n  <HTML lang=\"en\">", &["HTML page"]),
        ("c.jsonl", b"<!doctype html>", &["HTML page", "JSON lines"]),
        ("d.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", &["Git LFS pointer"]),
        ("e.parquet", b"", &["not a parquet file", "begin"]),
        ("f.parquet", b"PAR1", &["not a parquet file", "end"]),
        ("g.parquet", b"PAR1 and then the connection broke", &["not a parquet file", "end"]),
        ("h.parquet", b"PAR1xxxx\xff\xff\xff\x7fPAR1", &["damaged parquet"]),
        ("i.parquet", b"PAR1xxxx\x04\x00\x00\x00PAR1", &["damaged parquet"]),
        ("j.json", b" \n[{\"text\": \"a\"}", &["line 2", "cut short"]),
        ("ja.json", b"[{\"text\": \"a\"} {\"text\": \"b\"}]", &["line 1", "a comma"]),
        ("jb.json", b"[{\"text\": \"a\"},\n]", &["line 2", "not an object"]),
        ("jc.json", b"[\n{\"text\": \"a\"}]\n{}", &["line 3", "something follows"]),
        ("jd.json", b"[{\"text\":\n\n 1}]", &["a number in `text`"]),
        ("je.json", b"[{\"text\":\n\n x}]", &["line 3", "not a JSON object"]),
        ("jf.json", b"[\"a\"]", &["not an object"]),
        ("jg.json", b"[]", &["has no rows"]),
        ("k.jsonl", b"\xef\xbb\xbf{\"text\": \"a\"}", &["byte order mark"]),
        ("l.jsonl", b"\xff\xfe{\0", &["byte order mark"]),
        ("m.doc", b"a", &["not supported", ".doc"]),
        ("n.jsonl.gz", b"a", &["is damaged"]),
        ("na.csv.zst", b"a", &["is damaged"]),
        ("nb.parquet.gz", b"a", &["not supported", ".parquet.gz"]),
        ("o", b"a", &["not supported"]),
        ("p.arrow", b"", &["is damaged", "cut short"]),
        ("q.arrow", b"ARROW1\0\0", &["is damaged", "cut short"]),
        ("r.arrow", b"\xff\xff\xff\xff\xff\xff\xff\x7fxxxx", &["is damaged", "metadata"]),
        ("s.csv", b"id,txt\n1,a\n", &["has no column `text`", "`txt`"]),
        ("t.csv", b"text\na,b\n", &["is damaged", "line 2", "2 fields"]),
        ("u.csv", b"text,k\n1,a\n2.5,b\n", &["only numbers in rows 0..2"]),
        ("v.csv", b"text,k\nTrue,a\nFalse,b\n", &["only truth values"]),
        ("w.csv", b"text,k\na,1\nNA,2\n", &["line 3", "null in `text`"]),
        ("x.csv", b"text\n\xff\n", &["line 2", "UTF-8"]),
        ("y.txt", b"a\n\xff\n", &["line 2", "UTF-8"]),
    ];
    for (name, content, parts) in table {
        let input = place.file(name, content);
        place.refused(&input, &place.options(), parts);
    }
    let html = place.run(&place.path("a.parquet"), &place.options()).unwrap_err();
    assert!(html.hint().unwrap().contains("resolve/main"));
    place.refused(&place.path("missing.parquet"), &place.options(), &["no input at"]);
    place.refused(&place.path("*.none"), &place.options(), &["holds no"]);
    place.refused(&place.path("out"), &place.options(), &["holds no"]);
    fs::create_dir(place.path("mixed")).unwrap();
    fs::write(place.path("mixed/a.jsonl"), "{}").unwrap();
    fs::write(place.path("mixed/b.parquet"), "PAR1").unwrap();
    place.refused(&place.path("mixed"), &place.options(), &["mixes"]);
}

#[test]
fn bad_parquet_is_refused() {
    let place = Place::new();
    let text = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
    let input = place.path("in.parquet");

    write_columns(&input, vec![("other", text(vec![Some("a")])), ("x", text(vec![None]))], 10);
    place.refused(&input, &place.options(), &["no column `text`", "`other`, `x`"]);
    let empty_slice = Options { slice: Slice::Rows(0..0), ..place.options() };
    place.refused(&input, &empty_slice, &["no column `text`"]);

    write_columns(&input, vec![("text", text(vec![Some("a"), Some("b"), Some("c"), None]))], 3);
    place.refused(&input, &place.options(), &["row 3", "null in `text`"]);

    write_columns(&input, vec![("text", Arc::new(Int64Array::from(vec![1])) as ArrayRef)], 10);
    place.refused(&input, &place.options(), &["column `text`", "Int64"]);

    write_columns(&input, vec![("text", Arc::new(BinaryArray::from_vec(vec![b"a"])) as ArrayRef)], 10);
    place.refused(&input, &place.options(), &["column `text`", "Binary"]);

    write_columns(&input, vec![("text", text(vec![]))], 10);
    place.refused(&input, &place.options(), &["has no rows"]);

    write_columns(&input, vec![("text", text(vec![Some("short"), Some("0123456789abcdef")]))], 10);
    place.refused(&input, &Options { max_row_bytes: 15, ..place.options() }, &["row 1", "16 bytes", "limit is 15"]);
    place.refused(&input, &Options { slice: Slice::Rows(1..3), ..place.options() }, &["ends at row 3", "has 2"]);
    place.refused(&input, &Options { slice: Slice::Bytes(0..1), ..place.options() }, &["--rows"]);
}

#[test]
fn no_flipped_byte_of_a_parquet_file_is_fatal() {
    let place = Place::new();
    let rows = (0..40).map(|row| (format!("row {row} the and"), String::new())).collect();
    let input = place.path("in.parquet");
    write_parquet(&input, &rows, 16);
    let content = fs::read(&input).unwrap();
    std::panic::set_hook(Box::new(|_| {}));
    let mut tokenizer = Tokenizer::load(&place.path("tokenizer"), Backend::Auto).unwrap();
    for at in (4..content.len() - 4).step_by(7) {
        let mut broken = content.clone();
        broken[at] ^= 0x5a;
        fs::write(&input, &broken).unwrap();
        // Many flips go unnoticed: parquet has no checksums by default. None
        // may break the process or leave half a result.
        let outcome =
            Source::open(&input).and_then(|source| run(&source, &mut tokenizer, &place.options(), &mut |_| {}));
        let left = names(&place.path("out"));
        match outcome {
            Ok(_) => {
                describe_pair(&place.path("out/x_text_document")).unwrap();
                left.iter().for_each(|name| fs::remove_file(place.path("out").join(name)).unwrap());
            }
            Err(error) => assert_eq!(left, Vec::<String>::new(), "{error}"),
        }
    }
    let _ = std::panic::take_hook();
}

#[test]
fn every_kind_of_text_column_reads_alike() {
    let place = Place::new();
    let texts = vec!["the e\u{301}", "", "and \u{4f60}\u{597d}", "the e\u{301}"];
    let expected =
        plain_run(&[texts.iter().map(|&text| text.to_owned()).collect()], &place.path("tokenizer"), false, None);
    let dictionary: DictionaryArray<Int32Type> = texts.iter().copied().collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(texts.clone())),
        Arc::new(LargeStringArray::from(texts.clone())),
        Arc::new(StringViewArray::from(texts.clone())),
        Arc::new(dictionary),
    ];
    for column in columns {
        let kind = column.data_type().to_string();
        write_columns(&place.path("in.parquet"), vec![("text", column)], 3);
        place.run(&place.path("in.parquet"), &place.options()).unwrap();
        assert!(read_pair(&place.path("out/x"), "text") == expected[0], "{kind}");
    }
}

#[test]
fn a_long_line_is_refused_before_it_fills_memory() {
    let place = Place::new();
    let long = format!("{{\"text\": \"ok\"}}\n{{\"text\": \"{}\"}}\n", "a".repeat(3 << 20));
    let input = place.file("in.jsonl", long.as_bytes());
    place.refused(&input, &Options { max_row_bytes: 1 << 20, ..place.options() }, &["line 2", "longer than 1048576"]);
    let endless = place.file("endless.jsonl", "a".repeat(3 << 20).as_bytes());
    place.refused(&endless, &Options { max_row_bytes: 1 << 20, ..place.options() }, &["line 1", "longer than"]);
    assert_eq!(place.run(&input, &Options { max_row_bytes: 4 << 20, ..place.options() }).unwrap().sequences, 2);
}

#[test]
fn bad_options_and_tokenizers_are_refused() {
    let place = Place::new();
    let input = place.file("in.jsonl", b"{\"text\": \"a\"}\n");
    let keys = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect::<Vec<_>>();
    let table: Vec<(Options, &[&str])> = vec![
        (Options { keys: keys(&["a/b"]), ..place.options() }, &["a/b"]),
        (Options { keys: keys(&["text", "text"]), ..place.options() }, &["twice"]),
        (Options { keys: vec![], ..place.options() }, &["no key"]),
        (Options { workers: 0, ..place.options() }, &["--workers"]),
        (Options { seq_length: Some(0), ..place.options() }, &["--seq-length"]),
        (Options { output_prefix: place.path("none/x"), ..place.options() }, &["does not exist"]),
        (Options { output_prefix: place.path("out/"), ..place.options() }, &["names no file"]),
        (Options { slice: Slice::Rows(0..2), ..place.options() }, &["ends at row 2", "has 1"]),
        (Options { slice: Slice::Bytes(0..900), ..place.options() }, &["ends at byte 900"]),
        (
            Options { keys: keys(&["a", "b"]), seq_length: Some(9), slice: Slice::Rows(0..49), ..place.options() },
            &["multiples of 50"],
        ),
        (
            Options { keys: keys(&["a", "b"]), seq_length: Some(9), slice: Slice::Bytes(0..9), ..place.options() },
            &["--rows"],
        ),
    ];
    for (options, parts) in table {
        place.refused(&input, &options, parts);
    }

    let tokenizer = place.path("tokenizer");
    let config = tokenizer.join("tokenizer_config.json");
    let eod = Options { append_eod: true, ..place.options() };
    for (content, parts) in [
        (json!({}), ["names no `eos_token`"]),
        (json!({"eos_token": null}), ["names no `eos_token`"]),
        (json!({"eos_token": "<|nowhere|>"}), ["`<|nowhere|>` is not in the vocabulary"]),
        (json!({"added_tokens_decoder": {"7": {"content": "<|end|>"}}}), ["`<|end|>` the id 7"]),
        (json!({"added_tokens_decoder": {"x": {"content": "<|end|>"}}}), ["the id `x`"]),
    ] {
        fs::write(&config, content.to_string()).unwrap();
        place.refused(&input, &eod, &parts);
    }
    fs::write(&config, "{").unwrap();
    place.refused(&input, &eod, &["`tokenizer_config.json` is not JSON"]);
    fs::remove_file(&config).unwrap();
    place.refused(&input, &eod, &["names no `eos_token`"]);
    assert!(place.run(&input, &place.options()).is_ok(), "the config is optional without --append-eod");
    fs::remove_file(place.path("out/x_text_document.bin")).unwrap();
    fs::remove_file(place.path("out/x_text_document.idx")).unwrap();
    fs::write(tokenizer.join("tokenizer.json"), "{\"model\": 1}").unwrap();
    place.refused(&input, &place.options(), &["cannot be used"]);
    fs::remove_file(tokenizer.join("tokenizer.json")).unwrap();
    place.refused(&input, &place.options(), &["no fast tokenizer"]);
}

#[test]
fn a_tokenizer_that_only_the_reference_knows_is_still_exact() {
    let place = Place::new();
    let mut model = common::tiny_tokenizer_json();
    model["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("[a-m]+|[^a-m]+");
    common::write_tokenizer(&place.path("tokenizer"), &model);
    let texts: Vec<String> = (0..200).map(|row| format!("the and {row} in on lall")).collect();
    let lines: Vec<String> = texts.iter().map(|text| json!({ "text": text }).to_string()).collect();
    let input = place.file("in.jsonl", lines.join("\n").as_bytes());
    let mut tokenizer = Tokenizer::load(&place.path("tokenizer"), Backend::Auto).unwrap();
    assert_eq!(tokenizer.encoder().name(), "reference");
    assert!(tokenizer.warnings().iter().any(|text| text.contains("the slow reference encoder is used")));
    run(&Source::open(&input).unwrap(), &mut tokenizer, &place.options(), &mut |_| {}).unwrap();
    let expected = plain_run(&[texts], &place.path("tokenizer"), false, None);
    assert!(read_pair(&place.path("out/x"), "text") == expected[0]);
    let demanded = Tokenizer::load(&place.path("tokenizer"), Backend::Fast).unwrap_err();
    assert_says(&demanded, &["the fast encoder"]);
}

#[test]
fn a_lying_index_is_refused_and_never_merged() {
    let place = Place::new();
    let (bin, idx) = common::plain_pair(&[vec![1, 2, 3], vec![], vec![4]], &[0, 1, 2, 3]);
    let set = |at: usize, bytes: &[u8]| {
        let mut idx = idx.clone();
        idx[at..at + bytes.len()].copy_from_slice(bytes);
        idx
    };
    let offsets = 34 + 12;
    let documents = 34 + 36;
    let table: Vec<(Vec<u8>, Vec<u8>, &str)> = vec![
        (bin.clone(), vec![], "too few"),
        (bin.clone(), set(0, b"X"), "MMIDIDX"),
        (bin.clone(), set(9, &2_u64.to_le_bytes()), "version"),
        (bin.clone(), set(17, &[8]), "type code 8"),
        (bin.clone(), set(18, &u64::MAX.to_le_bytes()), "claims"),
        (bin.clone(), set(18, &4_u64.to_le_bytes()), "claims"),
        (bin.clone(), set(26, &(u64::MAX / 8).to_le_bytes()), "claims"),
        (bin.clone(), set(34, &(-1_i32).to_le_bytes()), "negative"),
        (bin.clone(), set(34, &i32::MAX.to_le_bytes()), "begins at"),
        (bin.clone(), set(offsets + 8, &13_i64.to_le_bytes()), "begins at 13"),
        (bin.clone(), set(documents, &1_u64.to_le_bytes()), "document entry 0"),
        (bin.clone(), set(documents + 8, &9_u64.to_le_bytes()), "document entry 1"),
        (bin.clone(), set(documents + 16, &0_u64.to_le_bytes()), "document entry 2"),
        (bin.clone(), set(documents + 24, &2_u64.to_le_bytes()), "end at sequence 2 of 3"),
        (bin.clone(), idx[..idx.len() - 1].to_vec(), "claims"),
        (bin.clone(), [idx.as_slice(), b"x"].concat(), "claims"),
        (bin[..8].to_vec(), idx.clone(), "the .bin has 8"),
        ([bin.as_slice(), b"xxxx"].concat(), idx.clone(), "the .bin has 20"),
    ];
    let part = Pair::of_key(&place.path("part"), "text");
    let job = Merge {
        pack: None,
        output_prefix: place.path("out/x"),
        keys: vec!["text".to_owned()],
        parts: vec![place.path("part"), place.path("part")],
        remove_parts: true,
        digests: true,
    };
    for (bin, idx, what) in table {
        fs::write(&part.bin, bin).unwrap();
        fs::write(&part.idx, idx).unwrap();
        let error = merge(&job, &mut |_, _| {}).expect_err(what);
        assert_says(&error, &["not a sound index", what]);
        assert_eq!(names(&place.path("out")), Vec::<String>::new(), "{what}");
        assert!(part.bin.exists() && part.idx.exists(), "parts stay after a failure");
    }
    fs::write(&part.bin, &bin).unwrap();
    fs::write(&part.idx, &idx).unwrap();
    merge(&Merge { remove_parts: false, ..job.clone() }, &mut |_, _| {}).unwrap();
    let once = [vec![1, 2, 3], vec![], vec![4]];
    let twice = [once.clone(), once].concat();
    assert!(read_pair(&place.path("out/x"), "text") == common::plain_pair(&twice, &[0, 1, 2, 3, 4, 5, 6]));
    let itself = Merge { parts: vec![place.path("out/x")], ..job };
    assert_says(&merge(&itself, &mut |_, _| {}).unwrap_err(), &["is also the result"]);
}

#[test]
fn a_failed_run_leaves_an_older_result_alone() {
    let place = Place::new();
    let good = place.file("good.jsonl", b"{\"text\": \"the and\"}\n");
    let bad = place.file("bad.jsonl", b"{\"text\": \"the and\"}\n{");
    place.run(&good, &place.options()).unwrap();
    let before = read_pair(&place.path("out/x"), "text");
    assert!(place.run(&bad, &place.options()).is_err());
    assert!(read_pair(&place.path("out/x"), "text") == before);
    assert_eq!(names(&place.path("out")), ["x_text_document.bin", "x_text_document.idx"]);
}
