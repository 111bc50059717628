//! docs/json.md is the contract: every key that is written stands there, and every key that
//! stands there is written.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proto::v1;
use serde_json::Value;

use super::{Checkpoint, Checkpoints, Document, Event, Job, JobLine, Jobs, LogLine, Node, Nodes, Plan};

/// Keys of a section, and whether each is described in a section of its own.
type Section = BTreeMap<String, bool>;

fn documented() -> BTreeMap<String, Section> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/json.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    let mut title = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            title = name.trim_matches('`').to_owned();
        } else if let Some(row) = line.strip_prefix("| `") {
            let (key, rest) = row.split_once('`').unwrap();
            let again = sections.entry(title.clone()).or_default().insert(key.to_owned(), rest.contains("](#"));
            assert!(again.is_none(), "`{key}` stands twice in `{title}`");
        }
    }
    sections
}

fn keys(value: &Value, prefix: &str, section: &Section, found: &mut BTreeSet<String>) {
    let Value::Object(fields) = value else { return };
    for (name, field) in fields {
        let key = format!("{prefix}{name}");
        found.insert(key.clone());
        if section.get(&key) == Some(&true) {
            continue;
        }
        if let Value::Array(items) = field {
            items.iter().for_each(|item| keys(item, &format!("{key}[]."), section, found));
        } else {
            keys(field, &format!("{key}."), section, found);
        }
    }
}

/// A job with everything that a job can have.
fn job() -> v1::JobView {
    let failure = || Some(v1::FailureView::default());
    let task = v1::TaskView {
        seats: vec![v1::SeatView::default()],
        files: vec![v1::FileRecord::default()],
        history: vec![v1::AttemptView { failure: failure(), ..v1::AttemptView::default() }],
        failure: failure(),
        ..v1::TaskView::default()
    };
    let stage = v1::StageView {
        progress: Some(v1::EngineProgress::default()),
        train: Some(v1::TrainProgress::default()),
        task_views: vec![task],
        ..v1::StageView::default()
    };
    v1::JobView { stages: vec![stage], failure: failure(), ..v1::JobView::default() }
}

fn written() -> Vec<(&'static str, Value)> {
    let value = |document: &dyn erased::Written| document.value();
    let full = value(&Job::from(job()));
    let npus = v1::NpuHealth {
        npus: vec![v1::Npu::default()],
        processes: vec![v1::NpuProcess::default()],
        ..v1::NpuHealth::default()
    };
    let (cordon, fence) = (Some(v1::CordonView::default()), Some(v1::FenceView::default()));
    let node = v1::NodeView { cordon, fence, npus: Some(npus), ..v1::NodeView::default() };
    let task = v1::PlannedTask { commands: vec![v1::CommandLine::default()], ..v1::PlannedTask::default() };
    let stage = v1::PlannedStage { tasks: vec![task], ..v1::PlannedStage::default() };
    let plan = v1::PlanReply { stages: vec![stage], ..v1::PlanReply::default() };
    let line = LogLine { stage: "", attempt: "", node: "", source: "", offset: 0, at_ms: Some(1), text: "".into() };
    let mut all = vec![
        ("qctl ps", value(&Document::new(Jobs { jobs: vec![JobLine::from(job())] }))),
        ("Job in a listing", value(&JobLine::from(job()))),
        ("qctl describe", value(&Document::new(Job::from(job())))),
        ("Stage", full["stages"][0].clone()),
        ("Task", full["stages"][0]["tasks"][0].clone()),
        ("Failure", full["failure"].clone()),
        ("qctl nodes", value(&Document::new(Nodes { nodes: vec![node.clone().into()] }))),
        ("Node", value(&Node::from(node))),
        (
            "qctl ckpt ls",
            value(&Document::new(Checkpoints { checkpoints: vec![v1::CheckpointView::default().into()] })),
        ),
        ("Checkpoint", value(&Checkpoint::from(v1::CheckpointView::default()))),
        ("qctl events", value(&Event::from(v1::EventView::default()))),
        ("qctl logs", value(&line)),
        ("qctl plan", value(&Document::new(Plan::from(plan)))),
    ];
    all.extend(crate::command::examples());
    all
}

mod erased {
    /// What can be written as JSON, whatever its type.
    pub(super) trait Written {
        fn value(&self) -> serde_json::Value;
    }

    impl<T: serde::Serialize> Written for T {
        fn value(&self) -> serde_json::Value {
            serde_json::to_value(self).unwrap()
        }
    }
}

#[test]
fn every_key_that_is_written_is_documented_and_the_other_way_round() {
    let documented = documented();
    let written = written();
    let titles: BTreeSet<&str> = written.iter().map(|(title, _)| *title).collect();
    assert_eq!(documented.keys().map(String::as_str).collect::<BTreeSet<_>>(), titles, "sections of docs/json.md");
    for (title, value) in written {
        let section = &documented[title];
        let mut found = BTreeSet::new();
        keys(&value, "", section, &mut found);
        let told: BTreeSet<String> = section.keys().cloned().collect();
        let gone: Vec<_> = told.difference(&found).collect();
        assert!(gone.is_empty(), "docs/json.md promises keys of `{title}` that are not written: {gone:?}");
        let new: Vec<_> = found.difference(&told).collect();
        assert!(new.is_empty(), "docs/json.md does not tell about these keys of `{title}`: {new:?}");
    }
}
