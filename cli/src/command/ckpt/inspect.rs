//! `qctl ckpt describe` and `qctl ckpt verify`.

use std::fmt::Write as _;

use proto::v1;
use serde::Serialize;

use super::contents::{Contents, Question};
use super::faults::{Fault, say_all};
use super::target::{Iteration, Known, directory};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Format, print, print_json, print_line, print_yaml, say};
use crate::table::print_table;
use crate::text::{bytes, count, one_line, plural, printable, program, time};
use crate::view::{Checkpoint, Document};

/// A checkpoint: what the controller knows of it, and what its files hold.
#[derive(Debug, Serialize)]
pub(super) struct Described {
    /// `null` for a directory.
    checkpoint: Option<Checkpoint>,
    /// Whose ranks wrote it; none for a directory.
    nodes: Vec<String>,
    /// `null` where its files are not here.
    contents: Option<Contents>,
}

impl Described {
    fn of(known: Option<Known>, contents: Option<Contents>) -> Self {
        let (checkpoint, nodes) = known.map_or((None, Vec::new()), |known| (Some(known.view.into()), known.nodes));
        Self { checkpoint, nodes, contents }
    }
}

/// A checkpoint that was read, and what was found.
#[derive(Debug, Serialize)]
struct Verified {
    /// `null` for a directory.
    checkpoint: Option<Checkpoint>,
    whole: bool,
    faults: Vec<Fault>,
    bytes: u64,
    /// Whose agents read it; none for a directory.
    nodes: Vec<String>,
    /// `null` for a job's, which is read where it lies.
    contents: Option<Contents>,
}

/// Shows one checkpoint.
pub(super) async fn describe(
    word: &str,
    iteration: Iteration,
    load_as: Option<(u32, u32)>,
    output: Format,
    client: Result<Client, Failure>,
) -> Result<(), Failure> {
    let question = Question { iteration: iteration.number(), verify: false, load_as };
    let (known, contents) = look(word, iteration, question, client).await?;
    if load_as.is_some()
        && contents.is_none()
        && let Some(known) = &known
    {
        return Err(known.elsewhere("read"));
    }
    let directory = known.as_ref().map(|known| known.view.directory.clone());
    let directory = directory.or_else(|| contents.as_ref().map(|held| held.path().display().to_string()));
    if matches!(output, Format::Table | Format::Wide) {
        return print(&text(known.as_ref(), contents.as_ref()));
    }
    let document = Document::new(Described::of(known, contents));
    match output {
        Format::Json => print_json(&document),
        Format::Yaml => print_yaml(&document),
        Format::Name | Format::Table | Format::Wide => print_line(&one_line(&directory.unwrap_or_default())),
    }
}

/// Reads every byte of one checkpoint: here, or where a job's ranks wrote it.
pub(super) async fn verify(
    word: &str,
    iteration: Iteration,
    output: Format,
    client: Result<Client, Failure>,
) -> Result<(), Failure> {
    match directory(word) {
        Some(dir) => verify_here(&Contents::read(&dir, Question { verify: true, ..question(iteration) })?, output),
        None => verify_there(word, iteration, output, client?).await,
    }
}

fn question(iteration: Iteration) -> Question {
    Question { iteration: iteration.number(), ..Question::default() }
}

async fn verify_there(job: &str, iteration: Iteration, output: Format, mut client: Client) -> Result<(), Failure> {
    let request = v1::CheckpointRequest { job: job.to_owned(), iteration: iteration.number(), stage: String::new() };
    let reply = client.checkpoints.verify(request).await?.into_inner();
    let view = reply.checkpoint.clone().unwrap_or_default();
    let verified = Verified {
        checkpoint: reply.checkpoint.map(Into::into),
        whole: reply.whole,
        faults: reply.faults.iter().cloned().map(Into::into).collect(),
        bytes: reply.bytes,
        nodes: reply.nodes.clone(),
        contents: None,
    };
    match output {
        Format::Json => print_json(&Document::new(&verified))?,
        Format::Yaml => print_yaml(&Document::new(&verified))?,
        Format::Name if reply.whole => print_line(&one_line(&view.directory))?,
        Format::Name | Format::Table | Format::Wide => {}
    }
    if reply.whole {
        let (shards, nodes) = (plural(view.shards as usize, "shard"), reply.nodes.join(", "));
        let told = format!(
            "iteration {} is whole: {shards}, {}, every byte read by {nodes}",
            view.iteration,
            bytes(reply.bytes)
        );
        say(&one_line(&told));
        return Ok(());
    }
    say_all(&reply.faults);
    let failure = format!("iteration {} is not whole, or not all of it could be read", view.iteration);
    Err(Failure::new(Exit::Failed, failure).hint(format!("see which are complete: {} ckpt ls {}", program(), view.job)))
}

fn verify_here(contents: &Contents, output: Format) -> Result<(), Failure> {
    let fault = contents.fault();
    let document = || {
        Document::new(Verified {
            checkpoint: None,
            whole: contents.complete,
            faults: Fault::of(contents),
            bytes: contents.bytes,
            nodes: Vec::new(),
            contents: Some(contents.clone()),
        })
    };
    match output {
        Format::Json => print_json(&document())?,
        Format::Yaml => print_yaml(&document())?,
        Format::Name if fault.is_none() => print_line(&one_line(&contents.path().display().to_string()))?,
        Format::Name => {}
        Format::Table | Format::Wide => {
            print_table(["TP", "PP", "SIZE", "INTACT", "FILE"], contents.shards.iter().map(line).collect())?;
        }
    }
    if let Some(fault) = fault {
        return Err(fault);
    }
    let shards = plural(contents.shards.len(), "shard");
    say(&format!("iteration {} is whole: {shards}, {}, every byte read", contents.iteration, bytes(contents.bytes)));
    Ok(())
}

