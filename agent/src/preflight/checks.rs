//! The single checks.

use std::fs::File;
use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};

use proto::v1::{Assignment, DeviceKind, PreflightBody, Runtime};

use super::{Finding, npu, python};
use crate::launch::{Environment, absolute};
use crate::refusal::Refusal;

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Workdir,
    Environment,
    Python,
    MindSpore,
    Script,
    Readable(String),
    Writable(String),
    Hostname,
    Devices,
    /// A version that a package's file tells.
    Version(String),
    /// A version is asked for that cannot be looked up here.
    Unknown(String),
}

/// What a preflight looks at, in order.
pub(super) fn plan(assignment: &Assignment, body: &PreflightBody) -> Vec<Check> {
    let mut plan = vec![Check::Workdir, Check::Environment];
    let needs_python = body.needs_mindspore || !body.train_script.is_empty() || body.require.contains_key("python");
    if needs_python {
        plan.push(Check::Python);
    }
    if body.needs_mindspore || body.require.contains_key("mindspore") {
        plan.push(Check::MindSpore);
    }
    if !body.train_script.is_empty() {
        plan.push(Check::Script);
    }
    plan.extend(body.readable.iter().cloned().map(Check::Readable));
    plan.extend(body.writable.iter().cloned().map(Check::Writable));
    plan.push(Check::Hostname);
    let on_ascend = runtime_of(assignment).device() == DeviceKind::Ascend;
    if on_ascend {
        plan.push(Check::Devices);
    }
    let others = body.require.keys().filter(|name| !matches!(name.as_str(), "python" | "mindspore"));
    let check = |name: &String| {
        let is_known = npu::VERSIONS.contains(&name.as_str());
        if is_known { Check::Version(name.clone()) } else { Check::Unknown(name.clone()) }
    };
    plan.extend(others.map(check));
    plan
}

fn runtime_of(assignment: &Assignment) -> Runtime {
    assignment.runtime.clone().unwrap_or_default()
}

/// Looks at one thing.
pub(super) async fn run(
    check: &Check,
    assignment: &Assignment,
    body: &PreflightBody,
    env: &Environment,
    (npus, slots): (&npu::Seen, u32),
) -> Vec<Finding> {
    let runtime = runtime_of(assignment);
    let workdir = PathBuf::from(&runtime.workdir);
    let seen = |path: &str| absolute(&workdir, path);
    match check {
        Check::Workdir => vec![directory(&workdir)],
        Check::Environment => Vec::new(),
        Check::Python => vec![python::version(&runtime, &workdir, env, body.require.get("python")).await],
        Check::MindSpore => python::mindspore(&runtime, &workdir, env, body.require.get("mindspore")).await,
        Check::Script => vec![script(&seen(&body.train_script))],
        Check::Readable(path) => vec![readable(&seen(path))],
        Check::Writable(path) => vec![writable(&seen(path), body.free_bytes)],
        Check::Hostname => vec![hostname()],
        Check::Devices => npus.devices(assignment, slots),
        Check::Version(name) => npus.version(name, body),
        Check::Unknown(name) => vec![unknown(name, body)],
    }
}

fn directory(path: &Path) -> Finding {
    if path.is_dir() {
        return Finding::Ok(format!("workdir {}", path.display()));
    }
    Finding::Fail(Refusal::new(
        format!("workdir `{}` is no directory on this node", path.display()),
        "create it on every node, or correct `workdir` in the spec",
    ))
}

fn script(path: &Path) -> Finding {
    if path.is_file() && File::open(path).is_ok() {
        return Finding::Ok(format!("script {}", path.display()));
    }
    Finding::Fail(Refusal::new(
        format!("training script `{}` is not there or cannot be read", path.display()),
        "correct `train.script`; it is seen from `workdir` on every node",
    ))
}

fn readable(path: &Path) -> Finding {
    let opened = if path.is_dir() { path.read_dir().map(drop) } else { File::open(path).map(drop) };
    match opened {
        Ok(()) => Finding::Ok(format!("readable {}", path.display())),
        Err(error) => Finding::Fail(Refusal::new(
            format!("`{}` cannot be read: {error}", path.display()),
            "copy it to this node, correct the path, or its permissions",
        )),
    }
}

fn writable(path: &Path, wanted: u64) -> Finding {
    let there = match crate::seat::writable(path) {
        Ok(there) => there,
        Err(refusal) => return Finding::Fail(refusal),
    };
    match free_bytes(&there) {
        Some(free) if free < wanted => Finding::Fail(Refusal::new(
            format!("`{}` has {free} bytes free, {wanted} are wanted", there.display()),
            "free some space, or choose a directory on a larger disk",
        )),
        Some(free) => Finding::Ok(format!("writable {} ({free} bytes free)", path.display())),
        None => Finding::Note(format!("writable {} (free space unknown)", path.display())),
    }
}

/// Bytes that an ordinary user may still write below `path`.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// MindSpore counts local ranks by equal host names, and looks the name up.
fn hostname() -> Finding {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    match (name.as_str(), 0).to_socket_addrs().map(|mut a| a.next()) {
        Ok(Some(address)) if address.ip().is_loopback() => {
            Finding::Note(format!("hostname {name} resolves to the loopback address {}", address.ip()))
        }
        Ok(Some(address)) => Finding::Ok(format!("hostname {name} resolves to {}", address.ip())),
        Ok(None) | Err(_) => Finding::Note(format!("hostname {name} does not resolve; add it to /etc/hosts")),
    }
}

fn unknown(name: &str, body: &PreflightBody) -> Finding {
    let version = body.require.get(name).cloned().unwrap_or_default();
    Finding::Fail(Refusal::new(
        format!("the version of `{name}` cannot be checked yet (`{version}` is required)"),
        format!("remove `{name}` from `preflight.require`"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_fails_and_names_itself() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("there");
        std::fs::write(&there, "x").unwrap();
        assert!(matches!(readable(&there), Finding::Ok(_)));
        assert!(matches!(readable(dir.path()), Finding::Ok(_)));
        assert!(matches!(readable(&dir.path().join("gone")), Finding::Fail(r) if r.message.contains("gone")));
        assert!(matches!(writable(&dir.path().join("new"), 1), Finding::Ok(_)));
        assert!(matches!(writable(dir.path(), u64::MAX), Finding::Fail(r) if r.message.contains("bytes free")));
        assert!(matches!(directory(&there), Finding::Fail(_)));
        assert!(matches!(script(&there), Finding::Ok(_)));
    }

    #[test]
    fn only_what_the_job_needs_is_looked_at() {
        let runtime = Runtime { device: DeviceKind::Cpu.into(), ..Runtime::default() };
        let assignment = Assignment { runtime: Some(runtime), ..Assignment::default() };
        let plain = plan(&assignment, &PreflightBody::default());
        assert_eq!(plain, [Check::Workdir, Check::Environment, Check::Hostname]);
        let require = ["cann", "glibc"].map(|name| (name.to_owned(), "8.2.RC2".to_owned())).into();
        let body = PreflightBody { require, needs_mindspore: true, ..PreflightBody::default() };
        let full = plan(&assignment, &body);
        assert!(full.contains(&Check::Python) && full.contains(&Check::MindSpore));
        assert!(full.contains(&Check::Version("cann".into())) && full.contains(&Check::Unknown("glibc".into())));
        assert!(!full.contains(&Check::Devices));
    }
}
