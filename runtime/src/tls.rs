//! Who is who: identities, TLS configurations, and the peer of a request.

use std::fs;
use std::io;
use std::net::IpAddr;
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

/// What the holder of a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A host's agent.
    Agent,
    /// A person or program that looks and changes nothing.
    Viewer,
    /// A person or program with jobs of its own.
    User,
    /// Looks after nodes and everybody's jobs.
    Operator,
    /// Also says who else may do what.
    Admin,
    /// A controller.
    Controller,
}

impl Role {
    /// All of them; people's roles in the order of what they may.
    pub const ALL: [Self; 6] = [Self::Agent, Self::Viewer, Self::User, Self::Operator, Self::Admin, Self::Controller];

    /// The role's part of a certificate's URI.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Viewer => "viewer",
            Self::User => "user",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Controller => "controller",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// The other end of a connection, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is.
    pub role: Role,
    /// Node id or user name.
    pub name: String,
    /// The certificate's serial number, in hex digits.
    pub serial: String,
    /// From when to when the certificate is good, in seconds since 1970.
    pub valid: (i64, i64),
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

/// Reads the `qctl://role/name` of a DER certificate, and which one it is.
///
/// `None` for one whose URI is not ours: the handshake has checked the signature, not the name.
#[must_use]
pub fn peer_of_der(der: &[u8]) -> Option<Peer> {
    let (_, cert) = x509_parser::parse_x509_certificate(der).ok()?;
    let names = cert.subject_alternative_name().ok()??;
    let (role, name) = names.value.general_names.iter().find_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        let (role, name) = uri.strip_prefix("qctl://")?.split_once('/')?;
        Some((Role::named(role)?, name.to_owned()))
    })?;
    let serial = cert.tbs_certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    let validity = cert.validity();
    Some(Peer { role, name, serial, valid: (validity.not_before.timestamp(), validity.not_after.timestamp()) })
}

/// As [`peer_of_der`], for the first certificate of a PEM text.
#[must_use]
pub fn peer_of_pem(pem: &str) -> Option<Peer> {
    let (_, first) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    peer_of_der(&first.contents)
}

/// The addresses that a certificate (PEM) carries.
#[must_use]
pub fn addresses_of_pem(pem: &str) -> Vec<IpAddr> {
    let Ok((_, first)) = x509_parser::pem::parse_x509_pem(pem.as_bytes()) else { return Vec::new() };
    let Ok(cert) = first.parse_x509() else { return Vec::new() };
    let Ok(Some(names)) = cert.subject_alternative_name() else { return Vec::new() };
    let address = |name: &GeneralName<'_>| {
        let GeneralName::IPAddress(bytes) = name else { return None };
        let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
        four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok()
    };
    names.value.general_names.iter().filter_map(address).collect()
}
