//! The whole job, or one slice of it.

use tokenize::{Event, Options, Slice, Source, Tokenizer, run as encode};

use crate::flags::RunFlags;
use crate::report::{Failure, Report, as_f64};

pub(crate) fn run(flags: &RunFlags, report: &mut Report) -> Result<(), Failure> {
    let options = options(flags, report.is_json());
    let source = Source::open(&flags.input)?;
    let mut tokenizer = Tokenizer::load(&flags.tokenizer_name_or_path, flags.encoder.backend())?;
    report.talk(&format!("building dataset: {}", flags.input.display()));
    report.talk(&format!("Vocab size: {}", tokenizer.vocab_size()));
    report.talk(&format!("Output prefix: {}", flags.output_prefix.display()));
    let summary = encode(&source, &mut tokenizer, &options, &mut |event| match event {
        Event::Warning(text) => report.warning(&text),
        Event::Started => report.started(),
        Event::Progress(progress) => report.progress(&progress, flags.log_interval),
    })?;
    let limit = flags.seq_length.map_or("None".to_owned(), |limit| limit.to_string());
    let skipped = as_f64(summary.skipped) / as_f64(options.keys.len() as u64);
    report.talk(&format!("Skip {skipped:?} sample exceeded seq-length({limit})"));
    report.result(&summary);
    Ok(())
}

fn options(flags: &RunFlags, digests: bool) -> Options {
    let slice = match (&flags.rows, &flags.byte_range) {
        (Some(rows), _) => Slice::Rows(rows.clone()),
        (None, Some(bytes)) => Slice::Bytes(bytes.clone()),
        (None, None) => Slice::All,
    };
    Options {
        output_prefix: flags.output_prefix.clone(),
        keys: flags.json_keys.clone(),
        workers: usize::from(flags.workers),
        append_eod: flags.append_eod,
        seq_length: flags.seq_length,
        slice,
        max_row_bytes: flags.max_row_bytes as usize,
        digests,
    }
}
