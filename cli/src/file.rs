//! The user's file, made ready to be sent.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use proto::v1::{SetValue, SubmitRequest};
use serde::Deserialize;

use crate::failure::{Exit, Failure};
use crate::nearest::nearest;
use crate::output::say;
use crate::text::one_line;

/// Largest file, in bytes.
const LARGEST: u64 = 1 << 20;

/// What a job is made of: a file and what the command line changes in it.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Source {
    /// The job's file, YAML or JSON; `-` reads stdin
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Name of the job, in place of the file's
    #[arg(short, long)]
    pub(crate) name: Option<String>,
    /// Replaces one value of the file, as in `stages.train.lr=1e-4`; an empty value takes the key away
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) set: Vec<(String, String)>,
    /// An environment variable for every process of the job
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Goes before jobs of lower priority, in place of the file's
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) priority: Option<i32>,
}

/// Splits `key=value`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected `key=value`".to_owned()),
    }
}

impl Source {
    /// Reads the file and makes the request.
    pub(crate) fn request(&self, key: Option<&str>) -> Result<SubmitRequest, Failure> {
        let stdin = self.file.as_os_str() == "-";
        let spec = if stdin { read("stdin", io::stdin().lock())? } else { open(&self.file)? };
        let here =
            std::env::current_dir().map_err(|error| Failure::because("the current directory is not known", &error))?;
        let home = if stdin { here.clone() } else { here.join(self.file.parent().unwrap_or(Path::new(""))) };
        let mut set: Vec<SetValue> = Vec::new();
        self.unknown_stages(&spec).iter().for_each(|line| say(line));
        set.extend(self.set.iter().map(|(path, value)| SetValue { path: path.clone(), value: value.clone() }));
        set.extend(
            self.env.iter().map(|(name, value)| SetValue { path: format!("runtime.env.{name}"), value: quoted(value) }),
        );
        let told = self.set.iter().rev().find(|(path, _)| path == "workdir").map(|(_, value)| value.as_str());
        let absolute = match told {
            Some(dir) => workdir(Some(dir), &here),
            None => workdir(in_file(&spec).as_deref(), &home),
        };
        set.extend(absolute.map(|dir| SetValue { path: "workdir".to_owned(), value: quoted(&dir) }));
        let source_name = if stdin { "stdin".to_owned() } else { self.file.display().to_string() };
        Ok(SubmitRequest {
            spec,
            // Bounded as the controller bounds it.
            source_name: if source_name.len() <= 256 { source_name } else { "the file".to_owned() },
            set,
            name: self.name.clone().unwrap_or_default(),
            idempotency_key: key.unwrap_or_default().to_owned(),
            priority: self.priority,
        })
    }
}

impl Source {
    /// Warnings about stages that `--set` would add by a slip: the controller cannot tell those from new ones.
    fn unknown_stages(&self, spec: &str) -> Vec<String> {
        #[derive(Deserialize)]
        struct Top {
            stages: BTreeMap<String, serde::de::IgnoredAny>,
        }
        let Ok(top) = serde_saphyr::from_str::<Top>(spec) else { return Vec::new() };
        let named = self.set.iter().filter_map(|(path, _)| path.strip_prefix("stages.")?.split('.').next());
        let unknown = named.filter(|name| !top.stages.contains_key(*name));
        let meant = |name: &str| {
            let near = nearest(name, top.stages.keys().map(String::as_str))?;
            Some(one_line(&format!("warning: --set: the file has no stage `{name}`; did you mean `{near}`?")))
        };
        unknown.filter_map(meant).collect()
    }
}

/// The absolute directory to send along, if the one given is not absolute:
/// agents do not know where this command runs.
fn workdir(given: Option<&str>, base: &Path) -> Option<String> {
    let dir = match given {
        Some(dir) if dir.starts_with('/') => return None,
        Some(dir) => base.join(dir),
        None => base.to_owned(),
    };
    // `.` and `..` are resolved where the directory exists here.
    let dir = std::fs::canonicalize(&dir).unwrap_or(dir);
    Some(dir.to_string_lossy().into_owned())
}

/// A JSON string, which is a YAML string too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The file's own workdir. A file that cannot be read is the controller's to refuse, with its line.
fn in_file(spec: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Top {
        workdir: Option<String>,
    }
    serde_saphyr::from_str::<Top>(spec).ok()?.workdir
}

fn open(path: &Path) -> Result<String, Failure> {
    let name = path.display().to_string();
    if path.is_dir() {
        let failure = Failure::new(Exit::Usage, format!("`{name}` is a directory"));
        return Err(match files_of(path).as_slice() {
            [] => failure.hint("name the job's file in it"),
            files => failure.hint(format!("name the job's file: {}", files.join(" or "))),
        });
    }
    let file = File::open(path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            return missing(path);
        }
        Failure::new(Exit::Failed, format!("`{name}` could not be read: {error}"))
    })?;
    read(&name, file)
}

