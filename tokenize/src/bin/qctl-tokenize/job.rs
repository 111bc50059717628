//! The whole job, or one slice of it.

use std::path::Path;

use tokenize::{Event, Handler, Options, Slice, Source, Tokenizer, run as encode};

use crate::flags::RunFlags;
use crate::report::{Failure, Report, as_f64};

pub(crate) fn run(flags: &RunFlags, report: &mut Report) -> Result<(), Failure> {
    let options = options(flags, report.is_json())?;
    if options.n_subs > 1 && !options.pack && (options.seq_length.is_none() || options.keys.len() == 1) {
        report.note("`--n-subs` has no effect here: the result is the same without it");
    }
    if options.pad_to_multiple_of > 1 && options.handler != Handler::Pretrain {
        report.note(&format!("`--pad-to-multiple-of` has no effect with `{}`", flags.handler_name));
    }
    let source = Source::open_all(&flags.input)?;
    let directory = flags.tokenizer_name_or_path.as_deref().unwrap_or(Path::new("."));
    let mut tokenizer = Tokenizer::load(directory, flags.encoder.backend())?;
    for input in &flags.input {
        report.talk(&format!("building dataset: {}", input.display()));
    }
    report.talk(&format!("Vocab size: {}", tokenizer.vocab_size()));
    report.talk(&format!("Output prefix: {}", flags.output_prefix.display()));
    let summary = encode(&source, &mut tokenizer, &options, &mut |event| match event {
        Event::Warning(text) => report.warning(&text),
        Event::Started => report.started(),
        Event::Progress(progress) => report.progress(&progress, flags.log_interval),
    })?;
    let limit = flags.seq_length.map_or("None".to_owned(), |limit| limit.to_string());
    let skipped = as_f64(summary.skipped) / as_f64(options.handler.outputs(&options.keys).len() as u64);
    report.talk(&format!("Skip {skipped:?} sample exceeded seq-length({limit})"));
    report.result(&summary);
    Ok(())
}

fn options(flags: &RunFlags, digests: bool) -> Result<Options, Failure> {
    let slice = match (&flags.rows, &flags.byte_range) {
        (Some(rows), _) => Slice::Rows(rows.clone()),
        (None, Some(bytes)) => Slice::Bytes(bytes.clone()),
        (None, None) => Slice::All,
    };
    Ok(Options {
        handler: handler(flags)?,
        pad_to_multiple_of: flags.pad_to_multiple_of,
        pack: flags.pack,
        n_subs: flags.n_subs,
        output_prefix: flags.output_prefix.clone(),
        keys: flags.json_keys.clone(),
        workers: usize::from(flags.workers),
        append_eod: flags.append_eod,
        seq_length: flags.seq_length,
        slice,
        max_row_bytes: flags.max_row_bytes as usize,
        digests,
    })
}

/// The handler by the reference's name; it takes any other for the pretrain one.
fn handler(flags: &RunFlags) -> Result<Handler, Failure> {
    let instruction = "AlpacaStyleInstructionHandler";
    let handler = match flags.handler_name.as_str() {
        "" | "GeneralPretrainHandler" => Handler::Pretrain,
        "AlpacaPretrainHandler" => Handler::AlpacaPretrain,
        name if name == instruction => Handler::AlpacaInstruction,
        other => {
            let what = format!("`--handler-name {other}` is not supported");
            let hint = format!("there are GeneralPretrainHandler, AlpacaPretrainHandler and {instruction}");
            return Err(Failure::new(what, hint));
        }
    };
    match (handler, flags.prompt_type.as_deref()) {
        (Handler::AlpacaInstruction, Some("qwen")) | (Handler::Pretrain | Handler::AlpacaPretrain, None) => Ok(handler),
        (Handler::AlpacaInstruction, None) => {
            Err(Failure::new(format!("`{instruction}` needs a prompt"), "add `--prompt-type qwen`"))
        }
        (Handler::AlpacaInstruction, Some(other)) => {
            Err(Failure::new(format!("`--prompt-type {other}` is not supported"), "there is only `qwen`"))
        }
        (Handler::Pretrain | Handler::AlpacaPretrain, Some(_)) => Err(Failure::new(
            "`--prompt-type` belongs to an instruction handler",
            format!("add `--handler-name {instruction}`"),
        )),
    }
}
