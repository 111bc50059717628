//! Parquet pages that lie about their size, and columns that lie about their place.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterVersion};
use tokenize::{Error, Slice, Source};

/// Writes one text in one page.
fn write(place: &Path, text: &str, codec: Compression, version: WriterVersion) -> PathBuf {
    write_rows(place, vec![text], codec, version)
}

/// Writes texts in pages of 100.
fn write_rows(place: &Path, texts: Vec<&str>, codec: Compression, version: WriterVersion) -> PathBuf {
    let path = place.join("in.parquet");
    let column: ArrayRef = Arc::new(StringArray::from(texts));
    let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(codec)
        .set_dictionary_enabled(false)
        .set_writer_version(version)
        .set_data_page_row_count_limit(100)
        .set_write_batch_size(100)
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
        .build();
    let mut writer = ArrowWriter::try_new(fs::File::create(&path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

fn read(path: &Path) -> Result<Vec<String>, Error> {
    read_slice(path, &Slice::All)
}

fn read_slice(path: &Path, slice: &Slice) -> Result<Vec<String>, Error> {
    let mut texts = Vec::new();
    Source::open(path)?.each_value("text", slice, usize::MAX, &mut |text| {
        texts.push(text.unwrap_or_default().to_owned());
        true
    })?;
    Ok(texts)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

/// Makes the first page state another size, of as many digits.
fn state(path: &Path, size: u64) {
    let mut content = fs::read(path).unwrap();
    // Behind the magic word: the type, and the field that follows it.
    assert_eq!((content[4], content[6]), (0x15, 0x15));
    let digits = varint(2 * size);
    let end = content[7..].iter().position(|byte| byte & 0x80 == 0).unwrap();
    assert_eq!(digits.len(), end + 1);
    content[7..7 + digits.len()].copy_from_slice(&digits);
    fs::write(path, content).unwrap();
}

fn refused(path: &Path, part: &str) {
    let error = read(path).unwrap_err();
    assert!(matches!(error, Error::Parquet { .. }) && error.to_string().contains(part), "{error}");
}

/// Text that hardly packs.
fn noise(length: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap())
    };
    (0..length).map(|_| next()).collect()
}

const VERSIONS: [WriterVersion; 2] = [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0];

#[test]
fn rows_in_the_middle_of_a_page_are_found() {
    let place = tempfile::tempdir().unwrap();
    let texts: Vec<String> = (0..1000).map(|row| noise(row % 70 + 1)).collect();
    let plain: Vec<&str> = texts.iter().map(String::as_str).collect();
    for version in VERSIONS {
        let path = write_rows(place.path(), plain.clone(), Compression::SNAPPY, version);
        for rows in [0..1, 99..100, 100..101, 250..731, 950..1000] {
            let expected = &plain[usize::try_from(rows.start).unwrap()..usize::try_from(rows.end).unwrap()];
            assert_eq!(read_slice(&path, &Slice::Rows(rows)).unwrap(), expected);
        }
    }
}

#[test]
fn a_page_that_claims_more_than_its_bytes_can_hold_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let text = "the and ".repeat(200_000);
    for codec in [Compression::SNAPPY, Compression::GZIP(GzipLevel::default()), Compression::LZ4_RAW] {
        for version in VERSIONS {
            let path = write(place.path(), &text, codec, version);
            assert_eq!(read(&path).unwrap(), [text.as_str()]);
            state(&path, 127 << 20);
            refused(&path, "claims 133169152 unpacked");
        }
    }
}

#[test]
fn a_page_that_unpacks_to_more_than_it_states_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let text = noise(3 << 20);
    for codec in [Compression::GZIP(GzipLevel::default()), Compression::BROTLI(BrotliLevel::default())] {
        for version in VERSIONS {
            let path = write(place.path(), &text, codec, version);
            assert_eq!(read(&path).unwrap(), [text.as_str()]);
            state(&path, 2 << 20);
            refused(&path, "unpacks to more than");
        }
    }
}

#[test]
fn pages_that_pack_as_well_as_can_be_are_read() {
    let place = tempfile::tempdir().unwrap();
    let text = "a".repeat(20 << 20);
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
    ];
    for codec in codecs {
        for version in VERSIONS {
            let path = write(place.path(), &text, codec, version);
            assert!(read(&path).unwrap() == [text.as_str()], "{codec:?}");
        }
    }
}

#[test]
fn a_column_beyond_the_end_of_the_file_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = write(place.path(), &noise(1 << 20), Compression::SNAPPY, WriterVersion::PARQUET_1_0);
    let mut content = fs::read(&path).unwrap();
    content.drain(20_000..40_000);
    fs::write(&path, content).unwrap();
    refused(&path, "`\"text\"` does not lie in the file");
}
