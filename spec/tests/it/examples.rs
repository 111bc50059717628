//! The tutorial's two scenarios as a user writes them.

use std::path::PathBuf;

use spec::Spec;
use spec::arguments::{msrun, train};

use crate::arguments::{reference, reference_data};
use crate::support::qwen7b;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    NoRecompute,
    Recompute,
}

impl Scenario {
    pub(crate) const ALL: [Self; 2] = [Self::NoRecompute, Self::Recompute];

    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::NoRecompute => "no_recompute.yaml",
            Self::Recompute => "recompute.yaml",
        }
    }

    fn recorded(self) -> &'static str {
        match self {
            Self::NoRecompute => "scenario1_no_recompute.txt",
            Self::Recompute => "scenario2_recompute.txt",
        }
    }

    pub(crate) fn text(self) -> String {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/qwen25-7b").join(self.file());
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn spec(self) -> Spec {
        spec::parse(&self.text(), self.file()).unwrap_or_else(|problems| panic!("{}", spec::render(&problems)))
    }
}

/// One flag with its values, before and after the corrections.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) before: String,
    pub(crate) after: String,
}

/// Names of the corrections that apply, and what they change, flag for flag.
pub(crate) fn changes(scenario: Scenario) -> (Vec<&'static str>, Vec<Change>) {
    let spec = scenario.spec();
    let train = spec.train().unwrap();
    let before = flags(&train::reference_arguments(&spec, train, &qwen7b()));
    let start = train::start_arguments(&spec, train, Some(&qwen7b()), 1);
    let after = flags(&start.arguments);
    let mut changes = Vec::new();
    for was in before.iter().filter(|was| !after.contains(was)) {
        let is = after.iter().find(|is| is[0] == was[0]);
        changes.push(Change { before: was.join(" "), after: is.map(|is| is.join(" ")).unwrap_or_default() });
    }
    for is in after.iter().filter(|is| before.iter().all(|was| was[0] != is[0])) {
        changes.push(Change { before: String::new(), after: is.join(" ") });
    }
    (start.applied.iter().map(|applied| applied.id).collect(), changes)
}

/// Flags with their values.
fn flags(words: &[String]) -> Vec<Vec<String>> {
    words.chunk_by(|_, next| !next.starts_with("--")).map(<[String]>::to_vec).collect()
}

#[test]
fn the_examples_are_accepted_without_a_warning() {
    for scenario in Scenario::ALL {
        assert_eq!(scenario.spec().warnings, [], "{scenario:?}");
    }
}

#[test]
fn the_examples_become_the_tutorials_training_lines() {
    for scenario in Scenario::ALL {
        let spec = scenario.spec();
        let line = train::reference_arguments(&spec, spec.train().unwrap(), &qwen7b());
        assert_eq!(line, reference(scenario == Scenario::Recompute), "{scenario:?}");
    }
}

#[test]
fn the_examples_become_the_recorded_command_lines() {
    let dir = reference_data().join("golden/argv");
    if !dir.is_dir() {
        println!("skipped: no recorded command lines in {}", dir.display());
        return;
    }
    for scenario in Scenario::ALL {
        let spec = scenario.spec();
        let train = spec.train().unwrap();
        let seat = msrun::Seat {
            worker_num: train.nodes * train.ranks_per_node,
            local_worker_num: train.ranks_per_node,
            master_addr: "localhost".into(),
            master_port: "6000".into(),
            node_rank: "0".into(),
        };
        let mut line = msrun::msrun_arguments(&seat);
        line.push(train.script.clone());
        line.extend(train::reference_arguments(&spec, train, &qwen7b()));
        let recorded = std::fs::read_to_string(dir.join(scenario.recorded())).unwrap();
        assert_eq!(line, recorded.lines().collect::<Vec<_>>(), "{scenario:?}");
    }
}

#[test]
fn the_examples_differ_from_the_tutorial_in_two_corrections_alone() {
    for scenario in Scenario::ALL {
        let (ids, changes) = changes(scenario);
        assert_eq!(ids, ["load-parent", "exit-on-missing-checkpoint"], "{scenario:?}");
        let change = |before: &str, after: &str| Change { before: before.into(), after: after.into() };
        assert_eq!(
            changes,
            [
                change("--load ./model_weights/qwen2.5_mcore/iter_0000001", "--load ./model_weights/qwen2.5_mcore"),
                change("", "--exit-on-missing-checkpoint"),
            ],
            "{scenario:?}"
        );
    }
}

#[test]
fn the_examples_share_what_comes_before_training() {
    let [plain, recompute] = Scenario::ALL.map(Scenario::spec);
    for stage in ["preflight", "convert", "preprocess"] {
        assert_eq!(plain.stage(stage), recompute.stage(stage));
    }
    let digest = |spec: &Spec, name: &str| {
        let survey = crate::support::survey();
        let pipeline = spec::plan::compile(spec, &survey).unwrap();
        pipeline.stages.into_iter().find(|stage| stage.name == name).unwrap().digest
    };
    for stage in ["convert", "preprocess"] {
        assert!(digest(&plain, stage).is_some());
        assert_eq!(digest(&plain, stage), digest(&recompute, stage), "{stage}");
    }
    assert_ne!(plain.train().unwrap().save_dir, recompute.train().unwrap().save_dir);
}