/// A file that is not there, with what may have been meant.
fn missing(path: &Path) -> Failure {
    let name = path.display().to_string();
    let failure = Failure::new(Exit::NotFound, format!("there is no file `{name}`"));
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !dir.is_dir() {
        return failure.hint(format!("there is no directory `{}` either", dir.display()));
    }
    let files = files_of(dir);
    let files = files.iter().map(|file| file.strip_prefix("./").unwrap_or(file));
    match nearest(&name, files.clone()) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None if files.len() == 0 => {
            failure.hint("no file beside it looks like a job's; an example: examples/quickstart")
        }
        None => failure.hint(format!("beside it: {}", files.collect::<Vec<_>>().join(", "))),
    }
}

/// Files of a directory that look like a job's, at most five.
fn files_of(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let looks = |path: &PathBuf| {
        path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known)) && path.is_file()
    };
    let mut files: Vec<String> = entries.filter(looks).map(|path| path.display().to_string()).collect();
    files.sort_unstable();
    files.truncate(5);
    files
}

fn read(name: &str, from: impl io::Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::because(format!("`{name}` could not be read"), &error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::new(Exit::Usage, format!("`{name}` is larger than 1 MiB")));
    }
    String::from_utf8(bytes).map_err(|_| {
        Failure::new(Exit::Usage, format!("`{name}` is not UTF-8")).hint("a job's file is text: YAML or JSON")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn sets(text: &str, set: &[&str], env: &[&str]) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("job.yaml");
        std::fs::write(&file, text).unwrap();
        let pairs = |list: &[&str]| list.iter().map(|text| pair(text).unwrap()).collect();
        let source = Source { file, set: pairs(set), env: pairs(env), ..Source::default() };
        let home = dir.path().canonicalize().unwrap().to_string_lossy().into_owned();
        let request = source.request(None).unwrap();
        request.set.into_iter().map(|set| (set.path, set.value.replace(&home, "HOME"))).collect()
    }

    fn one(path: &str, value: &str) -> (String, String) {
        (path.to_owned(), value.to_owned())
    }

    #[test]
    fn a_workdir_that_only_this_process_knows_is_made_absolute() {
        assert_eq!(sets("name: a\n", &[], &[]), [one("workdir", "\"HOME\"")]);
        assert_eq!(sets("workdir: .\n", &[], &[]), [one("workdir", "\"HOME\"")]);
        assert_eq!(sets("workdir: /data\n", &[], &[]), []);
        assert_eq!(sets("workdir: ./x\n", &["workdir=/data"], &[]), [one("workdir", "/data")]);
        let relative = sets("name: a\n", &["workdir=."], &[]);
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        assert_eq!(relative[1].1, quoted(&here.to_string_lossy()));
    }

    #[test]
    fn variables_stay_text() {
        let sets = sets("workdir: /d\n", &["a.b=1"], &["OMP_NUM_THREADS=1", "X=a\"b"]);
        let env = |name: &str, value: &str| one(&format!("runtime.env.{name}"), value);
        assert_eq!(sets, [one("a.b", "1"), env("OMP_NUM_THREADS", "\"1\""), env("X", "\"a\\\"b\"")]);
    }

    #[test]
    fn a_stage_that_a_slip_would_add_is_warned_about() {
        let source = Source {
            set: ["stages.wrok.run.count=2", "stages.work.run.count=2", "stages.export.from=train", "name=a"]
                .map(|text| pair(text).unwrap())
                .to_vec(),
            ..Source::default()
        };
        let warned = source.unknown_stages("stages: { work: { run: { argv: [a] } } }");
        assert_eq!(warned, ["warning: --set: the file has no stage `wrok`; did you mean `work`?"]);
        assert!(source.unknown_stages(": no").is_empty());
    }

    #[test]
    fn large_and_missing_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("large");
        std::fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
        let refused = |file: PathBuf| Source { file, ..Source::default() }.request(None).unwrap_err();
        assert!(matches!(refused(file), Failure::Told { exit: Exit::Usage, .. }));
        assert!(matches!(refused(dir.path().join("none")), Failure::Told { exit: Exit::NotFound, .. }));
        let hint = |file: PathBuf| {
            let Failure::Told { hint, .. } = refused(file) else { panic!("it is told") };
            hint.unwrap()
        };
        let good = dir.path().join("pipeline.yaml");
        std::fs::write(&good, "name: a").unwrap();
        let meant = good.display();
        assert_eq!(hint(dir.path().join("pipelne.yaml")), format!("did you mean `{meant}`?"));
        assert_eq!(hint(dir.path().join("other")), format!("beside it: {meant}"));
        assert_eq!(hint(dir.path().to_owned()), format!("name the job's file: {meant}"));
        assert!(pair("=x").is_err() && pair("x").is_err());
    }
}
