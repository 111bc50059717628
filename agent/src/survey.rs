//! Read-only questions about files that only this node may see.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use proto::v1::{FileRecord, SurveyAnswer, SurveyError, SurveyRequest};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::launch::absolute;
use crate::watch::evidence::clean;

/// How long one description may take.
const LIMIT: Duration = Duration::from_secs(50);
/// Largest description that is passed on.
const LARGEST: u64 = 4 << 20;
/// Most files that are digested.
const MOST_DIGESTS: usize = 64;
/// Most bytes that are digested in all.
const MOST_BYTES: u64 = 1 << 30;
/// Most dataset files that are described.
const MOST_FILES: usize = 1024;

/// Answers one request.
///
/// `dataset_json` has one entry for each dataset file, in order, and one more
/// about the tokenizer if that was asked for: empty where something could not
/// be described, so that a missing file casts no doubt on the tokenizer.
pub async fn answer(bin_dir: &Path, request: SurveyRequest) -> SurveyAnswer {
    let mut answer = SurveyAnswer { id: request.id, ..SurveyAnswer::default() };
    let workdir = PathBuf::from(&request.workdir);
    if !workdir.is_absolute() {
        answer.errors.push(error("workdir", format!("`{}` is not absolute", clean(&request.workdir)), ""));
        return answer;
    }
    let seen = |path: &str| absolute(&workdir, path).to_string_lossy().into_owned();
    if !request.hf_dir.is_empty() {
        let args = ["describe".to_owned(), "--hf-dir".to_owned(), seen(&request.hf_dir)];
        match describe(&bin_dir.join("qctl-convert"), &args).await {
            Ok(json) => answer.model_json = json,
            Err(failed) => answer.errors.push(SurveyError { subject: request.hf_dir.clone(), ..failed }),
        }
    }
    let mut questions: Vec<(String, Vec<String>)> = Vec::new();
    for file in request.dataset_files.iter().take(MOST_FILES) {
        questions.push((file.clone(), vec!["describe".to_owned(), "--input".to_owned(), seen(file)]));
    }
    if !request.tokenizer_dir.is_empty() {
        let args = ["describe", "--tokenizer-name-or-path"].map(str::to_owned);
        let args = args.into_iter().chain([seen(&request.tokenizer_dir)]).collect();
        questions.push((request.tokenizer_dir.clone(), args));
    }
    for (subject, args) in questions {
        match describe(&bin_dir.join("qctl-tokenize"), &args).await {
            Ok(json) => answer.dataset_json.push(json),
            Err(failed) => {
                answer.dataset_json.push(String::new());
                answer.errors.push(SurveyError { subject, ..failed });
            }
        }
    }
    let files: Vec<(String, PathBuf)> =
        request.digest_files.iter().take(MOST_DIGESTS).map(|f| (f.clone(), absolute(&workdir, f))).collect();
    match tokio::task::spawn_blocking(move || digest_all(&files)).await {
        Ok((digests, errors)) => {
            answer.digests = digests;
            answer.errors.extend(errors);
        }
        Err(failed) => answer.errors.push(error("digests", failed.to_string(), "")),
    }
    answer
}

fn error(subject: &str, message: String, hint: &str) -> SurveyError {
    SurveyError { subject: subject.to_owned(), message, hint: hint.to_owned() }
}

