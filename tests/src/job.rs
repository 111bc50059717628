//! Jobs, as the command line shows them.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::lab::Lab;
use crate::poll::until;
use crate::program::Outcome;

/// One event of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// 1, 2, 3, …
    pub seq: u64,
    /// Kind, by its stable name.
    pub kind: String,
    /// Controller's clock.
    pub at_ms: u64,
    /// Node, or empty.
    pub node: String,
    /// Stage, or empty.
    pub stage: String,
    /// Rank, if it is about one.
    pub rank: Option<u64>,
    /// One sentence.
    pub message: String,
    /// Lines that prove it.
    pub evidence: Vec<String>,
}

impl Lab {
    /// Writes a spec; returns its path.
    pub fn write(&self, spec: &Value) -> String {
        let file = self.root().join("pipeline.yaml");
        fs::write(&file, serde_json::to_string_pretty(spec).unwrap()).unwrap();
        file.to_string_lossy().into_owned()
    }

    /// Writes a spec and submits it with more words on the command line.
    pub fn submit(&self, spec: &Value, more: &[&str]) -> Outcome {
        let file = self.write(spec);
        let words = ["submit", "-f", &file].into_iter().chain(more.iter().copied());
        self.qctl_for(Duration::from_secs(120), words)
    }

    /// Submits a spec that is accepted; returns the job's id.
    pub fn accepted(&self, spec: &Value) -> String {
        self.submit(spec, &["-o", "name"]).ok().trim().to_owned()
    }

    /// Waits for a job's end; returns the exit code that says how it ended.
    pub fn wait(&self, job: &str, limit: Duration) -> i32 {
        self.qctl_for(limit, ["wait", job]).code
    }

    /// Waits for a job's success.
    ///
    /// # Panics
    ///
    /// With all that is known about the job if it ends otherwise.
    pub fn succeeds(&self, job: &str, limit: Duration) {
        let outcome = self.qctl_for(limit, ["wait", job]);
        assert_eq!(outcome.code, 0, "{outcome}\n{}\n{}", self.qctl(["describe", job]), self.qctl(["events", job]));
    }

    /// The whole of a job.
    pub fn describe(&self, job: &str) -> Value {
        parse(&self.qctl(["describe", job, "-o", "json"]).ok())
    }

    /// A job's phase.
    pub fn phase(&self, job: &str) -> String {
        text(&self.describe(job), "phase")
    }

    /// A job's history.
    pub fn events(&self, job: &str) -> Vec<Event> {
        let said = self.qctl(["events", job, "-o", "json"]).ok();
        said.lines().map(|line| Event::read(&parse(line))).collect()
    }

    /// The bytes of one rank's log as they were written.
    pub fn log(&self, job: &str, stage: &str, rank: u32) -> String {
        self.qctl(["logs", job, "--stage", stage, "--rank", &rank.to_string(), "-o", "raw"]).ok()
    }

    /// Waits until training has reached `iteration`, by the last rank's log.
    pub fn reaches(&self, job: &str, iteration: u64) {
        until(&format!("iteration {iteration}"), Duration::from_secs(60), || {
            iterations(&self.log(job, "train", 3)).last().is_some_and(|last| *last >= iteration).then_some(())
        });
    }
}

impl Event {
    /// One line of `qctl events -o json`.
    #[must_use]
    pub fn read(value: &Value) -> Self {
        let number = |key: &str| value[key].as_u64().unwrap_or_else(|| panic!("`{key}` is a number: {value}"));
        let evidence = value["evidence"].as_array().into_iter().flatten();
        Self {
            seq: number("seq"),
            kind: text(value, "kind"),
            at_ms: number("at_ms"),
            node: optional(value, "node"),
            stage: optional(value, "stage"),
            rank: value["rank"].as_u64(),
            message: text(value, "message"),
            evidence: evidence.filter_map(|line| Some(line.as_str()?.to_owned())).collect(),
        }
    }
}

/// A stage of a described job.
///
/// # Panics
///
/// If it has none of this name.
#[must_use]
pub fn stage<'a>(job: &'a Value, name: &str) -> &'a Value {
    let stages = job["stages"].as_array().into_iter().flatten();
    let mut found = stages.filter(|stage| stage["name"] == name);
    found.next().unwrap_or_else(|| panic!("no stage `{name}` in {job}"))
}

/// Numbers of Megatron's log lines, in order of appearance.
#[must_use]
pub fn iterations(log: &str) -> Vec<u64> {
    let lines = log.lines().filter_map(|line| {
        let (_, rest) = line.split_once("] iteration ")?;
        rest.split('/').next()?.trim().parse().ok()
    });
    lines.collect()
}

/// JSON, or a panic that shows it.
fn parse(said: &str) -> Value {
    serde_json::from_str(said).unwrap_or_else(|error| panic!("not JSON ({error}): {said}"))
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("`{key}` is a text: {value}")).to_owned()
}

fn optional(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}
