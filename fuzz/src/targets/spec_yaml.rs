//! The user's file: refused with sentences, or a spec.

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(problems) = spec::parse(text, "job.yaml") {
        assert!(!problems.is_empty() && problems.len() <= 20);
        let said = spec::render(&problems);
        assert!(!said.contains("could not be checked"), "{said}");
        crate::assert_printable(&said);
    }
}
