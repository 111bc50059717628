//! Where the controller is, and as whom to speak to it.

use std::io;
use std::path::{Path, PathBuf};

use runtime::files::write_durably;
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure, START};

/// What `context.json` of a state directory says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    /// `https://host:port`; several with commas between.
    pub(crate) endpoint: String,
    /// Directory of `ca.pem`, `cert.pem` and `key.pem`.
    pub(crate) identity: PathBuf,
}

/// The state directory of a command line: the flag's, or the user's own.
pub(crate) fn state_dir(flag: Option<&Path>) -> Result<PathBuf, Failure> {
    let dir = match flag {
        Some(dir) => dir.to_owned(),
        None => match (std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME")) {
            (Some(state), _) if Path::new(&state).is_absolute() => Path::new(&state).join("qctl/dev"),
            (_, Some(home)) if !home.is_empty() => Path::new(&home).join(".local/state/qctl/dev"),
            _ => {
                let failure = Failure::new(Exit::Usage, "no state directory is known: HOME is not set");
                return Err(failure.hint("name one with `--state-dir`"));
            }
        },
    };
    std::path::absolute(&dir).map_err(|error| Failure::because(format!("`{}` is no path", dir.display()), &error))
}

/// Path of the context in a state directory.
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("context.json")
}

/// Reads the context of a state directory.
pub(crate) fn load(state_dir: &Path) -> Result<Context, Failure> {
    let path = path(state_dir);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = format!("no controller is known: there is no `{}`", path.display());
            return Err(Failure::new(Exit::Unreachable, message).hint(START));
        }
        Err(error) => {
            let failure = Failure::because(format!("`{}` could not be read", path.display()), &error);
            return Err(failure.hint("`--state-dir` names the directory that `qctl dev` was given"));
        }
    };
    serde_json::from_str(&text).map_err(|error| {
        Failure::because(format!("`{}` is no context", path.display()), &error)
            .hint("start `qctl dev` again: it writes a new one")
    })
}

/// Writes the context of a state directory, whole or not at all.
pub(crate) fn save(state_dir: &Path, context: &Context) -> io::Result<()> {
    write_durably(&path(state_dir), &serde_json::to_vec_pretty(context)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_comes_back_and_a_missing_one_is_unreachable() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(dir.path()), Err(Failure::Told { exit: Exit::Unreachable, .. })));
        let context = Context { endpoint: "https://127.0.0.1:1".into(), identity: "/i".into() };
        save(dir.path(), &context).unwrap();
        assert_eq!(load(dir.path()).unwrap(), context);
        std::fs::write(path(dir.path()), "{").unwrap();
        assert!(matches!(load(dir.path()), Err(Failure::Told { exit: Exit::Failed, .. })));
    }
}
