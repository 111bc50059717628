//! A store in one file, for one machine.
//!
//! Each commit is one transaction in two phases: its pages are on disk before
//! the header points to them. So a header never points to what a power cut may
//! have torn, and whatever does not verify is damage, never an unfinished
//! commit to fall back from. Opening verifies the checksum of every page.

mod file;
mod trouble;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use model::Epoch;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::{Batch, Error, Store, fenced};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// What is stored, and how: grows when an older program would misread it.
const FORMAT: u64 = 1;

/// A store in one redb file: each commit is one durable transaction.
#[derive(Debug)]
pub struct Embedded {
    /// Away after a failure: redb refuses all that follows one, so the file is opened and verified anew.
    database: Option<Database>,
    path: PathBuf,
}

impl Embedded {
    /// Opens and verifies the file, or makes it.
    ///
    /// # Errors
    ///
    /// [`crate::Kind::InUse`] if another process has it open, [`crate::Kind::Corrupt`] if its
    /// content is damaged or not a store, [`crate::Kind::Newer`] if a later version
    /// wrote it, [`crate::Kind::Full`] or [`crate::Kind::Io`] otherwise.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut store = Self { database: None, path: path.to_owned() };
        store.with(|_| Ok(()))?;
        Ok(store)
    }

    /// Runs `work` on the database, which is opened first where it is not.
    fn with<T>(&mut self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => guarded(&self.path, || file::open(&self.path))?,
        };
        let value = guarded(&self.path, || work(&database).map_err(|error| trouble::failed(&self.path, error)))?;
        self.database = Some(database);
        Ok(value)
    }

    fn write<T>(&mut self, change: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error>) -> Result<T, Error> {
        self.with(|database| write(database, change))
    }

    fn commit_now(&mut self, epoch: Epoch, batch: &Batch) -> Result<(), Error> {
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

    fn load_now(&mut self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(ENTRIES)?;
            let mut found = Vec::new();
            for entry in table.range(prefix..)? {
                let (key, value) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push((key.value().to_owned(), value.value().to_vec()));
            }
            Ok(found)
        })
    }

    fn last_now(&mut self) -> Result<Option<(Epoch, u64)>, Error> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(META)?;
            let number = |key: &str| Ok::<_, redb::Error>(table.get(key)?.map(|value| value.value()));
            let Some(seq) = number("batch seq")? else { return Ok(None) };
            let incarnation = number("batch incarnation")?.unwrap_or_default();
            let term = number("batch term")?.unwrap_or_default();
            Ok(Some((Epoch { incarnation, term }, seq)))
        })
    }
}

struct Tables<'t> {
    entries: redb::Table<'t, &'static str, &'static [u8]>,
    meta: redb::Table<'t, &'static str, u64>,
}

impl Tables<'_> {
    fn epoch(&self) -> Result<Epoch, redb::Error> {
        let number = |key| Ok::<_, redb::Error>(self.meta.get(key)?.map_or(0, |v| v.value()));
        Ok(Epoch { incarnation: number("incarnation")?, term: number("term")? })
    }
}

impl Store for Embedded {
    fn campaign(&mut self) -> impl Future<Output = Result<Epoch, Error>> + Send {
        self.begin(0)
    }

    fn begin(&mut self, incarnation: u64) -> impl Future<Output = Result<Epoch, Error>> + Send {
        std::future::ready(self.write(|tables| {
            let mut epoch = tables.epoch()?;
            epoch.incarnation = epoch.incarnation.max(incarnation);
            // Agents obey no term below the highest they have seen. Counting from the clock puts a
            // restored backup, and a store begun anew, above whatever led before it.
            epoch.term = clock().max(epoch.term + 1);
            tables.meta.insert("incarnation", epoch.incarnation)?;
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

fn write<T>(
    database: &Database,
    change: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let mut begun = database.begin_write()?;
    begun.set_two_phase_commit(true);
    let value = {
        let mut tables = Tables { entries: begun.open_table(ENTRIES)?, meta: begun.open_table(META)? };
        change(&mut tables)?
    };
    begun.commit()?;
    Ok(value)
}

/// Milliseconds since 1970.
fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Turns a panic of redb, which trusts its pages once they are verified, into a refusal.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(trouble::damaged(path)))
}
