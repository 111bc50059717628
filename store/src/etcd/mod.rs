//! A store on etcd, for several controllers of which one leads.
//!
//! The leader's key lies under a lease. Every transaction compares when that
//! key was written, so whoever lost the lead writes nothing, however late; and
//! when the newest batch was marked, so a call that reached etcd twice counts
//! once.

mod client;
mod commit;
mod config;
mod keeper;
mod layout;
mod lead;
mod lease;
mod load;
#[cfg(test)]
mod tests;
mod wire;

use std::future::Future;
use std::sync::Arc;

use model::Epoch;
use tokio::sync::watch;

pub use config::{Config, Tls};
pub use keeper::{Alarm, Keeper, Member, Sight};

use crate::{Batch, Error, Store, fenced};
use client::Client;
use layout::Layout;
use lease::Shared;

/// A store on etcd. Its [`Keeper`] must run beside it.
#[derive(Debug)]
pub struct Etcd {
    client: Arc<Client>,
    layout: Layout,
    shared: Arc<Shared>,
    address: String,
    /// Seconds.
    lease: i64,
    lead: Option<Lead>,
}

/// What the lead is guarded by.
#[derive(Clone, Copy, Debug)]
struct Lead {
    epoch: Epoch,
    /// When the leader's key was written.
    revision: i64,
    /// When the newest batch was marked.
    marked: i64,
    /// What is remembered was taken over elsewhere, until a batch of this lead takes its place.
    moved: bool,
}

impl Etcd {
    /// Makes the store and its keeper; nothing is called yet.
    ///
    /// # Errors
    ///
    /// [`Error`] if an address or certificate cannot be used.
    pub fn new(config: Config) -> Result<(Self, Keeper), Error> {
        let client = Arc::new(Client::new(&config)?);
        let layout = Layout::new(&config.prefix);
        let shared = Shared::new();
        let seconds = i64::try_from(config.lease.as_secs().clamp(2, 60)).unwrap_or(60);
        let keeper = Keeper::new(client.clone(), shared.clone(), &config);
        let store = Self { client, layout, shared, address: config.address, lease: seconds, lead: None };
        Ok((store, keeper))
    }

    /// The address of the controller that leads, as far as this one has seen.
    #[must_use]
    pub fn leader(&self) -> watch::Receiver<Option<String>> {
        self.shared.leader()
    }

    fn held(&self, epoch: Epoch) -> Result<Lead, Error> {
        match self.lead {
            Some(lead) if lead.epoch == epoch && self.shared.lease().is_some() => Ok(lead),
            Some(lead) if lead.epoch == epoch => Err(lead::run_out(epoch)),
            Some(lead) => Err(fenced(epoch, lead.epoch)),
            None => Err(fenced(epoch, Epoch::default())),
        }
    }
}

impl Store for Etcd {
    /// Waits while another leads.
    fn campaign(&mut self) -> impl Future<Output = Result<Epoch, Error>> + Send {
        self.campaign_now(None)
    }

    /// Waits while another leads.
    fn begin(&mut self, incarnation: u64) -> impl Future<Output = Result<Epoch, Error>> + Send {
        self.campaign_now(Some(incarnation))
    }

    fn load(&mut self, prefix: &str) -> impl Future<Output = Result<Vec<(String, Vec<u8>)>, Error>> + Send {
        let prefix = prefix.to_owned();
        async move { self.load_now(&prefix).await }
    }

    fn commit(&mut self, epoch: Epoch, batch: Batch) -> impl Future<Output = Result<(), Error>> + Send {
        self.commit_now(epoch, batch)
    }

    fn last_batch(&mut self) -> impl Future<Output = Result<Option<(Epoch, u64)>, Error>> + Send {
        self.last_now()
    }

    fn still_leads(&self) -> bool {
        self.lead.is_some() && self.shared.lease().is_some()
    }

    fn lead_over(&self) -> impl Future<Output = ()> + Send + 'static {
        self.shared.over()
    }

    fn resign(&mut self) -> impl Future<Output = ()> + Send {
        self.resign_now()
    }
}
