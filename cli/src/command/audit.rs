//! `qctl audit`.

use proto::v1;
use serde::Serialize;

use crate::client::Client;
use crate::failure::Failure;
use crate::moment::Moment;
use crate::output::{Format, print_json, print_line, print_yaml, say};
use crate::table::print_table;
use crate::text::{one_line, time};
use crate::view::Document;

/// Which entries, and how.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
It is the record of the controller that leads; operators and admins may read it.

Examples:
  qctl audit --refused --since 1d
  qctl audit --who bob -n 20 -o json")]
pub(crate) struct AuditArgs {
    /// The newest N entries
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    last: u32,
    /// None before: `10m`, `2h`, `3d` (ago) or a time
    #[arg(long, value_name = "TIME", value_parser = Moment::read)]
    since: Option<Moment>,
    /// Only what this user or node asked for
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    who: String,
    /// Only what was refused
    #[arg(long)]
    refused: bool,
    /// How the list is written; `name` gives who asked
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Lists what is on record.
pub(crate) async fn run(args: &AuditArgs, mut client: Client) -> Result<(), Failure> {
    let since_ms = match args.since {
        None => 0,
        Some(Moment::At(ms)) => ms,
        // So long ago by the clock that the record is kept by.
        Some(since) => since.on(client.cluster.status(v1::StatusRequest {}).await?.into_inner().now_ms),
    };
    let request = v1::AuditRequest { limit: args.last, since_ms, who: args.who.clone(), refused: args.refused };
    let entries = client.cluster.audit(request).await?.into_inner().entries;
    match args.output {
        Format::Json => print_json(&document(entries)),
        Format::Yaml => print_yaml(&document(entries)),
        Format::Name => entries.iter().try_for_each(|entry| print_line(&one_line(&entry.who))),
        Format::Table | Format::Wide if entries.is_empty() => {
            say("nothing of that kind is on record");
            Ok(())
        }
        Format::Table => print_table(HEADER, entries.iter().map(line).collect()),
        Format::Wide => print_table(WIDE, entries.iter().map(wide).collect()),
    }
}

const HEADER: [&str; 6] = ["TIME", "WHO", "VERB", "OBJECT", "RESULT", "WHY NOT"];
const WIDE: [&str; 9] = ["TIME", "WHO", "ROLE", "SERIAL", "FROM", "VERB", "OBJECT", "RESULT", "WHY NOT"];

fn line(entry: &v1::AuditEntry) -> [String; 6] {
    let who = if entry.who.is_empty() { "-".to_owned() } else { entry.who.clone() };
    let (verb, object, detail) = (entry.verb.clone(), entry.object.clone(), entry.detail.clone());
    [time(entry.at_ms), who, verb, object, entry.result.clone(), detail]
}

fn wide(entry: &v1::AuditEntry) -> [String; 9] {
    let [time, who, verb, object, result, detail] = line(entry);
    [time, who, entry.role.clone(), entry.serial.clone(), entry.from.clone(), verb, object, result, detail]
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Record {
    entries: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    at_ms: u64,
    who: Option<String>,
    role: Option<String>,
    serial: Option<String>,
    from: String,
    verb: String,
    object: Option<String>,
    result: String,
    detail: Option<String>,
}

fn document(entries: Vec<v1::AuditEntry>) -> Document<Record> {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let entry = |entry: v1::AuditEntry| Entry {
        at_ms: entry.at_ms,
        who: given(entry.who),
        role: given(entry.role),
        serial: given(entry.serial),
        from: entry.from,
        verb: entry.verb,
        object: given(entry.object),
        result: entry.result,
        detail: given(entry.detail),
    };
    Document::new(Record { entries: entries.into_iter().map(entry).collect() })
}

#[cfg(test)]
pub(super) fn example() -> serde_json::Value {
    let entry = v1::AuditEntry { at_ms: 1, who: "ada".into(), ..v1::AuditEntry::default() };
    serde_json::to_value(document(vec![entry])).unwrap_or_default()
}
