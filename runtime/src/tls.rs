//! Who is who: identities, TLS configurations, and the peer of a request.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig, ServerTlsConfig};
use x509_parser::extensions::GeneralName;

/// The name that every controller's certificate carries.
pub const SERVER_NAME: &str = "qctl-controller";

/// A certificate, its key, and the CA that signed it; all PEM.
#[derive(Clone)]
pub struct Identity {
    /// The CA's certificate.
    pub ca: String,
    /// The holder's certificate.
    pub cert: String,
    /// The holder's private key.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity { .. }")
    }
}

/// Why an identity could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("`{}` could not be read", path.display())]
pub struct IdentityError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Identity {
    /// Reads `ca.pem`, `cert.pem` and `key.pem` of `dir`.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] naming the first file that cannot be read.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|source| IdentityError { path, source })
        };
        Ok(Self { ca: read("ca.pem")?, cert: read("cert.pem")?, key: read("key.pem")? })
    }

    /// Writes the three files into `dir`, the certificate last.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        crate::files::write_durably(&dir.join("ca.pem"), self.ca.as_bytes())?;
        crate::files::write_durably(&dir.join("key.pem"), self.key.as_bytes())?;
        crate::files::write_durably(&dir.join("cert.pem"), self.cert.as_bytes())
    }
}

/// What a client may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A host's agent.
    Agent,
    /// A person or program.
    User,
    /// A controller.
    Controller,
}

impl Role {
    /// The role's part of a certificate's URI.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::User => "user",
            Self::Controller => "controller",
        }
    }
}

/// The other end of a connection, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is.
    pub role: Role,
    /// Node id or user name.
    pub name: String,
}

/// Whether clients must present a certificate at the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They may; the call decides (Join has none yet).
    Optional,
    /// They must.
    Required,
}

/// Makes ring the process's one TLS provider. Repeated calls change nothing.
pub fn install_provider() {
    // An error means that a provider is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// TLS of a server that is `identity` and trusts clients of its CA.
#[must_use]
pub fn server_tls(identity: &Identity, auth: ClientAuth) -> ServerTlsConfig {
    install_provider();
    // The CA goes along: a joining agent looks for its pinned digest in the chain.
    let chain = format!("{}\n{}", identity.cert, identity.ca);
    ServerTlsConfig::new()
        .identity(tonic::transport::Identity::from_pem(chain, &identity.key))
        .client_ca_root(Certificate::from_pem(&identity.ca))
        .client_auth_optional(auth == ClientAuth::Optional)
}

/// TLS of a client that is `identity` and trusts its CA's controllers.
#[must_use]
pub fn client_tls(identity: &Identity) -> ClientTlsConfig {
    anonymous_tls(&identity.ca).identity(tonic::transport::Identity::from_pem(&identity.cert, &identity.key))
}

/// TLS of a client without a certificate.
#[must_use]
pub fn anonymous_tls(ca_pem: &str) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem)).domain_name(SERVER_NAME)
}

/// Reads who sent `request` from its client certificate.
///
/// `None` without a certificate, or with one whose URI is not ours: the
/// handshake has checked the signature, not the name.
pub fn peer<T>(request: &tonic::Request<T>) -> Option<Peer> {
    let certs = request.peer_certs()?;
    peer_of_der(certs.first()?)
}

/// Reads the `qctl://role/name` of a DER certificate.
#[must_use]
pub fn peer_of_der(der: &[u8]) -> Option<Peer> {
    let (_, cert) = x509_parser::parse_x509_certificate(der).ok()?;
    let names = cert.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        let (role, name) = uri.strip_prefix("qctl://")?.split_once('/')?;
        let role = [Role::Agent, Role::User, Role::Controller].into_iter().find(|r| r.name() == role)?;
        Some(Peer { role, name: name.to_owned() })
    })
}
