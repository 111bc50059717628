//! `qctl dev status`.

use proto::v1;
use serde::Serialize;

use super::place::Place;
use crate::client::Client;
use crate::context;
use crate::failure::{Exit, Failure, START};
use crate::output::{Format, print_json, print_line, print_yaml};
use crate::text::one_line;
use crate::view::Document;

#[derive(Serialize)]
struct Status {
    running: bool,
    ready: bool,
    pid: Option<u32>,
    endpoint: Option<String>,
    state_dir: String,
    processes: Vec<Process>,
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct Process {
    name: String,
    pid: u32,
    alive: bool,
}

#[derive(Serialize)]
struct Node {
    id: String,
    phase: String,
}

#[cfg(test)]
pub(crate) fn example() -> serde_json::Value {
    let status = Status {
        running: true,
        ready: true,
        pid: Some(1),
        endpoint: Some("https://127.0.0.1:1".into()),
        state_dir: "/s".into(),
        processes: vec![Process { name: "node-1".into(), pid: 2, alive: true }],
        nodes: vec![Node { id: "node-1".into(), phase: "ready".into() }],
    };
    serde_json::to_value(Document::new(status)).unwrap_or_default()
}

/// Says what runs; exit code 6 if nothing does.
pub(super) async fn run(place: &Place, format: Format) -> Result<(), Failure> {
    let record = place.record().filter(|record| record.supervisor.lives());
    let mut status = Status {
        running: record.is_some(),
        ready: record.as_ref().is_some_and(|record| record.ready),
        pid: record.as_ref().map(|record| record.supervisor.pid),
        endpoint: record.as_ref().map(|record| record.endpoint.clone()).filter(|endpoint| !endpoint.is_empty()),
        state_dir: place.root().display().to_string(),
        processes: Vec::new(),
        nodes: Vec::new(),
    };
    for child in record.iter().flat_map(|record| &record.children) {
        let (pid, alive) = (child.process.pid, child.process.lives());
        status.processes.push(Process { name: child.name.clone(), pid, alive });
    }
    if status.ready {
        let mut client = Client::of(&context::load(place.root())?)?;
        let nodes = client.nodes.list(v1::ListNodesRequest {}).await?.into_inner().nodes;
        status.nodes = nodes.into_iter().map(|node| Node { id: node.id, phase: node.phase }).collect();
    }
    match format {
        Format::Json => print_json(&Document::new(&status))?,
        Format::Yaml => print_yaml(&Document::new(&status))?,
        Format::Name => status.processes.iter().try_for_each(|process| print_line(&one_line(&process.name)))?,
        Format::Table | Format::Wide => lines(&status).iter().try_for_each(|line| print_line(line))?,
    }
    if status.running { Ok(()) } else { Err(Failure::new(Exit::Unreachable, "qctl dev does not run").hint(START)) }
}

fn lines(status: &Status) -> Vec<String> {
    let Some(pid) = status.pid else { return Vec::new() };
    let state = if status.ready { "ready" } else { "starting" };
    let endpoint = status.endpoint.as_deref().unwrap_or("not listening yet");
    let mut lines = vec![format!("{state}, process {pid}, controller at {endpoint}")];
    for process in &status.processes {
        let node = status.nodes.iter().find(|node| node.id == process.name);
        let state = if process.alive { "runs" } else { "is down" };
        let phase = node.map(|node| format!(", {}", node.phase)).unwrap_or_default();
        lines.push(one_line(&format!("  {} {state}, process {}{phase}", process.name, process.pid)));
    }
    lines
}
