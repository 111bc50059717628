//! The cluster's CA, known by its digest alone.
//!
//! The controller sends its CA's certificate behind its own. Nothing is
//! believed here: the handshake only shows the chain, and what is taken from
//! it is the certificate with the pinned digest. The connection that the token
//! goes through is another one, checked against that CA.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// How long the controller may take at each step.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks the controller for its chain, and returns the PEM of the certificate
/// whose digest is `pinned`; `None` if there is none in it. Blocks.
///
/// # Errors
///
/// Whatever the network or the handshake says.
pub fn find_ca(controller: &str, pinned: &str) -> io::Result<Option<String>> {
    let chain = show_chain(controller)?;
    let pems = chain.iter().map(|der| to_pem(der));
    Ok(pems.into_iter().find(|text| crate::pki::digest(text) == pinned))
}

fn to_pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}

fn show_chain(controller: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let authority = controller.strip_prefix("https://").unwrap_or(controller).trim_end_matches('/');
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    let address = authority.to_socket_addrs()?.next().ok_or_else(|| invalid("the name has no address"))?;
    let mut socket = TcpStream::connect_timeout(&address, LIMIT)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Looker(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(crate::tls::SERVER_NAME).map_err(|_| invalid("no server name"))?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(connection.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect())
}

/// Accepts every certificate: it is only looked at, and nothing is sent.
#[derive(Debug)]
struct Looker(Arc<CryptoProvider>);

impl ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_keeps_its_digest_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let authority = crate::pki::Authority::create(dir.path()).unwrap();
        let der = pem::parse(authority.cert()).unwrap().into_contents();
        assert_eq!(crate::pki::digest(&to_pem(&der)), authority.digest());
    }
}
