//! `qctl nodes`.

use proto::v1;
use runtime::clock::now_ms;

use super::npus;
use super::watching::{Frame, watch};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Format, print_json, print_line, print_yaml, record, say};
use crate::table::{print_table, table_lines};
use crate::text::{bytes, duration, one_line};
use crate::view::{Document, Nodes, device};

/// How to list.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NodesArgs {
    /// One node, with its NPUs
    node: Option<String>,
    /// Goes on, and shows what changes
    #[arg(short, long)]
    watch: bool,
    /// How the list is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Lists nodes.
pub(crate) async fn run(args: &NodesArgs, mut client: Client) -> Result<(), Failure> {
    let mut list = async || -> Result<Vec<v1::NodeView>, Failure> {
        let nodes = client.nodes.list(v1::ListNodesRequest {}).await?.into_inner().nodes;
        chosen(nodes, args.node.as_deref())
    };
    if args.watch {
        let drawn = matches!(args.output, Format::Table | Format::Wide);
        return watch(drawn, async || frame(args.output, list().await?)).await;
    }
    let nodes = list().await?;
    match args.output {
        Format::Json => print_json(&document(nodes)),
        Format::Yaml => print_yaml(&document(nodes)),
        Format::Name => nodes.iter().try_for_each(|node| print_line(&one_line(&node.id))),
        Format::Table | Format::Wide if nodes.is_empty() => {
            say("no node has joined yet; start an agent: qctl-agent run --help");
            Ok(())
        }
        Format::Table | Format::Wide if args.node.is_some() => nodes.iter().try_for_each(npus::show),
        Format::Table => print_table(HEADER, nodes.iter().map(line).collect()),
        Format::Wide => print_table(WIDE, nodes.iter().map(wide).collect()),
    }
}

pub(super) const HEADER: [&str; 5] = ["NODE", "PHASE", "DEVICE", "SLOTS", "HEARD"];
const WIDE: [&str; 14] = [
    "NODE",
    "PHASE",
    "DEVICE",
    "SLOTS",
    "HEARD",
    "ADDRESS",
    "HOST",
    "VERSION",
    "CPUS",
    "MEMORY",
    "DISK FREE",
    "NPUS",
    "LABELS",
    "ATTEMPTS",
];

/// All nodes, or the one of this name.
fn chosen(mut nodes: Vec<v1::NodeView>, name: Option<&str>) -> Result<Vec<v1::NodeView>, Failure> {
    let Some(name) = name else { return Ok(nodes) };
    nodes.retain(|node| node.id == name);
    if nodes.is_empty() {
        let failure = Failure::new(Exit::NotFound, format!("no node `{}`", one_line(name)));
        return Err(failure.hint("`qctl nodes` lists them"));
    }
    Ok(nodes)
}

fn frame(format: Format, nodes: Vec<v1::NodeView>) -> Result<Frame, Failure> {
    let screen = match format {
        Format::Table => table_lines(HEADER, nodes.iter().map(line).collect()),
        Format::Wide => table_lines(WIDE, nodes.iter().map(wide).collect()),
        Format::Json | Format::Yaml | Format::Name => Vec::new(),
    };
    let records = match format {
        Format::Json | Format::Yaml => vec![record(&document(nodes), format)?],
        Format::Name => nodes.iter().map(|node| one_line(&node.id)).collect(),
        // Without the time of the last beat: a line is said again when something happened.
        Format::Table => nodes.iter().map(|node| one_line(&steady(line(node)))).collect(),
        Format::Wide => nodes.iter().map(|node| one_line(&steady(wide(node)))).collect(),
    };
    Ok(Frame { screen, records, over: false })
}

/// A row without what moves with every beat.
fn steady<const N: usize>(row: [String; N]) -> String {
    let moving = |name: &str| matches!(name, "HEARD" | "DISK FREE");
    let cells = WIDE.iter().zip(row).filter(|(name, cell)| !moving(name) && !cell.is_empty());
    cells.map(|(_, cell)| cell).collect::<Vec<_>>().join("  ")
}

fn document(nodes: Vec<v1::NodeView>) -> Document<Nodes> {
    Document::new(Nodes { nodes: nodes.into_iter().map(Into::into).collect() })
}

pub(super) fn line(node: &v1::NodeView) -> [String; 5] {
    let heard = match node.last_heard_ms {
        0 => "never".to_owned(),
        at => format!("{} ago", duration(now_ms().saturating_sub(at))),
    };
    let slots = format!("{}/{} used", node.slots_used, node.slots);
    [node.id.clone(), phase(node), device(node).to_owned(), slots, heard]
}

/// `ready`, `ready, draining`: how it is heard, and whether it gets work.
pub(super) fn phase(node: &v1::NodeView) -> String {
    let aside = match &node.cordon {
        _ if node.fence.is_some() => ", fenced",
        None => "",
        Some(cordon) if cordon.draining && cordon.empty => ", drained",
        Some(cordon) if cordon.draining => ", draining",
        Some(_) => ", cordoned",
    };
    let spare = if node.spare { ", spare" } else { "" };
    format!("{}{aside}{spare}", node.phase)
}

fn wide(node: &v1::NodeView) -> [String; 14] {
    let [id, phase, device, slots, heard] = line(node);
    let disk = node.health.as_ref().map(|health| bytes(health.disk_free)).unwrap_or_default();
    let mut attempts = node.attempts.join(" ");
    if !node.quarantined.is_empty() {
        attempts.push_str(&format!(" (unknown: {})", node.quarantined.join(" ")));
    }
    let (address, host, version) = (node.address.clone(), node.hostname.clone(), node.version.clone());
    let mut labels: Vec<String> = node.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.sort();
    let labels = labels.join(" ");
    let (cpus, memory) = (node.cpus.to_string(), bytes(node.memory));
    [id, phase, device, slots, heard, address, host, version, cpus, memory, disk, npus::summary(node), labels, attempts]
}
