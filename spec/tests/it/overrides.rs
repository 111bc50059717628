//! `--set` goes through the same checks as the file.

use crate::support::{TUTORIAL, parse_with, with};

#[test]
fn overrides_are_applied_before_the_checks() {
    let spec = with(&[
        ("name", "other"),
        ("stages.train.lr", "1e-4"),
        ("stages.train.train_iters", "20"),
        ("runtime.env.NEW", "7"),
        ("dataset.files.0", "./x.parquet"),
        ("stages.export", ""),
    ]);
    assert_eq!(spec.name, "other");
    let derived = spec.train().unwrap().derived.as_ref().unwrap();
    assert_eq!((derived.lr.as_str(), derived.train_iters), ("1e-4", 20));
    assert_eq!(spec.runtime.env["NEW"], "7");
    assert_eq!(spec.dataset, ["./x.parquet"]);
    assert!(spec.stage("export").is_none());
}

#[test]
fn versions_keep_their_zeros_without_quotes() {
    let spec = with(&[("stages.preflight.require", "{ python: 3.10, mindspore: 2.7.1, cann: 8 }")]);
    let spec::spec::StageBody::Preflight(require) = &spec.stages[0].body else { panic!("no preflight") };
    assert_eq!((require.python.as_deref(), require.cann.as_deref()), (Some("3.10"), Some("8")));
}

#[test]
fn what_is_wrong_with_an_override_names_it() {
    for (path, value, want) in [
        (
            "stages.train.seq_length",
            "0",
            "--set stages.train.seq_length=0: stages.train.seq_length: 0 is out of range: at least 1",
        ),
        (
            "stages.train.seq_lenght",
            "1",
            "--set stages.train.seq_lenght=1: stages.train.seq_lenght: unknown key `seq_lenght`\n  hint: did you mean `seq_length`?",
        ),
        (
            "parallel",
            "{tp: x}",
            "--set parallel={tp: x}: parallel.tp: expected a whole number from 0 to 4294967295, found the text `x`",
        ),
        ("name.x", "1", "--set name.x=1: `name` is the text `qwen25-7b-pretrain`, which has no `x` in it"),
    ] {
        let problems = parse_with(TUTORIAL, &[(path, value)]).unwrap_err();
        assert_eq!(problems[0].to_string(), want);
    }
}
