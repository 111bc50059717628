//! Whatever text comes in, the parser answers; it never panics or hangs.

use proptest::prelude::*;

use crate::support::TUTORIAL;

/// Pieces that get further into the reader than random characters do.
fn fragments() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("stages:\n".to_owned()),
        Just("  train:\n".to_owned()),
        Just("    lr: ".to_owned()),
        Just("name: a\n".to_owned()),
        Just("workdir: /w\n".to_owned()),
        Just("parallel: {tp: ".to_owned()),
        Just("&a ".to_owned()),
        Just("*a".to_owned()),
        Just("<<: ".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just(", ".to_owned()),
        Just(": ".to_owned()),
        Just("\n".to_owned()),
        Just("- ".to_owned()),
        Just("| \n".to_owned()),
        Just("!!int ".to_owned()),
        Just("!!binary ".to_owned()),
        Just("\"\\u0000\"".to_owned()),
        "[0-9]{1,40}",
        "\\PC{0,8}",
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_is_answered(text in any::<String>()) {
        let _ = spec::parse(&text, "t").map_err(|problems| spec::render(&problems));
    }

    #[test]
    fn text_that_looks_like_a_file_is_answered(text in fragments()) {
        match spec::parse(&text, "t") {
            Ok(spec) => prop_assert!(!spec.stages.is_empty()),
            Err(problems) => {
                prop_assert!(!problems.is_empty() && problems.len() <= 20, "{}", spec::render(&problems));
                for problem in problems {
                    prop_assert!(!problem.message.is_empty() && !problem.message.ends_with('.'), "{problem}");
                }
            }
        }
    }

    #[test]
    fn a_damaged_file_is_answered(at in 0..TUTORIAL.len(), length in 0_usize..20, piece in "\\PC{0,4}") {
        let end = (at + length).min(TUTORIAL.len());
        let damaged = format!("{}{piece}{}", &TUTORIAL[..at], &TUTORIAL[end..]);
        if let Err(problems) = spec::parse(&damaged, "t") {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|p| p.message != "the file could not be checked"), "{damaged}");
        }
    }

    #[test]
    fn arbitrary_overrides_are_answered(path in "[a-z.0-9]{0,20}", value in any::<String>()) {
        let _ = spec::parse_with_overrides(TUTORIAL, "t", &[(path, value)]);
    }
}