fn line(shard: &super::contents::Shard) -> [String; 5] {
    let intact = if shard.intact { "yes" } else { "no" };
    let path = shard.path.display().to_string();
    [shard.tp.to_string(), shard.pp.to_string(), bytes(shard.size), intact.to_owned(), path]
}

async fn look(
    word: &str,
    iteration: Iteration,
    question: Question,
    client: Result<Client, Failure>,
) -> Result<(Option<Known>, Option<Contents>), Failure> {
    if let Some(dir) = directory(word) {
        return Ok((None, Some(Contents::read(&dir, question)?)));
    }
    let known = Known::ask(&mut client?, word, iteration).await?;
    let contents = known.contents(question)?;
    Ok((Some(known), contents))
}

fn text(known: Option<&Known>, contents: Option<&Contents>) -> String {
    let mut text = String::new();
    let mut row = |key: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key:<11} {}", printable(value));
    };
    if let Some(Known { view, nodes }) = known {
        row("job", &view.job);
        row("stage", &view.stage);
        row("iteration", &view.iteration.to_string());
        row("directory", &view.directory);
        row("nodes", &nodes.join(", "));
        let missing = view.shards_expected.saturating_sub(view.shards);
        let complete = match (view.complete, missing) {
            (true, _) => format!("since {}", time(view.completed_ms)),
            (false, 0) => "no: the tracker file does not name it yet".to_owned(),
            (false, missing) => format!("no: {missing} of {} shards are missing", view.shards_expected),
        };
        row("complete", &complete);
        row("size", &format!("{}, {}", bytes(view.bytes), plural(view.shards as usize, "shard")));
    }
    let Some(held) = contents else {
        row("contents", "its files are not here");
        return text;
    };
    if known.is_none() {
        let tracked = match held.tracker {
            Some(tracker) if tracker == held.iteration => "; the tracker names it".to_owned(),
            Some(tracker) => format!("; the tracker names {tracker}"),
            None => "; there is no tracker".to_owned(),
        };
        row("iteration", &format!("{}{tracked}", held.iteration));
        row("directory", &held.path().display().to_string());
        row("size", &format!("{}, {}", bytes(held.bytes), plural(held.shards.len(), "shard")));
    }
    let mut layout = format!("TP {} x PP {}", held.tp, held.pp);
    if let Some(chunks) = held.virtual_stages.filter(|chunks| *chunks > 1) {
        layout.push_str(&format!(", {chunks} virtual stages each"));
    }
    row("layout", &layout);
    // Equal blocks need no words.
    if held.layers.iter().any(|layers| Some(layers) != held.layers.first()) {
        let layers: Vec<String> = held.layers.iter().map(u64::to_string).collect();
        row("layers", &format!("{} by stage", layers.join(", ")));
    }
    row("parameters", &held.parameters.map_or_else(|| "not stated".to_owned(), count));
    let dtypes = held.dtypes.join(", ");
    row("dtype", if dtypes.is_empty() { "none: the shards hold no weights" } else { &dtypes });
    row("whole", if held.complete { "yes, as far as names and sizes say" } else { "no" });
    for missing in &held.missing {
        row("missing", missing);
    }
    for problem in &held.problems {
        row("broken", &problem.message);
    }
    if let Some(load) = &held.load {
        let layout = format!("TP {} x PP {}", load.tp, load.pp);
        let answer = match &load.reason {
            None => format!("{layout}: yes"),
            Some(reason) => format!("{layout}: no, {reason}"),
        };
        row("loads as", &answer);
        if let Some(hint) = &load.hint {
            row("hint", hint);
        }
    }
    if held.complete && !held.verified {
        let path = held.path();
        row("next", &format!("read every byte: {} ckpt verify {}", program(), path.display()));
    }
    text
}

#[cfg(test)]
pub(super) fn examples() -> [(&'static str, serde_json::Value); 3] {
    let value = |document: &Document<Described>| serde_json::to_value(document).unwrap_or_default();
    let described = || {
        let checkpoint = Some(v1::CheckpointView::default().into());
        let contents = Some(super::contents::example());
        Document::new(Described { checkpoint, nodes: vec!["n".to_owned()], contents })
    };
    let verified = Verified {
        checkpoint: Some(v1::CheckpointView::default().into()),
        whole: false,
        faults: vec![v1::CheckpointFault::default().into()],
        bytes: 1,
        nodes: vec!["n".to_owned()],
        contents: Some(super::contents::example()),
    };
    let contents = serde_json::to_value(super::contents::example()).unwrap_or_default();
    [
        ("qctl ckpt describe", value(&described())),
        ("qctl ckpt verify", serde_json::to_value(Document::new(verified)).unwrap_or_default()),
        ("Contents of a checkpoint", contents),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_stands_below_what_is_known() {
        let shown = text(None, Some(&super::super::contents::example()));
        for part in ["iteration   1; the tracker names it", "layout      TP 1 x PP 1", "missing     mp_rank_01"] {
            assert!(shown.contains(part), "{shown}");
        }
        assert!(shown.contains("loads as    TP 1 x PP 1: no, no") && !shown.contains("next "), "{shown}");
        let view = proto::v1::CheckpointView { shards: 3, shards_expected: 4, ..Default::default() };
        let known = Known { view, nodes: vec!["n1".into(), "n2".into()] };
        let shown = text(Some(&known), None);
        assert!(shown.contains("nodes       n1, n2\ncomplete    no: 1 of 4 shards are missing"), "{shown}");
        assert!(shown.ends_with("contents    its files are not here\n"), "{shown}");
    }
}
