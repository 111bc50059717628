//! Arrow files that cost more than their size: many messages, and texts that are written once and meant often.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::StringViewBuilder;
use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{Array, ArrayRef, DictionaryArray, LargeStringArray, RecordBatch, StringArray};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use common::{names, plain_run, read_pair, tiny_tokenizer};
use tokenize::{Backend, Error, Options, Slice, Source, Summary, Tokenizer, run};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        tiny_tokenizer(&place.path("tokenizer"));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a stream with one message for each column of texts.
    fn stream(&self, columns: &[ArrayRef], packed: Option<CompressionType>) -> PathBuf {
        let path = self.path("in.arrow");
        let batch = |column: &ArrayRef| RecordBatch::try_from_iter_with_nullable([("text", column.clone(), true)]);
        let options = IpcWriteOptions::default().try_with_compression(packed).unwrap();
        let file = fs::File::create(&path).map(std::io::BufWriter::new).unwrap();
        let schema = batch(&columns[0]).unwrap().schema();
        let mut writer = StreamWriter::try_new_with_options(file, &schema, options).unwrap();
        columns.iter().for_each(|column| writer.write(&batch(column).unwrap()).unwrap());
        writer.finish().unwrap();
        path
    }

    fn run(&self, input: &Path, max_row_bytes: usize) -> Result<Summary, Error> {
        let options = Options { workers: 2, max_row_bytes, ..Options::new(self.path("x")) };
        let mut tokenizer = Tokenizer::load(&self.path("tokenizer"), Backend::Auto)?;
        run(&Source::open(input)?, &mut tokenizer, &options, &mut |_| {})
    }
}

fn read(input: &Path) -> Vec<Option<String>> {
    let mut texts = Vec::new();
    let source = Source::open(input).unwrap();
    let mut keep = |text: Option<&str>| {
        texts.push(text.map(str::to_owned));
        true
    };
    source.each_value("text", &Slice::All, usize::MAX, &mut keep).unwrap();
    texts
}

#[test]
fn a_hundred_thousand_messages_are_read_one_after_the_other() {
    let place = Place::new();
    let column: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let input = place.stream(&vec![column; 100_000], None);
    assert_eq!(read(&input).len(), 100_000);
}

#[test]
fn a_dictionary_without_values_is_a_column_of_nulls() {
    let place = Place::new();
    let column: DictionaryArray<Int32Type> = [None::<&str>; 5].into_iter().collect();
    assert_eq!(column.values().len(), 0);
    let input = place.stream(&[Arc::new(column)], None);
    assert_eq!(read(&input), vec![None; 5]);
    let error = place.run(&input, 1 << 20).unwrap_err().to_string();
    assert!(error.contains("row 0") && error.contains("null in `text`"), "{error}");
}

#[test]
fn texts_that_are_meant_often_are_copied_a_batch_at_a_time() {
    let place = Place::new();
    // All rows together would be 4 GiB.
    let text = "the and ".repeat(8 << 10);
    let values = StringArray::from(vec![text.as_str()]);
    let rows = 1 << 16;
    let keys = arrow_array::PrimitiveArray::<Int8Type>::from(vec![0_i8; rows]);
    let dictionary: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::new(values)));
    let mut views = StringViewBuilder::new();
    let block = views.append_block(text.as_bytes().to_vec().into());
    for _ in 0..rows {
        views.try_append_view(block, 0, u32::try_from(text.len()).unwrap()).unwrap();
    }
    for column in [dictionary, Arc::new(views.finish())] {
        let input = place.stream(&[column], None);
        let error = place.run(&input, text.len() - 1).unwrap_err().to_string();
        assert!(error.contains("row 0") && error.contains("65536 bytes"), "{error}");
        let mut seen = 0;
        let visit = &mut |found: &str| {
            assert_eq!(found.len(), text.len());
            seen += 1;
            seen < 20
        };
        Source::open(&input).unwrap().each_text("text", visit).unwrap();
        assert_eq!(seen, 20);
    }
    assert!(names(place.0.path()).iter().all(|name| !name.starts_with('x')));
}

#[test]
fn batches_of_long_and_short_texts_lose_no_row() {
    let place = Place::new();
    let texts: Vec<String> =
        (0..9000).map(|row| "the ".repeat(if row % 1000 == 7 { 100_000 } else { row % 5 })).collect();
    let column: DictionaryArray<Int32Type> = texts.iter().map(String::as_str).collect();
    let input = place.stream(&[Arc::new(column)], Some(CompressionType::ZSTD));
    place.run(&input, 1 << 20).unwrap();
    let expected = plain_run(&[texts], &place.path("tokenizer"), false, None);
    assert!(read_pair(&place.path("x"), "text") == expected[0]);
}

#[test]
fn what_a_message_claims_is_counted_over_all_its_buffers() {
    let place = Place::new();
    let texts: Vec<String> = (0..4000).map(|row| format!("text {row}")).collect();
    let column: ArrayRef = Arc::new(LargeStringArray::from_iter_values(&texts));
    let input = place.stream(&[column], Some(CompressionType::LZ4_FRAME));
    let content = fs::read(&input).unwrap();
    // The sizes of the offsets and of the texts, each before its frame.
    let frame = 0x184d_2204_u32.to_le_bytes();
    let frames: Vec<usize> = (8..content.len() - 4).filter(|&at| content[at..at + 4] == frame).collect();
    assert_eq!(frames.len(), 2);
    let mut lies = content.clone();
    for at in frames {
        lies[at - 8..at].copy_from_slice(&(600_i64 << 20).to_le_bytes());
    }
    fs::write(&input, &lies).unwrap();
    let error = place.run(&input, 1 << 20).unwrap_err().to_string();
    assert!(error.contains("claim 1258291200 bytes"), "{error}");
    fs::write(&input, &content).unwrap();
    place.run(&input, 1 << 20).unwrap();
}

#[test]
fn a_last_message_without_a_body_counts() {
    let place = Place::new();
    let path = place.path("in.arrow");
    let nulls: ArrayRef = Arc::new(arrow_array::NullArray::new(7));
    let batch = RecordBatch::try_from_iter([("text", nulls)]).unwrap();
    let file = fs::File::create(&path).unwrap();
    let mut writer = StreamWriter::try_new(file, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let rows = tokenize::describe_input(&Source::open(&path).unwrap(), true, 1 << 20).unwrap().rows;
    assert_eq!(rows, Some(7));
}
