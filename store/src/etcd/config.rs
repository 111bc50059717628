//! Where etcd is, and how it is used.

use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::{Error, Kind};

/// Where etcd is, and how it is used.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http(s)://host:port` of its members.
    pub endpoints: Vec<String>,
    /// For `https`: whom to trust, and as whom to come.
    pub tls: Option<Tls>,
    /// Under which all keys lie: several clusters can share one etcd.
    pub prefix: String,
    /// How others reach this controller; what it is called while it leads.
    pub address: String,
    /// How long the lead outlives a controller that died; 2 s to 60 s, whole seconds.
    pub lease: Duration,
    /// Whether this etcd is the cluster's own: then the leader compacts its history, and frees its space when
    /// it is full.
    pub maintain: bool,
    /// How often its members are looked at.
    pub look_every: Duration,
    /// How often history is compacted, up to one such span ago.
    pub compact_every: Duration,
}

/// PEM texts.
#[derive(Clone)]
pub struct Tls {
    /// Who signs the members' certificates.
    pub ca: String,
    /// Certificate and key of this client, where the members ask for one.
    pub identity: Option<(String, String)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls { .. }")
    }
}

impl Config {
    /// The usual timers.
    #[must_use]
    pub fn new(endpoints: Vec<String>, address: String) -> Self {
        Self {
            endpoints,
            tls: None,
            prefix: "/qctl/".to_owned(),
            address,
            lease: Duration::from_secs(3),
            maintain: true,
            look_every: Duration::from_secs(5),
            compact_every: Duration::from_secs(300),
        }
    }

    pub(super) fn endpoint(&self, url: &str) -> Result<Endpoint, Error> {
        let malformed = || {
            Error::new(Kind::Io, format!("`{url}` is no address of an etcd member"))
                .hinted("give `https://host:port` of each member, separated by commas")
        };
        let secure = url.starts_with("https://");
        if !secure && !url.starts_with("http://") {
            return Err(malformed());
        }
        let mut endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| malformed())?;
        if secure {
            let Some(tls) = &self.tls else {
                return Err(Error::new(Kind::Io, format!("`{url}` needs the CA of etcd's certificates"))
                    .hinted("name the file with --etcd-ca"));
            };
            let mut set = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
            if let Some((cert, key)) = &tls.identity {
                set = set.identity(Identity::from_pem(cert, key));
            }
            endpoint = endpoint
                .tls_config(set)
                .map_err(|error| Error::new(Kind::Io, "the certificates for etcd cannot be used").caused(error))?;
        }
        Ok(endpoint
            .connect_timeout(Duration::from_secs(1))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20))
    }
}
