//! Every kept input, without a fuzzer.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use fuzz::Target;

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_kept_input_is_answered() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    fuzz::keep_panics();
    let mut wrong = Vec::new();
    let mut fed = 0;
    for target in Target::all() {
        let corpus = files(&home.join("corpus").join(target.name));
        if corpus.is_empty() {
            wrong.push(format!("{}: nothing is kept in corpus/{}", target.name, target.name));
        }
        // What a fuzzer has found on this computer is named after the target and its kind.
        let own =
            |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&format!("{}-", target.name));
        for path in corpus.into_iter().chain(files(&home.join("artifacts")).into_iter().filter(own)) {
            fed += 1;
            if let Err(said) = target.feed(&fs::read(&path).unwrap()) {
                wrong.push(format!("{}: {said}", path.display()));
            }
        }
    }
    let _ = std::panic::take_hook();
    let _ = fs::remove_dir_all(fuzz::directory());
    println!("{fed} inputs");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_kept_directory_has_its_target() {
    let known: Vec<&str> = Target::all().map(|target| target.name).collect();
    let kept = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"));
    for directory in kept {
        let name = directory.file_name().unwrap().to_string_lossy().into_owned();
        assert!(known.contains(&name.as_str()), "corpus/{name} has no target");
    }
}
