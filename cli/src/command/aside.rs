//! `qctl cordon`, `qctl uncordon`, `qctl drain` and `qctl node`: nodes set aside.

use clap_complete::ArgValueCompleter;
use proto::v1;
use runtime::clock::now_ms;

use super::completion;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::moment::span;
use crate::output::{print_line, say};
use crate::text::{duration, one_line, plural, program};

/// Which nodes, and why.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "What runs there goes on.\n\nExample:\n  qctl cordon node-7 --reason \"NPU 3 is being replaced\""
)]
pub(crate) struct CordonArgs {
    /// The nodes
    #[arg(required = true, value_name = "NODE", add = ArgValueCompleter::new(completion::nodes))]
    nodes: Vec<String>,
    /// Why, for those who wait for the node
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// Which nodes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  qctl uncordon node-7")]
pub(crate) struct UncordonArgs {
    /// The nodes
    #[arg(required = true, value_name = "NODE", add = ArgValueCompleter::new(completion::nodes))]
    nodes: Vec<String>,
}

/// Which nodes, why, and until when.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Without a deadline everything that runs there may finish. `qctl nodes -w` shows when it is empty.

Example:
  qctl drain node-7 --deadline 2h --reason \"new driver\"")]
pub(crate) struct DrainArgs {
    /// The nodes
    #[arg(required = true, value_name = "NODE", add = ArgValueCompleter::new(completion::nodes))]
    nodes: Vec<String>,
    /// What still runs after this time is stopped and runs elsewhere, as in `30m`, `2h`
    #[arg(long, value_name = "TIME", value_parser = span)]
    deadline: Option<u64>,
    /// Why, for those who wait for the node
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// What is said of nodes.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum NodeCommand {
    /// Says that silent hosts do not run any more: what they ran runs elsewhere at once
    Fence(FenceArgs),
    /// Keeps nodes for replacements of lost or failed ones
    Spare(SpareArgs),
}

/// Which nodes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
A spare gets no work but the place of a node that is lost, set aside or has failed. What runs there goes on. The word
goes before `spare` in the node's agent.toml.

Example:
  qctl node spare node-8")]
pub(crate) struct SpareArgs {
    /// The nodes
    #[arg(required = true, value_name = "NODE", add = ArgValueCompleter::new(completion::nodes))]
    nodes: Vec<String>,
    /// Lets them take any work again
    #[arg(long)]
    off: bool,
}

/// Which nodes, and why.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
For hosts that are known to be off or cut from power. Without it a silent node's training is replaced only once its
other ranks have stopped and a margin for a save in flight has passed; with it at once. If the host runs on all the
same, two attempts may write beside each other: a node that speaks is therefore refused (`qctl drain` empties it).

Its devices are free again when it is back: at once after a reboot, else when what it still ran has been stopped and
`qctl uncordon` was said.

Example:
  qctl node fence node-7 --reason \"power supply\"")]
pub(crate) struct FenceArgs {
    /// The nodes
    #[arg(required = true, value_name = "NODE", add = ArgValueCompleter::new(completion::nodes))]
    nodes: Vec<String>,
    /// Why, for those who wait for the node
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// Says something of nodes.
pub(crate) async fn node(command: &NodeCommand, mut client: Client) -> Result<(), Failure> {
    match command {
        NodeCommand::Fence(FenceArgs { nodes, reason }) => {
            each(nodes, async |node| {
                let request = v1::FenceRequest { node, reason: reason.clone() };
                Ok(client.nodes.fence(request).await?.into_inner())
            })
            .await
        }
        NodeCommand::Spare(SpareArgs { nodes, off }) => {
            each(nodes, async |node| Ok(client.nodes.spare(v1::SpareRequest { node, spare: !off }).await?.into_inner()))
                .await
        }
    }
}

/// Keeps new work away.
pub(crate) async fn cordon(args: &CordonArgs, mut client: Client) -> Result<(), Failure> {
    each(&args.nodes, async |node| {
        let request = v1::CordonRequest { node, reason: args.reason.clone() };
        Ok(client.nodes.cordon(request).await?.into_inner())
    })
    .await
}

/// Lets work come again.
pub(crate) async fn uncordon(args: &UncordonArgs, mut client: Client) -> Result<(), Failure> {
    each(&args.nodes, async |node| Ok(client.nodes.uncordon(v1::UncordonRequest { node }).await?.into_inner())).await
}

/// Keeps new work away, and empties the nodes.
pub(crate) async fn drain(args: &DrainArgs, mut client: Client) -> Result<(), Failure> {
    each(&args.nodes, async |node| {
        let request = v1::DrainRequest { node, reason: args.reason.clone(), deadline_ms: args.deadline };
        Ok(client.nodes.drain(request).await?.into_inner())
    })
    .await
}

/// One after the other; a node that is refused does not spare the others.
async fn each(
    nodes: &[String],
    mut change: impl AsyncFnMut(String) -> Result<v1::NodeReply, Failure>,
) -> Result<(), Failure> {
    let mut first = None;
    for node in nodes {
        match change(node.clone()).await {
            Ok(reply) => print_line(&told(node, &reply, now_ms()))?,
            Err(failure) if nodes.len() == 1 => return Err(failure),
            Err(Failure::Told { exit, message, hint }) => {
                say(&format!("error: {}", one_line(&message)));
                hint.iter().for_each(|hint| say(&format!("hint: {}", one_line(hint))));
                first.get_or_insert(Failure::Said(exit));
                if exit == Exit::Unreachable {
                    break;
                }
            }
            Err(other) => return Err(other),
        }
    }
    first.map_or(Ok(()), Err)
}

fn told(word: &str, reply: &v1::NodeReply, now_ms: u64) -> String {
    let node = reply.node.clone().unwrap_or_default();
    let cordon = node.cordon.clone().unwrap_or_default();
    let runs = plural(node.attempts.len(), "attempt");
    let rest = match reply.outcome.as_str() {
        "draining" if node.attempts.is_empty() => ": it is empty".to_owned(),
        "draining" if cordon.deadline_ms > 0 => {
            let left = duration(cordon.deadline_ms.saturating_sub(now_ms));
            format!(": {runs} may finish for {left}; see: {} nodes -w", program())
        }
        "draining" => format!(": {runs} may finish; see: {} nodes -w", program()),
        "cordoned" | "spare" if !node.attempts.is_empty() => format!(": {runs} may go on there"),
        _ => String::new(),
    };
    one_line(&format!("{word} {}{rest}", reply.outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_what_still_runs_there() {
        let reply = |outcome: &str, attempts: usize, deadline_ms| v1::NodeReply {
            outcome: outcome.into(),
            node: Some(v1::NodeView {
                attempts: vec!["j1.a.0.1".into(); attempts],
                cordon: Some(v1::CordonView { deadline_ms, ..v1::CordonView::default() }),
                ..v1::NodeView::default()
            }),
        };
        let table = [
            (reply("cordoned", 0, 0), "n1 cordoned"),
            (reply("cordoned", 2, 0), "n1 cordoned: 2 attempts may go on there"),
            (reply("draining", 0, 0), "n1 draining: it is empty"),
            (reply("draining", 1, 61_000), "n1 draining: 1 attempt may finish for 1 m 0 s; see: qctl nodes -w"),
            (reply("uncordoned", 1, 0), "n1 uncordoned"),
        ];
        for (reply, text) in table {
            assert_eq!(told("n1", &reply, 1000), text);
        }
    }
}
