//! No controller to speak to.

use stories::lab::Lab;

#[test]
fn without_a_controller_the_next_step_is_named() {
    let lab = Lab::idle();
    let never = lab.qctl(["ps"]).code(6);
    assert!(never.stderr.contains("hint: ") && never.stderr.contains("qctl dev"), "{never}");

    lab.dev();
    let _ = lab.qctl(["ps"]).ok();
    lab.stop();
    for words in [&["ps"][..], &["describe", "x"], &["logs", "x"], &["wait", "x"], &["nodes"]] {
        let gone = lab.qctl(words).code(6);
        assert!(gone.stderr.contains("error: ") && gone.stderr.contains("hint: "), "{gone}");
    }
    let left = lab.processes();
    assert!(left.is_empty(), "{left:#?}");
}
