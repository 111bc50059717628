//! Engines: one process, progress as JSON lines on stdout.

use std::path::Path;

use proto::v1::EngineBody;
use serde::Serialize;

use super::{Ingredients, absolute};
use crate::refusal::Refusal;
use crate::shim::record::{self, Process};

/// Where a closing task finds its stage's other outputs.
const MANIFEST: &str = "manifest.json";

#[derive(Serialize)]
struct Entry<'a> {
    task: Part<'a>,
    path: &'a str,
}

/// Engines know their parts by position (a number) or by a name such as `TP,PP`.
#[derive(Serialize)]
#[serde(untagged)]
enum Part<'a> {
    Position(u64),
    Name(&'a str),
}

impl<'a> Part<'a> {
    fn of(task: &'a str) -> Self {
        task.parse().map_or(Self::Name(task), Self::Position)
    }
}

pub(super) fn process(from: &Ingredients<'_>, body: &EngineBody) -> Result<Process, Refusal> {
    let program = match body.tool.as_str() {
        "convert" => "qctl-convert",
        "tokenize" => "qctl-tokenize",
        other => return Err(Refusal::new(format!("engine `{other}` is not known here"), "update this node's agent")),
    };
    let program = from.bin_dir.join(program);
    if !program.is_file() {
        return Err(Refusal::new(
            format!("engine `{}` is not installed", program.display()),
            "install it beside qctl-agent, or set QCTL_BIN_DIR",
        ));
    }
    let mut argv = vec![program.to_string_lossy().into_owned()];
    argv.extend(body.args.iter().cloned());
    if !body.out_flag.is_empty() {
        make_parent(&absolute(&from.workdir()?, &body.out_prefix))?;
        argv.push(body.out_flag.clone());
        argv.push(format!("{}.{}", body.out_prefix, from.assignment.attempt));
    }
    if body.manifest {
        let path = from.seat_dir.join(MANIFEST);
        let entries: Vec<Entry<'_>> =
            from.assignment.manifest.iter().map(|e| Entry { task: Part::of(&e.task), path: &e.path }).collect();
        record::write(&path, &entries).map_err(|error| {
            Refusal::new(
                format!("`{}` could not be written: {error}", path.display()),
                "check space on this node's disk",
            )
        })?;
        argv.extend(["--manifest".to_owned(), path.to_string_lossy().into_owned()]);
    }
    argv.extend(["--progress".to_owned(), "json".to_owned()]);
    let mut env = from.environment.clone();
    env.insert("QCTL_ATTEMPT".into(), from.assignment.attempt.clone());
    Ok(Process {
        name: "stdout".into(),
        rank: Some(0),
        nested: false,
        argv,
        cwd: from.workdir()?,
        env,
        stdout: from.log("stdout"),
        stderr: from.log("stderr"),
    })
}

/// Engines write beside what is there; the directory of an attempt-named path is the agent's to make.
fn make_parent(out: &Path) -> Result<(), Refusal> {
    let Some(parent) = out.parent() else { return Ok(()) };
    std::fs::create_dir_all(parent).map_err(|error| {
        Refusal::new(
            format!("`{}` could not be made: {error}", parent.display()),
            "choose an output directory that the agent's user may write",
        )
    })
}
