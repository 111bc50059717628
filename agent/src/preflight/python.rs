//! The interpreter and MindSpore.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use proto::v1::{DeviceKind, Runtime};
use tokio::process::Command;

use super::Finding;
use crate::launch::{Environment, find_program, python_name};
use crate::refusal::Refusal;
use crate::watch::evidence;

/// How long the interpreter may take to say its version.
const VERSION_LIMIT: Duration = Duration::from_secs(30);
/// How long importing MindSpore may take; a cold file system is slow.
const IMPORT_LIMIT: Duration = Duration::from_secs(180);

/// What the interpreter prints before a value that is meant for us.
const ANSWER: &str = "qctl-answer ";

pub(super) async fn version(
    runtime: &Runtime,
    workdir: &Path,
    env: &Environment,
    required: Option<&String>,
) -> Finding {
    let name = python_name(&runtime.python);
    let script = "import sys; print('qctl-answer', '%d.%d.%d' % sys.version_info[:3], sys.executable)";
    match ask(name, workdir, env, script, VERSION_LIMIT).await {
        Err(refusal) => Finding::Fail(refusal),
        Ok(answer) => {
            let (version, path) = answer.split_once(' ').unwrap_or((answer.as_str(), name));
            judge_version("python", version, required, &format!(" ({path})"))
        }
    }
}

pub(super) async fn mindspore(
    runtime: &Runtime,
    workdir: &Path,
    env: &Environment,
    required: Option<&String>,
) -> Vec<Finding> {
    // The default device silently falls back to the CPU: it must be named.
    let device = if runtime.device() == DeviceKind::Ascend { "Ascend" } else { "CPU" };
    let script =
        format!("import mindspore\nmindspore.set_device('{device}')\nprint('qctl-answer', mindspore.__version__)\n");
    match ask(python_name(&runtime.python), workdir, env, &script, IMPORT_LIMIT).await {
        Err(refusal) => vec![Finding::Fail(Refusal::new(
            format!("MindSpore does not run on {device}: {}", refusal.message),
            format!(
                "`{} -c \"import mindspore; mindspore.set_device('{device}')\"` on the node shows all of it; is `runtime.python` the right interpreter?",
                python_name(&runtime.python)
            ),
        ))],
        Ok(version) => {
            vec![judge_version("mindspore", &version, required, ""), Finding::Ok(format!("mindspore runs on {device}"))]
        }
    }
}

/// A version fits if it is the required one, or the required one is its prefix
/// at a dot: `3.11` fits `3.11.7`, `3.1` does not.
fn fits(version: &str, required: &str) -> bool {
    version.strip_prefix(required).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn judge_version(what: &str, version: &str, required: Option<&String>, place: &str) -> Finding {
    match required {
        Some(required) if !fits(version, required) => Finding::Fail(Refusal::new(
            format!("{what} is {version}{place}, {required} is required"),
            format!("install {what} {required} on this node, or correct `preflight.require` and `runtime.python`"),
        )),
        Some(_) | None => Finding::Ok(format!("{what} {version}{place}")),
    }
}

async fn ask(
    python: &str,
    workdir: &Path,
    env: &Environment,
    script: &str,
    limit: Duration,
) -> Result<String, Refusal> {
    let program = find_program(python, workdir, env)?;
    let named = program.display().to_string();
    let mut command = Command::new(&program);
    command.args(["-c", script]).env_clear().envs(env).stdin(Stdio::null()).kill_on_drop(true);
    if workdir.is_dir() {
        command.current_dir(workdir);
    }
    let output = match tokio::time::timeout(limit, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(Refusal::new(format!("`{named}` could not be started: {error}"), "")),
        Err(_) => {
            return Err(Refusal::new(
                format!("`{named}` did not answer within {} s", limit.as_secs()),
                "is its file system slow or stuck?",
            ));
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let answer = text.lines().rev().find_map(|line| line.strip_prefix(ANSWER));
    if output.status.success()
        && let Some(answer) = answer
    {
        return Ok(evidence::clean(answer.trim()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<String> = said.lines().map(evidence::clean).filter(|l| !l.trim().is_empty()).collect();
    let last = evidence::sentence(&lines).map(str::to_owned).or_else(|| lines.last().cloned()).unwrap_or_default();
    Err(Refusal::new(format!("`{named}` failed ({}): {last}", output.status), "run it by hand on this node"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn versions_fit_at_dots() {
        for (version, required, fit) in
            [("3.11.7", "3.11", true), ("3.11.7", "3.11.7", true), ("3.11.7", "3.1", false), ("3.9", "3.11", false)]
        {
            assert_eq!(fits(version, required), fit, "{version} {required}");
        }
    }

    fn fake(dir: &Path, body: &str) -> Runtime {
        let python = dir.join("python");
        std::fs::write(&python, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
        Runtime { python: python.to_string_lossy().into_owned(), device: DeviceKind::Cpu.into(), ..Runtime::default() }
    }

    #[tokio::test]
    async fn an_interpreter_is_asked_and_its_complaint_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let env = Environment::from([("PATH".to_owned(), "/bin:/usr/bin".to_owned())]);
        let runtime = fake(dir.path(), "echo chatter; echo 'qctl-answer 3.10.2 /x/python'");
        let finding = version(&runtime, dir.path(), &env, None).await;
        assert_eq!(finding, Finding::Ok("python 3.10.2 (/x/python)".into()));
        let required = "3.11".to_owned();
        assert!(matches!(version(&runtime, dir.path(), &env, Some(&required)).await, Finding::Fail(_)));
        let runtime = fake(dir.path(), "echo \"ModuleNotFoundError: No module named 'mindspore'\" >&2; exit 1");
        let findings = mindspore(&runtime, dir.path(), &env, None).await;
        assert!(
            matches!(&findings[..], [Finding::Fail(r)] if r.message.contains("No module named 'mindspore'")),
            "{findings:?}"
        );
    }
}
