//! What goes wrong with the file, and what to do about it.

use std::io;
use std::path::Path;

use crate::{Error, Kind};

/// It could not be opened.
pub(super) fn cannot_open(path: &Path, error: redb::Error) -> Error {
    let shown = path.display();
    match kind(&error) {
        Kind::InUse => in_use(path),
        Kind::Corrupt => damaged(path).caused(error),
        kind @ (Kind::Fenced | Kind::Unknown | Kind::Newer | Kind::Moved | Kind::Full | Kind::Io) => {
            let denied = matches!(&error, redb::Error::Io(io) if io.kind() == io::ErrorKind::PermissionDenied);
            let failed = Error::new(kind, format!("the store `{shown}` cannot be opened")).caused(error);
            if denied {
                failed.hinted("let the account that runs the controller read and write it, and its directory")
            } else {
                failed
            }
        }
    }
}

/// It was open, and did not do what it was asked.
pub(super) fn failed(path: &Path, error: redb::Error) -> Error {
    match kind(&error) {
        Kind::Corrupt => damaged(path).caused(error),
        kind @ Kind::Full => Error::new(kind, format!("the store `{}` has no room to grow", path.display()))
            .caused(error)
            .hinted("free some disk space; nothing that was acknowledged is lost"),
        kind @ (Kind::Fenced | Kind::Unknown | Kind::Newer | Kind::Moved | Kind::InUse | Kind::Io) => {
            Error::new(kind, format!("the store `{}` failed", path.display())).caused(error)
        }
    }
}

pub(super) fn in_use(path: &Path) -> Error {
    Error::new(Kind::InUse, format!("the store `{}` is in use", path.display()))
        .hinted("another controller runs on this state directory; stop it, or choose another directory")
}

pub(super) fn damaged(path: &Path) -> Error {
    Error::new(Kind::Corrupt, format!("the store `{}` is damaged, or is no store", path.display()))
        .hinted(next_step(path))
}

pub(super) fn empty(path: &Path) -> Error {
    Error::new(Kind::Corrupt, format!("the store `{}` is empty: its content is gone", path.display()))
        .hinted(next_step(path))
}

pub(super) fn not_a_file(path: &Path) -> Error {
    Error::new(Kind::Io, format!("the store `{}` is a directory, not a file", path.display()))
        .hinted("move it aside, or choose another state directory")
}

pub(super) fn newer(path: &Path, format: u64) -> Error {
    let shown = path.display();
    Error::new(Kind::Newer, format!("the store `{shown}` was written by a newer version (format {format})"))
        .hinted("run that version, or restore a backup from before it")
}

fn next_step(path: &Path) -> String {
    format!(
        "move `{}` aside and restore a backup of it; without one, a new store is begun, which knows no earlier job",
        path.display()
    )
}

#[allow(clippy::wildcard_enum_match_arm, reason = "redb's error may grow; what is unknown is input or output trouble")]
fn kind(error: &redb::Error) -> Kind {
    match error {
        redb::Error::DatabaseAlreadyOpen => Kind::InUse,
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableIsNotMultimap(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. } => Kind::Corrupt,
        redb::Error::Io(io) => match io.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Full,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Kind::Corrupt,
            _ => Kind::Io,
        },
        _ => Kind::Io,
    }
}