/// Runs an engine's `describe` and returns the JSON that it prints.
async fn describe(program: &Path, args: &[String]) -> Result<String, SurveyError> {
    let named = program.display();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|failed| {
        error(
            "",
            format!("`{named}` could not be started: {failed}"),
            "install it beside qctl-agent, or set QCTL_BIN_DIR",
        )
    })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let mut said = Vec::new();
        let mut complaint = Vec::new();
        let out = async {
            match stdout {
                Some(pipe) => pipe.take(LARGEST + 1).read_to_end(&mut said).await.map(drop),
                None => Ok(()),
            }
        };
        let err = async {
            match stderr {
                Some(pipe) => pipe.take(64 << 10).read_to_end(&mut complaint).await.map(drop),
                None => Ok(()),
            }
        };
        let (out, err) = tokio::join!(out, err);
        out.and(err)?;
        Ok::<_, std::io::Error>((child.wait().await?, said, complaint))
    };
    let (status, said, complaint) = match tokio::time::timeout(LIMIT, work).await {
        Ok(Ok(done)) => done,
        Ok(Err(failed)) => return Err(error("", format!("`{named}` could not be read: {failed}"), "")),
        Err(_) => {
            let message = format!("it could not be described within {} s", LIMIT.as_secs());
            return Err(error("", message, "is its file system slow or stuck?"));
        }
    };
    let said = String::from_utf8_lossy(&said).into_owned();
    if u64::try_from(said.len()).unwrap_or(u64::MAX) > LARGEST {
        return Err(error("", "its description is larger than 4 MiB".into(), ""));
    }
    let json = said.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default().trim().to_owned();
    if status.success() && serde_json::from_str::<serde_json::Value>(&json).is_ok_and(|v| v.is_object()) {
        return Ok(json);
    }
    let complaint = String::from_utf8_lossy(&complaint);
    let find = |start: &str| complaint.lines().find_map(|l| l.strip_prefix(start)).map(clean);
    let message = find("error: ").or_else(|| complaint.lines().rev().find(|l| !l.trim().is_empty()).map(clean));
    let message = message.unwrap_or_else(|| format!("`{named}` failed: {status}"));
    Err(error("", message, &find("hint: ").unwrap_or_default()))
}

fn digest_all(files: &[(String, PathBuf)]) -> (Vec<FileRecord>, Vec<SurveyError>) {
    let (mut digests, mut errors) = (Vec::new(), Vec::new());
    let mut budget = MOST_BYTES;
    for (name, path) in files {
        match digest(path, budget) {
            Ok((size, digest)) => {
                budget = budget.saturating_sub(size);
                digests.push(FileRecord { path: name.clone(), size, digest });
            }
            Err(failed) => errors.push(error(name, format!("it could not be digested: {failed}"), "")),
        }
    }
    (digests, errors)
}

fn digest(path: &Path, budget: u64) -> std::io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    if meta.len() > budget {
        return Err(std::io::Error::other("more than 1 GiB in all would have to be read"));
    }
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0_u64;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((size, format!("blake3:{}", hasher.finalize().to_hex())));
        }
        size += u64::try_from(read).unwrap_or(0);
        if size > budget {
            return Err(std::io::Error::other("it grew while it was read"));
        }
        hasher.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn tool(dir: &Path, name: &str, body: &str) {
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn descriptions_come_in_order_and_complaints_by_subject() {
        let dir = tempfile::tempdir().unwrap();
        tool(dir.path(), "qctl-convert", "echo 'error: no config.json' >&2; echo 'hint: look' >&2; exit 1");
        tool(dir.path(), "qctl-tokenize", "case \"$3\" in */bad) exit 3;; esac; echo chatter; echo '{\"rows\": 1}'");
        std::fs::write(dir.path().join("script"), "abc").unwrap();
        let request = SurveyRequest {
            id: 7,
            workdir: dir.path().to_string_lossy().into_owned(),
            hf_dir: "hf".into(),
            dataset_files: vec!["bad".into(), "good".into()],
            tokenizer_dir: "tok".into(),
            digest_files: vec!["script".into(), "missing".into()],
        };
        let answer = answer(dir.path(), request).await;
        assert_eq!((answer.id, answer.model_json.as_str()), (7, ""));
        assert_eq!(answer.dataset_json, ["", "{\"rows\": 1}", "{\"rows\": 1}"]);
        let subjects: Vec<_> = answer.errors.iter().map(|e| (e.subject.as_str(), e.hint.as_str())).collect();
        assert_eq!(subjects, [("hf", "look"), ("bad", ""), ("missing", "")]);
        assert_eq!(answer.errors[0].message, "no config.json");
        assert_eq!((answer.digests.len(), answer.digests[0].size), (1, 3));
        assert_eq!(answer.digests[0].digest, format!("blake3:{}", blake3::hash(b"abc").to_hex()));
    }

    #[tokio::test]
    async fn a_relative_workdir_is_refused() {
        let answer =
            answer(Path::new("/nowhere"), SurveyRequest { workdir: "here".into(), ..SurveyRequest::default() }).await;
        assert_eq!(answer.errors.len(), 1);
    }
}
