//! The program as it is run, in a directory of its own beside a small model.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{small_shape, write_model};

pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_qctl-convert"))
}

pub(crate) fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

/// The program with these arguments; it must succeed.
pub(crate) fn succeed(args: &[&str]) -> Output {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    output
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The whole command line of a conversion to shards.
pub(crate) fn to_mcore<'a>(load: &'a Path, save: &'a Path, tp: &'a str, pp: &'a str) -> Vec<&'a str> {
    let mut args =
        vec!["--load-model-type", "hf", "--save-model-type", "mg", "--params-dtype", "bf16", "--add-qkv-bias"];
    args.extend(["--load-dir", load.to_str().unwrap(), "--save-dir", save.to_str().unwrap()]);
    args.extend(["--target-tensor-parallel-size", tp, "--target-pipeline-parallel-size", pp]);
    args
}

/// A directory with a model in it.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self { dir: tempfile::tempdir().unwrap() };
        write_model(&lab.hf(), &small_shape(), 3, 2);
        lab
    }

    pub(crate) fn hf(&self) -> PathBuf {
        self.path("hf")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A checkpoint of TP 2 x PP 2.
    pub(crate) fn convert(&self) -> PathBuf {
        self.convert_with(&[])
    }

    /// The same with more flags.
    pub(crate) fn convert_with(&self, flags: &[&str]) -> PathBuf {
        let save = self.path("mcore");
        succeed(&[&to_mcore(&self.hf(), &save, "2", "2")[..], flags].concat());
        save
    }
}
