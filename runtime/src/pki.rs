//! A small certificate authority.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};

use crate::tls::{Identity, Role, SERVER_NAME, addresses_of_pem, peer_of_pem};

/// How long before it was made a certificate is good: for hosts whose clocks run behind.
pub const SLACK: Duration = Duration::from_secs(3600);

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
        self.issue_for(role, name, addresses, lasting(days))
    }

    /// As [`Self::issue`], for a life of its own.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn issue_for(
        &self,
        role: Role,
        name: &str,
        addresses: &[IpAddr],
        life: Duration,
    ) -> Result<Identity, PkiError> {
        let key = KeyPair::generate()?;
        let params = leaf(role, name, addresses, life)?;
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { ca: self.cert.clone(), cert, key: key.serialize_pem() })
    }

    /// Makes a certificate like one that is there, for the same key, valid for `days` from now.
    ///
    /// # Errors
    ///
    /// [`PkiError`] if that one is none of this cluster's.
    pub fn renew(&self, old: &Identity, days: u32) -> Result<Identity, PkiError> {
        let peer = peer_of_pem(&old.cert).ok_or_else(|| PkiError::Name("a certificate without a name".to_owned()))?;
        let params = leaf(peer.role, &peer.name, &addresses_of_pem(&old.cert), lasting(days))?;
        let key = KeyPair::from_pem(&old.key)?;
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { cert, ca: self.cert.clone(), key: old.key.clone() })
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
        let params = leaf(role, name, &[], lasting(days))?;
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

/// Makes a signing request of a key that is there; both PEM. Who it is for the signer says.
///
/// # Errors
///
/// [`PkiError`] if it is no key.
pub fn csr_of(key_pem: &str) -> Result<String, PkiError> {
    let key = KeyPair::from_pem(key_pem)?;
    Ok(CertificateParams::default().serialize_request(&key)?.pem()?)
}

/// When a certificate (PEM) should be renewed: two thirds of its life after it was made; milliseconds since 1970.
#[must_use]
pub fn renewal_due(cert_pem: &str) -> Option<u64> {
    let made = i64::try_from(SLACK.as_secs()).ok()? + peer_of_pem(cert_pem)?.valid.0;
    let ends = ends(cert_pem)?;
    let made = u64::try_from(made).ok()?.saturating_mul(1000);
    Some(ends.saturating_sub(ends.saturating_sub(made) / 3))
}

/// When a certificate (PEM) ends, in milliseconds since 1970.
#[must_use]
pub fn ends(cert_pem: &str) -> Option<u64> {
    u64::try_from(peer_of_pem(cert_pem)?.valid.1).ok().map(|seconds| seconds.saturating_mul(1000))
}

fn named(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// Whether this can be a name in a certificate: 1 to 63 of letters, digits, `-`, `.`, `_` and `@`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '@');
    !name.is_empty() && name.len() <= 63 && name.chars().all(fits)
}

fn lasting(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}

fn leaf(role: Role, name: &str, addresses: &[IpAddr], life: Duration) -> Result<CertificateParams, PkiError> {
    if !is_name(name) {
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
    // Drawn for each: a renewed certificate has the key of the one before, but is another one. Positive, and of full
    // length (RFC 5280, section 4.1.2.2).
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x3f | 0x40;
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    let now = std::time::SystemTime::now();
    params.not_before = (now - SLACK).into();
    params.not_after = (now + life).into();
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
    fn a_renewed_certificate_is_another_one_of_the_same_key_and_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path()).unwrap();
        let local: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let old = authority.issue(Role::Controller, "c1", &local, 3).unwrap();
        let new = authority.renew(&old, 6).unwrap();
        assert_eq!((addresses_of_pem(&new.cert).as_slice(), &new.key), (&local[..], &old.key));
        let (old_peer, new_peer) = (peer_of_pem(&old.cert).unwrap(), peer_of_pem(&new.cert).unwrap());
        assert_ne!(old_peer.serial, new_peer.serial);
        crate::shown::Shown::new(&new).unwrap();
        let life = |pem: &str| (ends(pem).unwrap() - renewal_due(pem).unwrap()) / 1000;
        assert_eq!([life(&old.cert), life(&new.cert)], [86_400, 2 * 86_400]);
        let csr = csr_of(&old.key).unwrap();
        let signed = authority.sign_csr(&csr, Role::Agent, "n1", 1).unwrap();
        crate::shown::Shown::new(&Identity { cert: signed, ..old }).unwrap();
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
