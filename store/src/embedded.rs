//! A store in one file, for one machine.

use std::future::Future;
use std::path::{Path, PathBuf};

use model::Epoch;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};

use crate::{Batch, Error, Kind, Store, fenced};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// A store in one redb file: each commit is one durable transaction.
#[derive(Debug)]
pub struct Embedded {
    database: Database,
    path: PathBuf,
}

impl Embedded {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    ///
    /// [`Kind::InUse`] if another process has it open, [`Kind::Corrupt`] if its
    /// content is damaged, [`Kind::Full`] or [`Kind::Io`] otherwise.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let database = Database::create(path).map_err(|error| opening(path, error))?;
        let store = Self { database, path: path.to_owned() };
        store.write(|tables| {
            if tables.meta.get("incarnation")?.is_none() {
                tables.meta.insert("incarnation", 1)?;
            }
            Ok(())
        })?;
        Ok(store)
    }

    fn write<T>(&self, change: impl FnOnce(&mut Tables<'_>) -> Result<T, StorageError>) -> Result<T, Error> {
        let begun = self.database.begin_write().map_err(|e| self.wrap(e.into()))?;
        let value = {
            let mut tables = Tables {
                entries: begun.open_table(ENTRIES).map_err(|e| self.wrap(e.into()))?,
                meta: begun.open_table(META).map_err(|e| self.wrap(e.into()))?,
            };
            change(&mut tables).map_err(|e| self.wrap(e.into()))?
        };
        begun.commit().map_err(|e| self.wrap(e.into()))?;
        Ok(value)
    }

    fn wrap(&self, error: redb::Error) -> Error {
        let kind = kind(&error);
        let failed = Error::new(kind, format!("the store `{}` failed", self.path.display())).caused(error);
        match kind {
            Kind::Corrupt => failed.hinted(damaged(&self.path)),
            Kind::Full => failed.hinted("free some disk space; nothing that was acknowledged is lost"),
            Kind::Fenced | Kind::Unknown | Kind::InUse | Kind::Io => failed,
        }
    }

    fn commit_now(&self, epoch: Epoch, batch: &Batch) -> Result<(), Error> {
        let leads = self.write(|tables| {
            let leads = tables.epoch()?;
            if leads == epoch {
                for key in &batch.deletes {
                    tables.entries.remove(key.as_str())?;
                }
                for (key, value) in &batch.puts {
                    tables.entries.insert(key.as_str(), value.as_slice())?;
                }
                tables.meta.insert("batch incarnation", epoch.incarnation)?;
                tables.meta.insert("batch term", epoch.term)?;
                tables.meta.insert("batch seq", batch.seq)?;
            }
            Ok(leads)
        })?;
        if leads == epoch { Ok(()) } else { Err(fenced(epoch, leads)) }
    }

    fn load_now(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let read = self.database.begin_read().map_err(|e| self.wrap(e.into()))?;
        let table = read.open_table(ENTRIES).map_err(|e| self.wrap(e.into()))?;
        let mut found = Vec::new();
        for entry in table.range(prefix..).map_err(|e| self.wrap(e.into()))? {
            let (key, value) = entry.map_err(|e| self.wrap(e.into()))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            found.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(found)
    }

    fn last_now(&self) -> Result<Option<(Epoch, u64)>, Error> {
        let read = self.database.begin_read().map_err(|e| self.wrap(e.into()))?;
        let table = read.open_table(META).map_err(|e| self.wrap(e.into()))?;
        let number = |key: &str| -> Result<Option<u64>, Error> {
            Ok(table.get(key).map_err(|e| self.wrap(e.into()))?.map(|v| v.value()))
        };
        let Some(seq) = number("batch seq")? else { return Ok(None) };
        let incarnation = number("batch incarnation")?.unwrap_or_default();
        let term = number("batch term")?.unwrap_or_default();
        Ok(Some((Epoch { incarnation, term }, seq)))
    }
}

struct Tables<'t> {
    entries: redb::Table<'t, &'static str, &'static [u8]>,
    meta: redb::Table<'t, &'static str, u64>,
}

impl Tables<'_> {
    fn epoch(&self) -> Result<Epoch, StorageError> {
        let number = |key| Ok::<_, StorageError>(self.meta.get(key)?.map_or(0, |v| v.value()));
        Ok(Epoch { incarnation: number("incarnation")?, term: number("term")? })
    }
}

impl Store for Embedded {
    fn campaign(&mut self) -> impl Future<Output = Result<Epoch, Error>> + Send {
        std::future::ready(self.write(|tables| {
            let mut epoch = tables.epoch()?;
            epoch.term += 1;
            tables.meta.insert("term", epoch.term)?;
            Ok(epoch)
        }))
    }

    fn load(&mut self, prefix: &str) -> impl Future<Output = Result<Vec<(String, Vec<u8>)>, Error>> + Send {
        std::future::ready(self.load_now(prefix))
    }

    fn commit(&mut self, epoch: Epoch, batch: Batch) -> impl Future<Output = Result<(), Error>> + Send {
        std::future::ready(self.commit_now(epoch, &batch))
    }

    fn last_batch(&mut self) -> impl Future<Output = Result<Option<(Epoch, u64)>, Error>> + Send {
        std::future::ready(self.last_now())
    }
}

fn damaged(path: &Path) -> String {
    format!("move `{}` aside and restore a backup of it", path.display())
}

#[allow(clippy::wildcard_enum_match_arm, reason = "all others are told apart below")]
fn opening(path: &Path, error: DatabaseError) -> Error {
    let shown = path.display();
    match error {
        DatabaseError::DatabaseAlreadyOpen => Error::new(Kind::InUse, format!("the store `{shown}` is in use"))
            .hinted("another controller runs on this state directory; stop it, or choose another directory"),
        other => {
            let error = redb::Error::from(other);
            let kind = kind(&error);
            let failed = Error::new(kind, format!("the store `{shown}` cannot be opened")).caused(error);
            if kind == Kind::Corrupt { failed.hinted(damaged(path)) } else { failed }
        }
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "redb's error may grow; what is unknown is input or output trouble")]
fn kind(error: &redb::Error) -> Kind {
    match error {
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. } => Kind::Corrupt,
        redb::Error::Io(io) => match io.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Full,
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => Kind::Corrupt,
            _ => Kind::Io,
        },
        _ => Kind::Io,
    }
}
