//! What `npu-smi` prints, in all its layouts, and version files: one text, or several parted by lines of `---`.
//!
//! The first line of a text is the name of the file that a recording keeps it in.

use agent::probe::{self, Command, Outputs, Text, show, versions};

pub(crate) fn run(bytes: &[u8]) {
    let mut outputs = Outputs::default();
    for part in crate::parts(bytes).into_iter().take(16) {
        let end = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
        let name = String::from_utf8_lossy(&part[..end]).into_owned();
        let text = Text::new(name.as_str(), &part[end..]);
        if let Some(command) = Command::from_file(&name) {
            assert_eq!(Command::from_file(&command.file()).as_ref(), Some(&command), "{name}");
            outputs.texts.insert(command, text);
        } else if let Some(subject) = versions::subject(&text) {
            outputs.versions.learn(subject, &text);
        }
    }
    let report = probe::report(&outputs);
    assert!(report.notes.len() <= 201, "{} notes", report.notes.len());
    crate::assert_printable(&show::table(&report));
    assert!(show::json(&report).is_ok());
}
