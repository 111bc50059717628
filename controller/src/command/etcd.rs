//! Where etcd is, on the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use store::etcd::{Config, Keeper, Tls};
use store::{Error, Etcd};

use super::Failure;

/// What `--store etcd` needs.
#[derive(Clone, Debug, Args)]
pub(crate) struct EtcdFlags {
    /// Addresses of etcd's members, with commas between: https://host:port
    #[arg(long = "etcd", value_name = "URLS", value_delimiter = ',')]
    endpoints: Vec<String>,
    /// CA of the members' certificates (PEM)
    #[arg(long = "etcd-ca", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Certificate to come with (PEM)
    #[arg(long = "etcd-cert", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long = "etcd-key", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Under which keys this cluster's are
    #[arg(long = "etcd-prefix", value_name = "PREFIX", default_value = "/qctl/")]
    prefix: String,
    /// How long the lead outlives a controller that died, in seconds
    #[arg(long = "etcd-lease", value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..=60))]
    lease: u64,
    /// Others use this etcd too: leave compaction and its space quota to its operator
    #[arg(long = "etcd-shared")]
    shared: bool,
}

impl EtcdFlags {
    /// The store, and what keeps its lease.
    pub(super) fn open(&self, address: String) -> Result<(Etcd, Keeper), Failure> {
        if self.endpoints.is_empty() {
            let hint = "name its members: --etcd https://a:2379,https://b:2379,https://c:2379";
            return Err(Failure::hinted(anyhow!("it is not said where etcd is"), Some(hint.to_owned())));
        }
        let mut config = Config::new(self.endpoints.clone(), address);
        config.prefix = self.prefix.clone();
        config.lease = Duration::from_secs(self.lease);
        config.maintain = !self.shared;
        config.tls = match &self.ca {
            Some(ca) => {
                let identity = match (&self.cert, &self.key) {
                    (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
                    (Some(_), None) | (None, _) => None,
                };
                Some(Tls { ca: read(ca)?, identity })
            }
            None => None,
        };
        Etcd::new(config).map_err(told)
    }
}

/// How others reach a controller: what it was told, or where it listens.
pub(super) fn advertised(told: Option<String>, listens: SocketAddr) -> Result<String, Failure> {
    match told {
        Some(address) if address.starts_with("https://") => Ok(address),
        Some(address) => Err(anyhow!("`{address}` is no controller address; expected https://host:port").into()),
        None if listens.ip().is_unspecified() => {
            let hint = "name an address that agents and users reach: --advertise https://host:port";
            Err(Failure::hinted(anyhow!("`{listens}` tells others no address"), Some(hint.to_owned())))
        }
        None => Ok(format!("https://{listens}")),
    }
}

/// A store's trouble, with its hint.
pub(super) fn told(error: Error) -> Failure {
    let hint = error.hint().map(str::to_owned);
    Failure::hinted(error, hint)
}

fn read(path: &Path) -> Result<String, Failure> {
    Ok(std::fs::read_to_string(path).with_context(|| format!("`{}` cannot be read", path.display()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_or_follows_from_where_it_listens() {
        let local: SocketAddr = "10.0.0.1:7400".parse().unwrap();
        let any: SocketAddr = "0.0.0.0:7400".parse().unwrap();
        assert_eq!(advertised(None, local).unwrap(), "https://10.0.0.1:7400");
        assert!(advertised(None, any).unwrap_err().hint.unwrap().contains("--advertise"));
        assert_eq!(advertised(Some("https://c:1".into()), any).unwrap(), "https://c:1");
        assert!(advertised(Some("c:1".into()), any).is_err());
    }
}
