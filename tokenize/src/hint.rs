//! The next thing to try for each error.

use std::io::ErrorKind;

use crate::error::{Error, FieldFault};

impl Error {
    /// Returns the next thing to try, printed as `hint: …`.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { source, .. } => return io_hint(source.kind()).map(str::to_owned),
            Self::NoInput { .. } => "check `--input`; relative paths are seen from the working directory",
            Self::NotAFile { .. } => "give a regular file, or a directory of them",
            Self::NothingToRead { .. } => "give a file, or a directory with data files directly in it",
            Self::MixedFormats { .. } => "run the formats one after the other, with an output prefix each",
            Self::Format { .. } => {
                "give .parquet, .jsonl, .json, .csv, .txt or .arrow; the text formats also as .gz or .zst"
            }
            Self::HtmlPage { .. } => {
                "the download URL should contain `resolve/main`, not `blob/main`: fetch the file again"
            }
            Self::LfsPointer { .. } => "run `git lfs pull` in the repository that holds it",
            Self::NotParquet { .. } => {
                "the download may be cut short or not parquet at all: fetch it again, compare the size"
            }
            Self::Parquet { .. } => "fetch the file again and compare its digest with the publisher's",
            Self::NoColumn { .. } => "name the text columns with `--json-keys`",
            Self::NeverThere { .. } => "the columns of an instruction are `instruction`, `input` and `output`",
            Self::ColumnType { .. } => "choose a text column with `--json-keys`, or cast this one to string",
            Self::Null { .. } => "drop the row, or make the text an empty string (such rows yield nothing)",
            Self::LongRow { .. } | Self::LongLine { .. } => "split the document, or raise `--max-row-bytes`",
            Self::Json { .. } => "each line must be one complete JSON object: mend or delete the line",
            Self::Field { what, .. } => field_hint(what),
            Self::Columns { .. } => "one run reads files of the same columns: run the others on their own",
            Self::Damaged { .. } => "fetch the file again, or write it again from its source",
            Self::ByteOrderMark { .. } => "save the file as UTF-8 without a byte order mark",
            Self::NoRows { .. } => "the file may be cut short: look at its size and at the source",
            Self::Changed { .. } => "wait until the file is complete, then run again",
            Self::Slice { .. } => "`describe --input` prints the rows and bytes that slices are cut from",
            Self::Options { .. } => return None,
            Self::NoTokenizer { .. } => {
                "`--tokenizer-name-or-path` must be a local directory with `tokenizer.json`, or with Qwen2's `vocab.json` \
                 and `merges.txt`; other slow tokenizers are saved as one by \
                 `AutoTokenizer.from_pretrained(dir).save_pretrained(dir)`"
            }
            Self::Tokenizer { .. } => "compare the files with the model's repository",
            Self::NoEos { .. } => "set `eos_token` in `tokenizer_config.json`, or leave out `--append-eod`",
            Self::Encode { .. } => "try `--encoder reference`; if that fails too the text does not suit the tokenizer",
            Self::Differs { .. } => "leave out `--encoder fast`",
            Self::NoOutputDirectory { .. } => "create it first",
            Self::Index { .. } => "the pair is incomplete or damaged: make it again",
            Self::Panicked { .. } => "try `--encoder reference`, or look for damage in the input",
        };
        Some(hint.to_owned())
    }
}

fn io_hint(kind: ErrorKind) -> Option<&'static str> {
    if kind == ErrorKind::StorageFull || kind == ErrorKind::QuotaExceeded {
        Some("free some space: the output takes about as much room as the text")
    } else if kind == ErrorKind::PermissionDenied {
        Some("look at the owner and the mode of the path and its directory")
    } else if kind == ErrorKind::ReadOnlyFilesystem {
        Some("choose an output prefix on a writable file system")
    } else if kind == ErrorKind::NotFound {
        Some("check the path; a `.bin` and `.idx` pair is named by its prefix, without the ending")
    } else {
        None
    }
}

fn field_hint(fault: &FieldFault) -> &'static str {
    match fault {
        FieldFault::Missing(_) => "every line must hold every key of `--json-keys`",
        FieldFault::Twice(_) => "keep one of the two",
        FieldFault::Null(_) => "drop the line, or make the text an empty string (such rows yield nothing)",
        FieldFault::NotText { .. } => "quote the value, or choose other keys with `--json-keys`",
        FieldFault::NotUtf8(_) => "convert the file to UTF-8, for example with `iconv`",
        FieldFault::LoneSurrogate(_) => {
            "a `\\ud8xx` escape needs its second half: write the file again from its source"
        }
    }
}
