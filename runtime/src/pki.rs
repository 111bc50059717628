//! A small certificate authority.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use crate::tls::{Identity, Role, SERVER_NAME};

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("`{}` could not be used", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name, key or request is malformed.
    #[error("the certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// A node or user name that cannot stand in a certificate.
    #[error("`{0}` cannot be a name in a certificate")]
    Name(String),
}

/// A CA: its certificate, and the key that signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority { .. }")
    }
}

impl Authority {
    /// Makes a new CA and writes `ca.pem` and `ca.key` into `dir`.
    ///
    /// # Errors
    ///
    /// [`PkiError`] if the files cannot be written.
    pub fn create(dir: &Path) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("qctl CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key)?.pem();
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            crate::files::write_durably(&path, text.as_bytes()).map_err(|source| PkiError::File { path, source })
        };
        fs::create_dir_all(dir).map_err(|source| PkiError::File { path: dir.to_owned(), source })?;
        write("ca.key", &key.serialize_pem())?;
        write("ca.pem", &cert)?;
        Ok(Self { issuer: Issuer::new(params, key), cert })
    }

    /// Reads the CA that [`Self::create`] wrote into `dir`.
    ///
    /// # Errors
    ///
    /// [`PkiError`] if a file is missing or malformed.
    pub fn load(dir: &Path) -> Result<Self, PkiError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|source| PkiError::File { path, source })
        };
        let cert = read("ca.pem")?;
        let key = KeyPair::from_pem(&read("ca.key")?)?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&cert, key)?, cert })
    }

    /// The CA's certificate, PEM.
    #[must_use]
    pub fn cert(&self) -> &str {
        &self.cert
    }

    /// What a joining agent pins: `blake3:` and the hex digest of the CA's PEM.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.cert)
    }

    /// Makes a key and a certificate for `name`, valid for `days`.
    ///
    /// A controller's certificate also carries [`SERVER_NAME`] and `addresses`.
    ///
    /// # Errors
    ///
    /// [`PkiError`] if the name cannot stand in a certificate.
    pub fn issue(&self, role: Role, name: &str, addresses: &[IpAddr], days: u32) -> Result<Identity, PkiError> {
        let key = KeyPair::generate()?;
        let params = leaf(role, name, addresses, days)?;
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { ca: self.cert.clone(), cert, key: key.serialize_pem() })
    }

    /// Signs the key of a request as `name`; nothing else of the request is used.
    ///
    /// Returns the certificate, PEM.
    ///
    /// # Errors
    ///
    /// [`PkiError`] if the request is malformed.
    pub fn sign_csr(&self, csr_pem: &str, role: Role, name: &str, days: u32) -> Result<String, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        let params = leaf(role, name, &[], days)?;
        Ok(params.signed_by(&request.public_key, &self.issuer)?.pem())
    }
}

/// `blake3:` and the hex digest of a PEM text.
#[must_use]
pub fn digest(pem: &str) -> String {
    format!("blake3:{}", blake3::hash(pem.trim().as_bytes()).to_hex())
}

/// Makes a key and a signing request for `name`; both PEM.
///
/// # Errors
///
/// [`PkiError`] if no key can be made.
pub fn new_key_and_csr(name: &str) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    Ok((key.serialize_pem(), params.serialize_request(&key)?.pem()?))
}

fn named(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn leaf(role: Role, name: &str, addresses: &[IpAddr], days: u32) -> Result<CertificateParams, PkiError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '@');
    if name.is_empty() || name.len() > 63 || !name.chars().all(fits) {
        return Err(PkiError::Name(name.chars().take(64).collect()));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.subject_alt_names.push(SanType::URI(format!("qctl://{}/{name}", role.name()).try_into()?));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    if role == Role::Controller {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names.push(SanType::DnsName(SERVER_NAME.try_into()?));
        params.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
    }
    // An hour of slack for hosts whose clocks run behind.
    let now = std::time::SystemTime::now();
    params.not_before = (now - std::time::Duration::from_secs(3600)).into();
    params.not_after = (now + std::time::Duration::from_secs(u64::from(days) * 86_400)).into();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::peer_of_pem;

    fn holder(pem: &str) -> (Role, String) {
        let peer = peer_of_pem(pem).unwrap();
        assert_eq!(peer.serial.len() % 2, 0);
        assert!(peer.valid.1 - peer.valid.0 > 86_400, "{peer:?}");
        (peer.role, peer.name)
    }

    #[test]
    fn a_certificate_says_who_its_holder_is() {
        let dir = tempfile::tempdir().unwrap();
        Authority::create(dir.path()).unwrap();
        let authority = Authority::load(dir.path()).unwrap();
        for role in Role::ALL {
            let made = authority.issue(role, "ada", &[], 1).unwrap();
            assert_eq!(holder(&made.cert), (role, "ada".into()));
        }
        let (_, csr) = new_key_and_csr("anything").unwrap();
        let cert = authority.sign_csr(&csr, Role::Agent, "node-1", 1).unwrap();
        assert_eq!(holder(&cert), (Role::Agent, "node-1".into()));
    }

    #[test]
    fn names_that_could_be_read_as_another_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path()).unwrap();
        for bad in ["", "a/b", "a b", "a\n"] {
            assert!(authority.issue(Role::Agent, bad, &[], 1).is_err(), "{bad:?}");
        }
        assert!(authority.sign_csr("no request", Role::Agent, "a", 1).is_err());
    }
}
