//! Keeping a host's outputs, so that they can be read elsewhere.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::outputs::Outputs;

/// Why outputs could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory holds something.
    #[error("`{}` is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The directory or a file cannot be written.
    #[error("`{}` cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The next thing to try.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotEmpty(_) => Some("give `--record` a directory that does not exist yet"),
            Self::Write { .. } => None,
        }
    }
}

/// Makes sure that a recording can be made here, before the tool is asked.
///
/// # Errors
///
/// [`Error`] if the directory holds something or cannot be made.
pub(super) fn check(dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    if fs::read_dir(dir).map_err(failed)?.next().is_some() {
        return Err(Error::NotEmpty(dir.to_owned()));
    }
    Ok(())
}

/// Writes one file per answer; a question without an answer has none.
///
/// # Errors
///
/// [`Error`] for the first file that cannot be written.
pub(super) fn write(dir: &Path, outputs: &Outputs) -> Result<(), Error> {
    let answers = outputs.texts.iter().map(|(command, text)| (command.file(), text));
    let versions = outputs.version_files.iter().map(|(name, text)| ((*name).to_owned(), text));
    for (name, text) in answers.chain(versions) {
        let lines: String = text.lines().map(|(_, line)| format!("{line}\n")).collect();
        put(dir, &name, lines.as_bytes())?;
    }
    Ok(())
}

/// Writes a file under another name first, so that none is ever half there.
fn put(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let path = dir.join(name);
    let new = dir.join(format!(".{name}.new"));
    let written = File::create_new(&new).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)
    });
    written.map_err(|source| Error::Write { path, source })
}
