//! Every entry of the table of corrections changes what it says, and only then.

use spec::Spec;
use spec::arguments::corrections::CORRECTIONS;
use spec::arguments::train::{Start, reference_arguments, start_arguments};

use crate::support::{Set, qwen7b, tutorial, with};

fn start(spec: &Spec, hosts: u32) -> Start {
    start_arguments(spec, spec.train().unwrap(), Some(&qwen7b()), hosts)
}

fn ids(start: &Start) -> Vec<&'static str> {
    start.applied.iter().map(|applied| applied.id).collect()
}

/// Words that only one of two lists has.
fn difference(spec: &Spec, hosts: u32) -> (Vec<String>, Vec<String>) {
    let before = reference_arguments(spec, spec.train().unwrap(), &qwen7b());
    let after = start(spec, hosts).arguments;
    let only = |a: &[String], b: &[String]| a.iter().filter(|word| !b.contains(word)).cloned().collect();
    (only(&before, &after), only(&after, &before))
}

#[test]
fn the_tutorial_is_corrected_in_two_points() {
    let spec = tutorial();
    assert_eq!(ids(&start(&spec, 1)), ["load-parent", "exit-on-missing-checkpoint"]);
    let (gone, new) = difference(&spec, 1);
    assert_eq!(gone, ["./model_weights/qwen2.5_mcore/iter_0000001"]);
    assert_eq!(new, ["./model_weights/qwen2.5_mcore", "--exit-on-missing-checkpoint"]);
}

#[test]
fn an_explicit_load_directory_is_corrected_too() {
    let load = |dir: &str| {
        let spec = with(&[("stages.train.load_dir", dir)]);
        let start = start(&spec, 1);
        let at = start.arguments.iter().position(|word| word == "--load").unwrap();
        (start.arguments[at + 1].clone(), ids(&start).contains(&"load-parent"))
    };
    assert_eq!(load("./w/iter_0000020"), ("./w".to_owned(), true));
    assert_eq!(load("./w"), ("./w".to_owned(), false));
}

#[test]
fn a_missing_checkpoint_may_be_allowed() {
    let spec = with(&[("stages.train.exit_on_missing_checkpoint", "false")]);
    assert!(!ids(&start(&spec, 1)).contains(&"exit-on-missing-checkpoint"));
    let (_, new) = difference(&spec, 1);
    assert!(!new.contains(&"--exit-on-missing-checkpoint".to_owned()));
}

#[test]
fn checkpoints_with_optimizer_state_drop_the_flags_that_leave_it_out() {
    let spec = with(&[("stages.train.checkpoint_optimizer", "true"), ("stages.train.resume", "exact")]);
    assert!(ids(&start(&spec, 1)).contains(&"checkpoint-optimizer"));
    let arguments = start(&spec, 1).arguments;
    for (flag, want) in
        [("--no-save-optim", false), ("--no-save-rng", false), ("--no-load-optim", true), ("--no-load-rng", true)]
    {
        assert_eq!(arguments.contains(&flag.to_owned()), want, "{flag}");
    }
    assert!(!ids(&start(&tutorial(), 1)).contains(&"checkpoint-optimizer"));
}

#[test]
fn storage_that_is_not_shared_is_told_to_the_trainer() {
    let two_nodes = [("stages.train.nodes", "2"), ("stages.train.ranks_per_node", "2")];
    let cases: [(&[Set<'_>], u32, bool); 4] = [
        (&two_nodes, 2, true),
        (&two_nodes, 1, false),
        (&[two_nodes[0], two_nodes[1], ("storage", "shared")], 2, false),
        (&[], 2, false),
    ];
    for (overrides, hosts, want) in cases {
        let spec = with(overrides);
        assert_eq!(ids(&start(&spec, hosts)).contains(&"no-shared-storage"), want, "{overrides:?} {hosts}");
        let line = start(&spec, hosts).arguments.join(" ");
        let given = line.contains("--no-shared-storage --data-cache-path ./dataset/alpaca_text_document/cache");
        assert_eq!(given, want, "{line}");
    }
}

#[test]
fn without_an_npu_its_kernels_and_collectives_are_not_asked_for() {
    let spec = with(&[("runtime.device", "cpu")]);
    let applied = ids(&start(&spec, 1));
    assert!(applied.contains(&"cpu-kernels") && applied.contains(&"cpu-backend"), "{applied:?}");
    let (gone, new) = difference(&spec, 1);
    for flag in ["--use-flash-attn", "--use-fused-swiglu", "--use-fused-rmsnorm", "--use-fused-rotary-pos-emb", "nccl"]
    {
        assert!(gone.contains(&flag.to_owned()), "{flag}");
    }
    assert!(new.contains(&"gloo".to_owned()));
    // The plain forms stay.
    assert!(start(&spec, 1).arguments.contains(&"--swiglu".to_owned()));
}

#[test]
fn each_entry_is_applied_by_some_spec_and_has_a_name_of_its_own() {
    let spec = with(&[
        ("runtime.device", "cpu"),
        ("stages.train.nodes", "2"),
        ("stages.train.ranks_per_node", "2"),
        ("stages.train.checkpoint_optimizer", "true"),
    ]);
    let applied = ids(&start(&spec, 2));
    let table: Vec<&str> = CORRECTIONS.iter().map(|correction| correction.id).collect();
    assert_eq!(applied, table);
    let mut unique = table.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), table.len());
}

#[test]
fn arguments_come_last_and_flags_can_be_left_out() {
    let spec = with(&[
        ("stages.train.args", "[--lr-warmup-fraction, 0.10, --exit-signal-handler]"),
        ("stages.train.without", "[--lr-warmup-fraction, --log-throughput]"),
    ]);
    let line = start(&spec, 1).arguments.join(" ");
    assert!(line.ends_with("--lr-warmup-fraction 0.10 --exit-signal-handler"), "{line}");
    assert_eq!(line.matches("--lr-warmup-fraction").count(), 1);
    assert!(!line.contains("--log-throughput"));
}

#[test]
fn underived_arguments_are_the_users_and_the_checkpoints() {
    let spec = with(&[(
        "stages.train",
        "{ derive: false, save_dir: ./c, ranks_per_node: 4, args: [--steps, 5, --tensor-model-parallel-size, 2] }",
    )]);
    let start = start_arguments(&spec, spec.train().unwrap(), None, 2);
    assert_eq!(
        start.arguments.join(" "),
        "--load ./model_weights/qwen2.5_mcore --save ./c --steps 5 --tensor-model-parallel-size 2"
    );
}
