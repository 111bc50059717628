//! What a job's file asks for.

use std::process::Stdio;
use std::time::Duration;

use proto::v1;
use serde::Deserialize;

use super::here::told;
use super::{Check, Verdict};
use crate::client::Client;
use crate::failure::Failure;
use crate::file::Source;
use crate::text::{plural, program};

/// How long an interpreter may take to import MindSpore.
const PATIENCE: Duration = Duration::from_secs(60);
/// Says the versions that a file may require.
const VERSIONS: &str = "\
import json, platform
import mindspore
print('qctl-doctor', json.dumps([platform.python_version(), mindspore.__version__]))";

/// The parts of a file that are looked at here; the rest is the controller's to judge.
#[derive(Debug, Default, Deserialize)]
struct File {
    runtime: Option<Runtime>,
    stages: Option<Stages>,
}

#[derive(Debug, Default, Deserialize)]
struct Runtime {
    python: Option<String>,
    #[serde(default)]
    source: serde_json::Value,
}

#[derive(Debug, Default, Deserialize)]
struct Stages {
    preflight: Option<Preflight>,
}

#[derive(Debug, Default, Deserialize)]
struct Preflight {
    require: Option<Require>,
}

#[derive(Debug, Default, Deserialize)]
struct Require {
    python: Option<String>,
    mindspore: Option<String>,
}

/// The file's plan, and the interpreter that it names.
pub(super) async fn all(source: &Source, mut client: Client, nodes: &[v1::NodeView]) -> Vec<Check> {
    let name = source.file.display().to_string();
    let submit = match source.request(None) {
        Ok(submit) => submit,
        Err(failure) => return vec![told("file", failure, "name the file with -f")],
    };
    let text = submit.spec.clone();
    let plan = match client.jobs.plan(v1::PlanRequest { submit: Some(submit) }).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => {
            let Failure::Told { message, hint, .. } = Failure::from(status) else { return Vec::new() };
            let refused = Check::new(Verdict::Fail, "file", message).of(&name);
            return vec![refused.next(hint.unwrap_or_else(|| "correct the file".to_owned()))];
        }
    };
    let mut checks = planned(&plan, &name);
    let file: File = serde_saphyr::from_str(&text).unwrap_or_default();
    checks.push(interpreter(&file, nodes).await);
    checks
}

fn planned(plan: &v1::PlanReply, name: &str) -> Vec<Check> {
    let mut checks = vec![Check::ok("file", plural(plan.stages.len(), "stage")).of(name)];
    let waits = |stage: &&v1::PlannedStage| {
        stage.reused_from.is_empty() && stage.tasks.iter().any(|task| task.placement.is_empty())
    };
    checks.extend(plan.stages.iter().filter(waits).map(|stage| {
        let told = "no nodes for it now: it would wait";
        Check::new(Verdict::Warn, "room", told).of(&stage.name).next(format!("see what is free: {} nodes", program()))
    }));
    let listed = [(Verdict::Warn, "warning", &plan.warnings), (Verdict::Unknown, "unseen", &plan.unseen)];
    for (verdict, check, list) in listed {
        checks.extend(list.iter().map(|line| {
            Check::new(verdict, check, line).of(name).next(format!("see the whole plan: {} plan -f {name}", program()))
        }));
    }
    checks
}

/// Asks the interpreter for its versions where agents would find the same one: on this host.
async fn interpreter(file: &File, nodes: &[v1::NodeView]) -> Check {
    let on_nodes = "the stage `preflight` checks it on every node before ranks start";
    let unknown = |why: String| Check::new(Verdict::Unknown, "python", why).next(on_nodes);
    let runtime = file.runtime.as_ref();
    let Some(python) = runtime.and_then(|runtime| runtime.python.clone()) else {
        return unknown("the file names no interpreter (runtime.python)".to_owned());
    };
    let here = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if nodes.is_empty() || nodes.iter().any(|node| node.hostname != here) {
        return unknown("there are nodes on other hosts".to_owned()).of(python);
    }
    let sourced = runtime.is_some_and(|runtime| runtime.source.as_array().is_some_and(|files| !files.is_empty()));
    if sourced {
        return unknown("files that the runtime sources decide what it imports".to_owned()).of(python);
    }
    let mut ask = tokio::process::Command::new(&python);
    ask.args(["-c", VERSIONS]).stdin(Stdio::null()).kill_on_drop(true);
    let said = match tokio::time::timeout(PATIENCE, ask.output()).await {
        Err(_) => return unknown(format!("it did not answer within {} s", PATIENCE.as_secs())).of(python),
        Ok(Err(error)) => {
            let failed = Check::new(Verdict::Fail, "python", format!("it does not start: {error}"));
            return failed.of(python).next("name an interpreter in runtime.python");
        }
        Ok(Ok(output)) => output,
    };
    let out = String::from_utf8_lossy(&said.stdout);
    let versions = out.lines().find_map(|line| line.strip_prefix("qctl-doctor "));
    match versions.and_then(|text| serde_json::from_str::<[String; 2]>(text).ok()) {
        Some(versions) => judged(&versions, file).of(python),
        None => {
            let error = String::from_utf8_lossy(&said.stderr);
            let last = error.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            let failed = Check::new(Verdict::Fail, "python", format!("MindSpore cannot be imported: {last}"));
            failed.of(python).next("install MindSpore into this environment, or name another in runtime.python")
        }
    }
}

