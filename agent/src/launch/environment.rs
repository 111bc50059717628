//! The variables of a job's processes.
//!
//! A daemon has no user's shell: what a login shell would have given is named
//! in the spec, sourced in a clean shell, and handed on as plain variables.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use proto::v1::Runtime;
use tokio::process::Command;

use crate::refusal::Refusal;

/// Variables that come from the agent's own environment.
const INHERITED: [&str; 8] = ["HOME", "PATH", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"];
/// How long the files to source may take.
const SOURCE_LIMIT: Duration = Duration::from_secs(60);
/// Most bytes of environment that are taken.
const LARGEST: usize = 1 << 20;
/// Where the MindSpeed repositories lie below their root, in the order of
/// PYTHONPATH that MindSpeed-Core-MS's own script sets.
const MINDSPEED: [&str; 5] = ["MindSpeed-LLM", "MSAdapter", "MSAdapter/msa_thirdparty", "MindSpeed", "Megatron-LM"];

/// Variables by name.
pub type Environment = BTreeMap<String, String>;

/// Gathers the environment that all processes of a job share.
///
/// Relative paths are seen from the runtime's `workdir`, wherever the agent was started.
///
/// # Errors
///
/// [`Refusal`] if a file to source fails, or a MindSpeed repository is missing.
pub async fn gather(runtime: &Runtime) -> Result<Environment, Refusal> {
    let mut env: Environment =
        INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    env.entry("PATH".into()).or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".into());
    let workdir = Path::new(&runtime.workdir);
    if !runtime.source.is_empty() {
        let seen = |file: &String| super::absolute(workdir, file).to_string_lossy().into_owned();
        let files: Vec<String> = runtime.source.iter().map(seen).collect();
        let sourced = source(&env, &files).await?;
        env.extend(sourced);
    }
    env.extend(runtime.env.clone());
    if !runtime.mindspeed_root.is_empty() {
        let root = super::absolute(workdir, &runtime.mindspeed_root);
        let path = python_path(&root, env.get("PYTHONPATH").map(String::as_str))?;
        env.insert("PYTHONPATH".into(), path);
    }
    Ok(env)
}

/// Sources `files` in a clean shell and returns what changed.
async fn source(base: &Environment, files: &[String]) -> Result<Environment, Refusal> {
    for file in files {
        if !Path::new(file).is_file() {
            return Err(Refusal::new(
                format!("file to source `{file}` is not there"),
                "correct `runtime.source`, or install what should have brought it",
            ));
        }
    }
    // The files are arguments, never part of the script.
    let script = r#"for f in "$@"; do . "$f" >&2 || { echo "qctl: sourcing $f failed" >&2; exit 1; }; done; env -0"#;
    let mut clean = Environment::new();
    for name in ["HOME", "PATH"] {
        clean.extend(base.get(name).map(|v| (name.to_owned(), v.clone())));
    }
    let mut command = Command::new("bash");
    command.args(["--noprofile", "--norc", "-c", script, "qctl"]).args(files);
    command.env_clear().envs(&clean).stdin(Stdio::null()).kill_on_drop(true);
    let named = files.join("`, `");
    let output = match tokio::time::timeout(SOURCE_LIMIT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(Refusal::new(format!("bash could not be started: {error}"), "install bash")),
        Err(_) => {
            let message = format!("sourcing `{named}` took more than {} s", SOURCE_LIMIT.as_secs());
            return Err(Refusal::new(message, "source it by hand and see what it waits for"));
        }
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = crate::watch::evidence::clean(said.trim().lines().last().unwrap_or_default());
        return Err(Refusal::new(
            format!("sourcing `{named}` failed: {last}"),
            "run `bash -c 'source FILE'` on the node to see all it says",
        ));
    }
    if output.stdout.len() > LARGEST {
        return Err(Refusal::new(format!("`{named}` leaves more than 1 MiB of environment"), ""));
    }
    let mut changed = Environment::new();
    for entry in output.stdout.split(|b| *b == 0) {
        let Ok(text) = std::str::from_utf8(entry) else { continue };
        let Some((name, value)) = text.split_once('=') else { continue };
        let of_the_shell = matches!(name, "_" | "SHLVL" | "PWD" | "OLDPWD");
        if !of_the_shell && clean.get(name).map(String::as_str) != Some(value) {
            changed.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(changed)
}

fn python_path(root: &Path, old: Option<&str>) -> Result<String, Refusal> {
    let mut parts = Vec::new();
    for name in MINDSPEED {
        let path = root.join(name);
        if !path.is_dir() {
            return Err(Refusal::new(
                format!("`{}` is no directory", path.display()),
                "runtime.mindspeed_root must hold MindSpeed-LLM, MSAdapter, MindSpeed and Megatron-LM",
            ));
        }
        parts.push(path.to_string_lossy().into_owned());
    }
    parts.extend(old.filter(|o| !o.is_empty()).map(str::to_owned));
    Ok(parts.join(":"))
}

/// Finds a program as a shell would: a path as seen from `workdir`, or a name
/// in the PATH of `env`.
///
/// # Errors
///
/// [`Refusal`] if there is no such executable file.
pub fn find_program(name: &str, workdir: &Path, env: &Environment) -> Result<PathBuf, Refusal> {
    let runs = |p: &Path| std::fs::metadata(p).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if name.contains('/') {
        let path = workdir.join(name);
        if runs(&path) {
            return Ok(path);
        }
        return Err(Refusal::new(format!("`{}` is no executable file", path.display()), "check the path on this node"));
    }
    let path = env.get("PATH").map(String::as_str).unwrap_or_default();
    path.split(':').filter(|d| !d.is_empty()).map(|d| Path::new(d).join(name)).find(|p| runs(p)).ok_or_else(|| {
        Refusal::new(
            format!("program `{name}` is not in PATH ({path})"),
            "give its absolute path, or set PATH in `runtime.env` or in a file of `runtime.source`",
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn sourced_files_and_variables_come_through_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let first = dir.path().join("a b.sh");
        fs::write(&first, "export TOOLKIT='x y\nz'\nexport PATH=/opt/t:$PATH\necho chatter\nUNEXPORTED=1\n").unwrap();
        let mut runtime = Runtime { source: vec![first.to_string_lossy().into_owned()], ..Runtime::default() };
        runtime.env.insert("MINE".into(), "1".into());
        let env = gather(&runtime).await.unwrap();
        assert_eq!(env.get("TOOLKIT").map(String::as_str), Some("x y\nz"));
        assert!(env["PATH"].starts_with("/opt/t:"));
        assert_eq!(env.get("MINE").map(String::as_str), Some("1"));
        assert!(!env.contains_key("UNEXPORTED") && !env.contains_key("CARGO_MANIFEST_DIR"));
    }

    #[tokio::test]
    async fn relative_paths_are_seen_from_the_workdir() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("set_env.sh"), "export TOOLKIT=here\n").unwrap();
        for name in MINDSPEED {
            fs::create_dir_all(dir.path().join("repositories").join(name)).unwrap();
        }
        let runtime = Runtime {
            workdir: dir.path().to_string_lossy().into_owned(),
            source: vec!["./set_env.sh".into()],
            mindspeed_root: "repositories".into(),
            ..Runtime::default()
        };
        let env = gather(&runtime).await.unwrap();
        assert_eq!(env.get("TOOLKIT").map(String::as_str), Some("here"));
        let first = dir.path().join("repositories/MindSpeed-LLM");
        assert!(env["PYTHONPATH"].starts_with(&*first.to_string_lossy()), "{}", env["PYTHONPATH"]);
    }

    #[tokio::test]
    async fn a_file_that_fails_is_refused_with_what_it_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bad.sh");
        fs::write(&file, "echo no toolkit here >&2\nreturn 3\n").unwrap();
        let runtime = Runtime { source: vec![file.to_string_lossy().into_owned()], ..Runtime::default() };
        let refusal = gather(&runtime).await.unwrap_err();
        assert!(refusal.message.contains("sourcing") && refusal.message.contains("failed"), "{refusal}");
        let missing = Runtime { source: vec!["/nowhere/set_env.sh".into()], ..Runtime::default() };
        assert_eq!(gather(&missing).await.unwrap_err().message, "file to source `/nowhere/set_env.sh` is not there");
    }

    #[test]
    fn the_repositories_come_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        assert!(python_path(dir.path(), None).is_err());
        for name in MINDSPEED {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let path = python_path(dir.path(), Some("/old")).unwrap();
        let root = dir.path().to_string_lossy().into_owned();
        let names: Vec<_> = path.split(':').map(|p| p.trim_start_matches(&root).trim_start_matches('/')).collect();
        assert_eq!(
            names,
            ["MindSpeed-LLM", "MSAdapter", "MSAdapter/msa_thirdparty", "MindSpeed", "Megatron-LM", "old"]
        );
    }

    #[test]
    fn programs_are_found_by_path_and_by_name() {
        let env = Environment::from([("PATH".to_owned(), "/nowhere:/bin".to_owned())]);
        assert_eq!(find_program("sh", Path::new("/"), &env).unwrap(), Path::new("/bin/sh"));
        assert_eq!(find_program("bin/sh", Path::new("/"), &env).unwrap(), Path::new("/bin/sh"));
        assert!(find_program("no-such-program", Path::new("/"), &env).is_err());
        assert!(find_program("/etc/passwd", Path::new("/"), &env).is_err());
    }
}
