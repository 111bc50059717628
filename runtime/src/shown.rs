//! The certificate that a server shows, replaced while it serves.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use crate::tls::Identity;

/// Why an identity cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShownError {
    /// A text is no PEM of what it should be.
    #[error("the {what} is malformed")]
    Pem {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Key and certificate do not fit, or cannot be used.
    #[error("the certificate cannot be used")]
    Tls(#[from] rustls::Error),
    /// The CA cannot be trusted.
    #[error("the CA's certificate cannot be used")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// What connections made from now on are shown; clones share it.
#[derive(Clone, Debug)]
pub struct Shown {
    key: Arc<RwLock<Arc<CertifiedKey>>>,
}

impl Shown {
    /// Shows `identity`.
    ///
    /// # Errors
    ///
    /// [`ShownError`] if it cannot be used.
    pub fn new(identity: &Identity) -> Result<Self, ShownError> {
        Ok(Self { key: Arc::new(RwLock::new(Arc::new(certified(identity)?))) })
    }

    /// Shows another identity from now on.
    ///
    /// # Errors
    ///
    /// [`ShownError`] if it cannot be used; then what was shown is shown.
    pub fn replace(&self, identity: &Identity) -> Result<(), ShownError> {
        let made = Arc::new(certified(identity)?);
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(())
    }

    /// TLS of a server that shows this and trusts clients of the CA; they may come without a certificate, and the
    /// call decides. A connection is not taken up again: each shows its certificate anew.
    ///
    /// # Errors
    ///
    /// [`ShownError`] if the CA cannot be used.
    pub fn server(&self, ca_pem: &str) -> Result<Arc<ServerConfig>, ShownError> {
        let provider = provider();
        let mut roots = RootCertStore::empty();
        roots.add(certificate("CA's certificate", ca_pem)?)?;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients.allow_unauthenticated().build()?)
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn certified(identity: &Identity) -> Result<CertifiedKey, ShownError> {
    // The CA goes along: a joining agent looks for its pinned digest in the chain.
    let chain = vec![certificate("certificate", &identity.cert)?, certificate("CA's certificate", &identity.ca)?];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
    let key = key.map_err(|source| ShownError::Pem { what: "key", source })?;
    Ok(CertifiedKey::from_der(chain, key, &provider())?)
}

fn certificate(what: &'static str, text: &str) -> Result<CertificateDer<'static>, ShownError> {
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|source| ShownError::Pem { what, source })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Authority;
    use crate::tls::Role;

    #[test]
    fn what_cannot_be_shown_leaves_what_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path()).unwrap();
        let made = |name: &str| authority.issue(Role::Controller, name, &[], 1).unwrap();
        let (first, second) = (made("a"), made("b"));
        let shown = Shown::new(&first).unwrap();
        shown.server(authority.cert()).unwrap();
        let leaf = || shown.key.read().unwrap().cert[0].clone();
        let before = leaf();
        let mismatched = Identity { key: second.key.clone(), ..first.clone() };
        assert!(shown.replace(&mismatched).is_err());
        assert!(shown.replace(&Identity { cert: "x".into(), ..first }).is_err());
        assert_eq!(leaf(), before);
        shown.replace(&second).unwrap();
        assert_ne!(leaf(), before);
    }
}
