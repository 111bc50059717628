//! A store in memory, for tests and simulations.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::Epoch;

use crate::{Batch, Error, Store, fenced};

/// A store in memory; clones share their content, as controllers share an etcd.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    shared: Arc<Mutex<Content>>,
}

#[derive(Debug, Default)]
struct Content {
    leads: Epoch,
    last: Option<(Epoch, u64)>,
    entries: BTreeMap<String, Vec<u8>>,
}

impl Memory {
    /// An empty store of incarnation 1.
    #[must_use]
    pub fn new() -> Self {
        let memory = Self::default();
        memory.content().leads.incarnation = 1;
        memory
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // A panic elsewhere leaves whole batches only: each is applied below in one go.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn campaign(&mut self) -> impl Future<Output = Result<Epoch, Error>> + Send {
        let mut content = self.content();
        content.leads.term += 1;
        std::future::ready(Ok(content.leads))
    }

    fn begin(&mut self, incarnation: u64) -> impl Future<Output = Result<Epoch, Error>> + Send {
        let mut content = self.content();
        content.leads = Epoch { incarnation: content.leads.incarnation.max(incarnation), term: content.leads.term + 1 };
        std::future::ready(Ok(content.leads))
    }

    fn load(&mut self, prefix: &str) -> impl Future<Output = Result<Vec<(String, Vec<u8>)>, Error>> + Send {
        let content = self.content();
        let found = content.entries.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        std::future::ready(Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect()))
    }

    fn commit(&mut self, epoch: Epoch, batch: Batch) -> impl Future<Output = Result<(), Error>> + Send {
        let mut content = self.content();
        if content.leads != epoch {
            return std::future::ready(Err(fenced(epoch, content.leads)));
        }
        for key in &batch.deletes {
            content.entries.remove(key);
        }
        content.entries.extend(batch.puts);
        content.last = Some((epoch, batch.seq));
        std::future::ready(Ok(()))
    }

    fn last_batch(&mut self) -> impl Future<Output = Result<Option<(Epoch, u64)>, Error>> + Send {
        std::future::ready(Ok(self.content().last))
    }
}
