//! Channels to a controller.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::tls::{self, Identity};

/// Why no channel could be made.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The address is no `https://host:port`.
    #[error("`{0}` is no controller address; expected https://host:port")]
    Address(String),
    /// The channel could not be set up.
    #[error("the channel to `{endpoint}` could not be set up")]
    Transport {
        /// Where to.
        endpoint: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Makes a channel to `endpoint` that connects when it is first used.
///
/// Mutual TLS as `identity`; HTTP/2 keep-alive pings every 5 s with a 10 s
/// limit, so that a half-open connection is noticed by both sides.
///
/// # Errors
///
/// [`ChannelError`] if the address or the identity cannot be used.
pub fn channel(endpoint: &str, identity: &Identity) -> Result<Channel, ChannelError> {
    open(endpoint, tls::client_tls(identity))
}

/// As [`channel`], for a client that has no certificate yet: the server must
/// present one signed by `ca_pem`.
///
/// # Errors
///
/// [`ChannelError`] if the address or the CA cannot be used.
pub fn anonymous_channel(endpoint: &str, ca_pem: &str) -> Result<Channel, ChannelError> {
    open(endpoint, tls::anonymous_tls(ca_pem))
}

fn open(endpoint: &str, tls: tonic::transport::ClientTlsConfig) -> Result<Channel, ChannelError> {
    crate::tls::install_provider();
    if !endpoint.starts_with("https://") {
        return Err(ChannelError::Address(endpoint.to_owned()));
    }
    let made = Endpoint::from_shared(endpoint.to_owned()).map_err(|_| ChannelError::Address(endpoint.to_owned()))?;
    let made = made
        .tls_config(tls)
        .map_err(|source| ChannelError::Transport { endpoint: endpoint.to_owned(), source })?
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20);
    Ok(made.connect_lazy())
}
