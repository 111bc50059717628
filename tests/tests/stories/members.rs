//! Users get in with tokens, touch their own jobs, and are out once they are revoked.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use stories::lab::Lab;
use stories::program::{Outcome, built, run};

const SOON: Duration = Duration::from_secs(60);

/// `qctl` of somebody with a state directory of their own.
fn other(lab: &Lab, who: &str, token: Option<&str>, words: &[&str]) -> Outcome {
    let mut qctl = Command::new(built("qctl"));
    qctl.arg("--state-dir").arg(lab.root().join(who)).args(words).current_dir(lab.root());
    if let Some(token) = token {
        qctl.env("QCTL_TOKEN", token);
    }
    run(&mut qctl, SOON)
}

/// Whether a file below `dir` contains `what`.
fn mentions(dir: &Path, what: &str) -> Option<std::path::PathBuf> {
    let entries = fs::read_dir(dir).ok()?;
    entries.flatten().find_map(|entry| {
        let (path, what_bytes) = (entry.path(), what.as_bytes());
        let kind = entry.file_type().ok()?;
        if kind.is_dir() {
            return mentions(&path, what);
        }
        let bytes = if kind.is_file() { fs::read(&path).ok()? } else { Vec::new() };
        bytes.windows(what_bytes.len()).any(|window| window == what_bytes).then_some(path)
    })
}

#[test]
fn a_user_gets_in_with_a_token_touches_own_jobs_and_is_out_once_revoked() {
    let lab = Lab::start();
    let made = lab.qctl(["token", "create", "--role", "user", "--name", "bob", "-o", "json"]).ok();
    let made: Value = serde_json::from_str(&made).unwrap();
    let (token, digest) = (made["token"].as_str().unwrap(), made["ca_digest"].as_str().unwrap());
    let context: Value = serde_json::from_str(&fs::read_to_string(lab.state().join("context.json")).unwrap()).unwrap();
    let url = context["endpoint"].as_str().unwrap();
    let login = ["login", "--controller", url, "--ca-digest", digest];
    // Another cluster's digest: the token is not sent.
    let mut wrong = login;
    wrong[4] = "blake3:00";
    assert!(other(&lab, "bob", Some(token), &wrong).code(7).stderr.contains("it was not sent"));
    let said = other(&lab, "bob", Some(token), &login).code(0);
    assert!(said.stderr.contains("you are user `bob`"), "{said}");
    assert!(other(&lab, "eve", Some(token), &login).code(7).stderr.contains("unknown or was used"));

    let spec = json!({"name": "ours", "workdir": lab.root(), "runtime": {"device": "cpu"},
        "stages": {"nap": {"run": {"argv": ["sleep", "600"]}}}});
    let job = lab.accepted(&spec);
    let refused = other(&lab, "bob", None, &["cancel", &job]).code(7);
    assert!(refused.stderr.contains("needs its owner or the role operator; `bob` is a user"), "{refused}");
    assert!(other(&lab, "bob", None, &["cordon", "node-1"]).code(7).stderr.contains("needs the role operator"));
    let _ = other(&lab, "bob", None, &["ps"]).ok();
    let _ = other(&lab, "bob", None, &["login", "--renew"]).ok();

    let revoked = lab.qctl(["revoke", "bob", "--reason", "left\u{1b}[2J"]).ok();
    assert!(revoked.contains("revoked user bob"), "{revoked}");
    let out = other(&lab, "bob", None, &["ps"]);
    assert_ne!(out.code, 0, "{out}");
    let listed = lab.qctl(["certs", "--name", "bob", "-o", "wide"]).ok();
    assert!(listed.contains("revoked") && !listed.contains('\u{1b}'), "{listed}");
    let record = lab.qctl(["audit", "--who", "bob", "-o", "json"]).ok();
    let record: Value = serde_json::from_str(&record).unwrap();
    let refused = |verb: &str| {
        let entries = record["entries"].as_array().unwrap().iter();
        entries.filter(|entry| entry["verb"] == verb && entry["result"] == "refused").count()
    };
    assert_eq!((refused("cancel"), refused("cordon")), (1, 1), "{record}");
    let _ = lab.qctl(["cancel", &job]).ok();
    assert_eq!(lab.wait(&job, SOON), 4);
    // The secret is in no file: not in a log, nor in what is remembered, nor with whoever used it.
    assert_eq!(mentions(lab.root(), token), None);
}