/// Whether the versions are those that the file requires; a requirement may be the beginning of a version.
fn judged([python, mindspore]: &[String; 2], file: &File) -> Check {
    let require = file.stages.as_ref().and_then(|stages| stages.preflight.as_ref()?.require.as_ref());
    let wanted = [
        ("Python", python, require.and_then(|require| require.python.as_ref())),
        ("MindSpore", mindspore, require.and_then(|require| require.mindspore.as_ref())),
    ];
    let fits = |have: &str, wanted: &str| {
        have.strip_prefix(wanted).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    for (what, have, wanted) in wanted {
        if let Some(wanted) = wanted.filter(|wanted| !fits(have, wanted)) {
            let told = format!("{what} is {have}; the file requires {wanted}");
            let other = Check::new(Verdict::Fail, "python", told);
            return other.next("name another interpreter in runtime.python, or change stages.preflight.require");
        }
    }
    Check::ok("python", format!("Python {python}, MindSpore {mindspore}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn file(text: &str) -> File {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn versions_are_compared_part_by_part() {
        let have = ["3.11.7".to_owned(), "2.7.1".to_owned()];
        let table = [
            ("{}", Verdict::Ok),
            ("stages: { preflight: { require: { python: '3.11', mindspore: 2.7.1 } } }", Verdict::Ok),
            ("stages: { preflight: { require: { python: 3.11, cann: 8.2.RC2 } } }", Verdict::Ok),
            ("stages: { preflight: { require: { python: '3.1' } } }", Verdict::Fail),
            ("stages: { preflight: { require: { python: 3.10 } } }", Verdict::Fail),
            ("stages: { preflight: { require: { mindspore: 2.8.0 } } }", Verdict::Fail),
        ];
        for (text, verdict) in table {
            assert_eq!(judged(&have, &file(text)).verdict, verdict, "{text}");
        }
    }

    #[tokio::test]
    async fn an_interpreter_is_asked_where_agents_find_the_same_one() {
        let here = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let node = |hostname: &str| vec![v1::NodeView { hostname: hostname.into(), ..v1::NodeView::default() }];
        let none = file("runtime: { python: /nowhere/python }");
        let gone = interpreter(&none, &node(&here)).await;
        assert_eq!((gone.verdict, gone.subject.as_deref()), (Verdict::Fail, Some("/nowhere/python")));
        assert_eq!(interpreter(&none, &node("elsewhere")).await.verdict, Verdict::Unknown);
        let sourced = file("runtime: { python: /nowhere/python, source: [/x] }");
        assert_eq!(interpreter(&sourced, &node(&here)).await.verdict, Verdict::Unknown);
        assert_eq!(interpreter(&file("{}"), &node(&here)).await.verdict, Verdict::Unknown);
    }

    #[test]
    fn a_plan_that_would_wait_is_worth_a_look() {
        let stage = |placement: &[&str]| v1::PlannedStage {
            name: "train".into(),
            tasks: vec![v1::PlannedTask {
                placement: placement.iter().map(|node| (*node).to_owned()).collect(),
                ..v1::PlannedTask::default()
            }],
            ..v1::PlannedStage::default()
        };
        let plan = |placement| v1::PlanReply { stages: vec![stage(placement)], ..v1::PlanReply::default() };
        assert_eq!(planned(&plan(&["n1"]), "f").len(), 1);
        assert_eq!(planned(&plan(&[]), "f")[1].check, "room");
    }
}
