//! Opening the file, or making it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase as _, TableError, backends::FileBackend};

use super::trouble::{self, cannot_open};
use super::{FORMAT, META, write};
use crate::Error;

/// Opens `path` and verifies all of it, or makes it where nothing is there.
pub(super) fn open(path: &Path) -> Result<Database, Error> {
    match std::fs::metadata(path) {
        Ok(there) if there.is_dir() => Err(trouble::not_a_file(path)),
        // It is made under another name, so that an empty one has lost its content.
        Ok(there) if there.len() == 0 => Err(trouble::empty(path)),
        Ok(_) => open_old(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(cannot_open(path, error.into())),
    }
}

fn open_old(path: &Path) -> Result<Database, Error> {
    let database =
        Builder::new().set_check_integrity_on_open(true).open(path).map_err(|error| cannot_open(path, error.into()))?;
    match format(&database).map_err(|error| cannot_open(path, error))? {
        Some(FORMAT) => Ok(database),
        Some(newer) if newer > FORMAT => Err(trouble::newer(path, newer)),
        Some(_) | None => Err(trouble::damaged(path)),
    }
}

/// What wrote it says which format it has.
fn format(database: &Database) -> Result<Option<u64>, redb::Error> {
    let table = match database.begin_read()?.open_table(META) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Files from before formats were numbered have an incarnation only.
    let stored = table.get("format")?.map(|value| value.value());
    Ok(stored.or(table.get("incarnation")?.map(|_| FORMAT)))
}

/// Makes it aside and renames it: a crash on the way leaves no half-made store.
fn make(path: &Path) -> Result<Database, Error> {
    let aside = aside(path);
    let io = |error: io::Error| cannot_open(path, error.into());
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&aside).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(trouble::in_use(path)),
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    // Whoever had the lock before may have been done meanwhile.
    if path.exists() {
        std::fs::remove_file(&aside).map_err(io)?;
        return open_old(path);
    }
    // What a crashed attempt left.
    file.set_len(0).map_err(io)?;
    let database = FileBackend::new(file)
        .and_then(|backend| Builder::new().create_with_backend(backend))
        .map_err(|error| cannot_open(path, error.into()))?;
    write(&database, |tables| {
        tables.meta.insert("format", FORMAT)?;
        tables.meta.insert("incarnation", 1)?;
        Ok(())
    })
    .map_err(|error| trouble::failed(path, error))?;
    std::fs::rename(&aside, path).map_err(io)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)?;
    Ok(database)
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}
