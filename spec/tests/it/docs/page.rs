//! A page of `docs/` with parts that are written by tests.

use std::path::PathBuf;

/// A page under the workspace's `docs/`.
pub(crate) struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    pub(crate) fn read(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, text }
    }

    /// Compares the parts between `<!-- NAME: generated -->` and `<!-- /NAME -->`.
    ///
    /// With `BLESS` set they are written instead.
    pub(crate) fn holds(self, parts: &[(&str, String)]) {
        let mut text = self.text.clone();
        for (name, body) in parts {
            let (open, close) = (format!("<!-- {name}: generated -->\n"), format!("\n<!-- /{name} -->"));
            let start = text.find(&open).unwrap_or_else(|| panic!("no `{}`", open.trim())) + open.len();
            let end = start + text[start..].find(&close).unwrap_or_else(|| panic!("no `{}`", close.trim()));
            text.replace_range(start..end, body);
        }
        if text == self.text {
            return;
        }
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&self.path, text).unwrap();
            return;
        }
        let (want, have) = (text.lines(), self.text.lines());
        let first = want.zip(have).find(|(want, have)| want != have);
        panic!(
            "{} is stale; `BLESS=1 cargo test -p spec` writes it. First difference: {first:#?}",
            self.path.display()
        );
    }

    /// Fenced blocks of a language.
    pub(crate) fn blocks(&self, language: &str) -> Vec<&str> {
        let open = format!("```{language}\n");
        let blocks = self.text.split(&open).skip(1);
        blocks.map(|block| block.split("```").next().unwrap()).collect()
    }
}
