//! Where a controller remembers, as it tells those who ask how it fares.

use store::etcd::Sight;
use tokio::sync::watch;

/// Where a controller remembers.
#[derive(Clone, Debug)]
pub enum Memory {
    /// In a file of its own, or nowhere.
    Alone(&'static str),
    /// In an etcd that it shares with others.
    Etcd(watch::Receiver<Sight>),
}

impl Memory {
    /// In a few words.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Alone(name) => (*name).to_owned(),
            Self::Etcd(sight) => {
                let sight = sight.borrow();
                let answer = sight.members.iter().filter(|member| !member.version.is_empty());
                let size = answer.clone().map(|member| member.size).max().unwrap_or(0);
                let (up, all, size) = (answer.count(), sight.members.len(), size / 1000);
                format!("etcd, {up} of {all} members answer, {size} kB")
            }
        }
    }

    /// What is wrong with it: a stable name, a sentence, the next step.
    #[must_use]
    pub fn alarms(&self) -> Vec<(String, String, String)> {
        match self {
            Self::Alone(_) => Vec::new(),
            Self::Etcd(sight) => {
                let told =
                    |alarm: &store::etcd::Alarm| (alarm.code.to_owned(), alarm.message.clone(), alarm.hint.clone());
                sight.borrow().alarms.iter().map(told).collect()
            }
        }
    }
}
