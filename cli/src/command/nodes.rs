//! `qctl nodes`.

use proto::v1;
use runtime::clock::now_ms;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Format, print_json, print_line, print_yaml, say};
use crate::table::print_table;
use crate::text::{bytes, duration, one_line};
use crate::view::{Document, Nodes, device};

/// How to list.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NodesArgs {
    /// How the list is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Lists nodes.
pub(crate) async fn run(args: &NodesArgs, mut client: Client) -> Result<(), Failure> {
    let nodes = client.nodes.list(v1::ListNodesRequest {}).await?.into_inner().nodes;
    match args.output {
        Format::Json => print_json(&Document::new(Nodes { nodes: nodes.into_iter().map(Into::into).collect() })),
        Format::Yaml => print_yaml(&Document::new(Nodes { nodes: nodes.into_iter().map(Into::into).collect() })),
        Format::Name => nodes.iter().try_for_each(|node| print_line(&one_line(&node.id))),
        Format::Table | Format::Wide if nodes.is_empty() => {
            say("no node has joined yet; start an agent: qctl-agent run --help");
            Ok(())
        }
        Format::Table => print_table(["NODE", "PHASE", "DEVICE", "SLOTS", "HEARD"], nodes.iter().map(line).collect()),
        Format::Wide => {
            let header = [
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
                "ATTEMPTS",
            ];
            print_table(header, nodes.iter().map(wide).collect())
        }
    }
}

fn line(node: &v1::NodeView) -> [String; 5] {
    let heard = match node.last_heard_ms {
        0 => "never".to_owned(),
        at => format!("{} ago", duration(now_ms().saturating_sub(at))),
    };
    let slots = format!("{}/{} used", node.slots_used, node.slots);
    [node.id.clone(), node.phase.clone(), device(node).to_owned(), slots, heard]
}

fn wide(node: &v1::NodeView) -> [String; 12] {
    let [id, phase, device, slots, heard] = line(node);
    let disk = node.health.as_ref().map(|health| bytes(health.disk_free)).unwrap_or_default();
    let mut attempts = node.attempts.join(" ");
    if !node.quarantined.is_empty() {
        attempts.push_str(&format!(" (unknown: {})", node.quarantined.join(" ")));
    }
    let (address, host, version) = (node.address.clone(), node.hostname.clone(), node.version.clone());
    let (cpus, memory) = (node.cpus.to_string(), bytes(node.memory));
    [id, phase, device, slots, heard, address, host, version, cpus, memory, disk, attempts]
}
