//! Channels to a controller.

use std::time::Duration;

use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tower::service_fn;

use crate::leader;
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

/// Makes a channel to a controller that connects when it is first used.
///
/// `endpoints` is one address, or several with commas between: then each
/// connection is made to the controller that leads, which is looked for anew
/// whenever a connection has ended.
///
/// Mutual TLS as `identity`; HTTP/2 keep-alive pings every 5 s with a 10 s
/// limit, so that a half-open connection is noticed by both sides.
///
/// # Errors
///
/// [`ChannelError`] if an address or the identity cannot be used.
pub fn channel(endpoints: &str, identity: &Identity) -> Result<Channel, ChannelError> {
    match addresses(endpoints).as_slice() {
        [one] => open(one, tls::client_tls(identity)),
        all => leading(all, identity),
    }
}

/// The addresses of a list with commas.
#[must_use]
pub fn addresses(endpoints: &str) -> Vec<String> {
    endpoints.split(',').map(|one| one.trim().trim_end_matches('/').to_owned()).collect()
}

fn leading(endpoints: &[String], identity: &Identity) -> Result<Channel, ChannelError> {
    let made = endpoints.iter().map(|one| endpoint(one, tls::client_tls(identity))).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = made.first().cloned() else { return Err(ChannelError::Address(String::new())) };
    // Every controller's certificate carries the same name, so the first one's settings are all one's.
    let first = first.connect_timeout(leader::LOOK + Duration::from_secs(5));
    let connector = service_fn(move |_| {
        let controllers = made.clone();
        async move { leader::connect(&controllers).await }
    });
    Ok(first.connect_with_connector_lazy(connector))
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

fn open(address: &str, tls: ClientTlsConfig) -> Result<Channel, ChannelError> {
    Ok(endpoint(address, tls)?.connect_lazy())
}

fn endpoint(address: &str, tls: ClientTlsConfig) -> Result<Endpoint, ChannelError> {
    crate::tls::install_provider();
    if !address.starts_with("https://") {
        return Err(ChannelError::Address(address.to_owned()));
    }
    let made = Endpoint::from_shared(address.to_owned()).map_err(|_| ChannelError::Address(address.to_owned()))?;
    let made =
        made.tls_config(tls).map_err(|source| ChannelError::Transport { endpoint: address.to_owned(), source })?;
    Ok(made
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_addresses_are_written_with_commas() {
        assert_eq!(addresses("https://a:1"), ["https://a:1"]);
        assert_eq!(addresses("https://a:1/, https://b:2"), ["https://a:1", "https://b:2"]);
    }

    #[tokio::test]
    async fn each_of_several_addresses_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let authority = crate::pki::Authority::create(dir.path()).unwrap();
        let user = authority.issue(tls::Role::User, "ada", &[], 1).unwrap();
        assert!(channel("https://a:1,https://b:2", &user).is_ok());
        for (list, wrong) in [("https://a:1,", ""), ("b:2,https://a:1", "b:2"), ("", "")] {
            let refused = channel(list, &user).unwrap_err();
            assert!(matches!(&refused, ChannelError::Address(address) if address == wrong), "{refused:?}");
        }
    }
}
