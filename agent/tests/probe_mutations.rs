//! Whatever happens to an output on its way, nothing bad becomes good.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agent::probe::{self, Command, Health, Outputs, Report, Text};
use proptest::prelude::*;

/// A recording as bytes, by file name.
type Files = BTreeMap<String, Vec<u8>>;

/// The project's own recordings, and each recorded table by itself.
fn recordings() -> Vec<Files> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let files = |dir: &Path| -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort_unstable();
        files
    };
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut all: Vec<Files> = files(&own)
        .iter()
        .map(|dir| files(dir).iter().map(|file| (name(file), std::fs::read(file).unwrap())).collect())
        .collect();
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("QCTL_REFERENCE_DATA").map_or(default, PathBuf::from).join("fixtures/ascend");
    if !shared.is_dir() {
        println!("skipped in part: no reference data at {} (set QCTL_REFERENCE_DATA)", shared.display());
        return all;
    }
    for file in files(&shared) {
        let fixture = name(&file);
        let Some(rest) = fixture.strip_prefix("npu-smi-info") else { continue };
        let question =
            ["-t-health", "-t-usages", "-t-board", "-t-proc-mem", "-t-topo", "-t-common", "-t-ecc", "-t-temp"]
                .iter()
                .find(|question| rest.starts_with(*question));
        let named = match question {
            Some(question) => format!("npu-smi_info_-t_{}_-i_0_-c_0.txt", question.trim_start_matches("-t-")),
            None if rest.starts_with("-m") => "npu-smi_info_-m.txt".to_owned(),
            None if rest.starts_with("-l") => "npu-smi_info_-l.txt".to_owned(),
            None if rest.starts_with('.') => "npu-smi_info.txt".to_owned(),
            None => continue,
        };
        all.push(Files::from([(named, std::fs::read(&file).unwrap())]));
    }
    all
}

fn report(files: &Files) -> Report {
    let mut outputs = Outputs::default();
    for (name, bytes) in files {
        if let Some(command) = Command::from_file(name) {
            outputs.texts.insert(command, Text::new(name.as_str(), bytes));
        }
    }
    probe::report(&outputs)
}

/// One thing that happens to an output.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Vec<(prop::sample::Index, u8)>),
    DropLines(prop::sample::Index, usize),
    Widen(usize),
    Blank,
    CarriageReturns,
    Cut(prop::sample::Index),
    Double(prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => prop::collection::vec((index(), any::<u8>()), 1..4).prop_map(Mutation::Flip),
        4 => (index(), 1_usize..6).prop_map(|(at, count)| Mutation::DropLines(at, count)),
        1 => (1_usize..30).prop_map(Mutation::Widen),
        1 => Just(Mutation::Blank),
        1 => Just(Mutation::CarriageReturns),
        2 => index().prop_map(Mutation::Cut),
        1 => index().prop_map(Mutation::Double),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let lines: Vec<Vec<u8>> = bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    if bytes.is_empty() {
        return;
    }
    match mutation {
        Mutation::Flip(flips) => {
            for (at, to) in flips {
                let at = at.index(bytes.len());
                bytes[at] = *to;
            }
        }
        Mutation::DropLines(at, count) => {
            let from = at.index(lines.len());
            let kept = lines.iter().enumerate().filter(|(line, _)| !(from..from + count).contains(line));
            *bytes = kept.flat_map(|(_, line)| line.clone()).collect();
        }
        Mutation::Widen(by) => {
            let bar = [b" ".repeat(*by), b"|".to_vec()].concat();
            *bytes = bytes.iter().flat_map(|b| if *b == b'|' { bar.clone() } else { vec![*b] }).collect();
        }
        Mutation::Blank => *bytes = lines.iter().flat_map(|line| [line.clone(), b"  \n".to_vec()].concat()).collect(),
        Mutation::CarriageReturns => {
            *bytes = bytes.iter().flat_map(|b| if *b == b'\n' { vec![b'\r', b'\n'] } else { vec![*b] }).collect();
        }
        Mutation::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Mutation::Double(at) => {
            let at = at.index(lines.len());
            *bytes = [lines[..=at].concat(), lines[at..].concat()].concat();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_bad_becomes_good(which in any::<prop::sample::Index>(), file in any::<prop::sample::Index>(), mutation in mutation()) {
        thread_local! {
            static ALL: Vec<(Files, Report)> =
                recordings().into_iter().map(|files| { let report = report(&files); (files, report) }).collect();
        }
        ALL.with(|all| {
            let (files, before) = &all[which.index(all.len())];
            let mut files = files.clone();
            let name = files.keys().nth(file.index(files.len())).unwrap().clone();
            mutate(files.get_mut(&name).unwrap(), &mutation);
            // The other files stand; a lost answer is no word about health.
            let after = report(&files);
            for bad in before.npus.iter().filter(|npu| npu.health != Health::Ok) {
                let same = |npu: &&probe::Npu| npu.id.is_some() && (npu.id, npu.chip) == (bad.id, bad.chip);
                for npu in after.npus.iter().filter(same) {
                    prop_assert!(npu.health != Health::Ok, "{} after {mutation:?} of {name}: {:?}", npu.label(), npu);
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn layout_alone_changes_nothing(which in any::<prop::sample::Index>(), by in 1_usize..40) {
        let all = recordings();
        let files = &all[which.index(all.len())];
        let before = report(files);
        for mutation in [Mutation::Widen(by), Mutation::Blank, Mutation::CarriageReturns] {
            let mut files = files.clone();
            files.values_mut().for_each(|bytes| mutate(bytes, &mutation));
            let after = report(&files);
            prop_assert_eq!(&after.npus, &before.npus);
            prop_assert_eq!(&after.processes, &before.processes);
        }
    }
}
