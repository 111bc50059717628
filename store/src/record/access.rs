//! Records of tokens, certificates and names that were taken back.

use model::{Certificate, Revocation, Timestamp, Token};
use prost::Message as _;

use super::decode::parse;
use super::wire;
use crate::Error;

/// Key of a token.
#[must_use]
pub fn token_key(digest: &str) -> String {
    format!("tokens/{digest}")
}

/// Key of a certificate.
#[must_use]
pub fn certificate_key(serial: &str) -> String {
    format!("certificates/{serial}")
}

/// Key and value of a token's record.
#[must_use]
pub fn token(token: &Token) -> (String, Vec<u8>) {
    let record = wire::Token {
        role: token.role.clone(),
        name: token.name.clone(),
        by: token.by.clone(),
        made: token.made.0,
        expires: token.expires.0,
    };
    (token_key(&token.digest), record.encode_to_vec())
}

/// Key and value of a certificate's record.
#[must_use]
pub fn certificate(certificate: &Certificate) -> (String, Vec<u8>) {
    let record = wire::Certificate {
        role: certificate.role.clone(),
        name: certificate.name.clone(),
        known: certificate.known.0,
        expires: certificate.expires.0,
        revoked: certificate.revoked.as_ref().map(revocation),
    };
    (certificate_key(&certificate.serial), record.encode_to_vec())
}

/// Key and value of the record that all certificates of a name were taken back.
#[must_use]
pub fn revoked_name(name: &str, revoked: &Revocation) -> (String, Vec<u8>) {
    (format!("revoked/{name}"), revocation(revoked).encode_to_vec())
}

/// Reads the entries below `tokens/`.
///
/// # Errors
///
/// [`crate::Kind::Corrupt`] naming the first record that cannot be read.
pub fn load_tokens(entries: &[(String, Vec<u8>)]) -> Result<Vec<Token>, Error> {
    let read = |(key, value): &(String, Vec<u8>)| {
        let record = parse::<wire::Token>(key, value)?;
        Ok(Token {
            digest: last(key),
            role: record.role,
            name: record.name,
            by: record.by,
            made: Timestamp(record.made),
            expires: Timestamp(record.expires),
        })
    };
    entries.iter().map(read).collect()
}

/// Reads the entries below `certificates/`.
///
/// # Errors
///
/// [`crate::Kind::Corrupt`] naming the first record that cannot be read.
pub fn load_certificates(entries: &[(String, Vec<u8>)]) -> Result<Vec<Certificate>, Error> {
    let read = |(key, value): &(String, Vec<u8>)| {
        let record = parse::<wire::Certificate>(key, value)?;
        Ok(Certificate {
            serial: last(key),
            role: record.role,
            name: record.name,
            known: Timestamp(record.known),
            expires: Timestamp(record.expires),
            revoked: record.revoked.map(taken_back),
        })
    };
    entries.iter().map(read).collect()
}

/// Reads the entries below `revoked/`.
///
/// # Errors
///
/// [`crate::Kind::Corrupt`] naming the first record that cannot be read.
pub fn load_revoked_names(entries: &[(String, Vec<u8>)]) -> Result<Vec<(String, Revocation)>, Error> {
    entries.iter().map(|(key, value)| Ok((last(key), taken_back(parse::<wire::Revocation>(key, value)?)))).collect()
}

fn revocation(revoked: &Revocation) -> wire::Revocation {
    wire::Revocation { by: revoked.by.clone(), at: revoked.at.0, reason: revoked.reason.clone() }
}

fn taken_back(record: wire::Revocation) -> Revocation {
    Revocation { by: record.by, at: Timestamp(record.at), reason: record.reason }
}

fn last(key: &str) -> String {
    key.split_once('/').map_or(key, |(_, last)| last).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again_and_damage_is_named() {
        let ours = Token {
            digest: "ab".into(),
            role: "agent".into(),
            name: "n1".into(),
            by: "ada".into(),
            made: Timestamp(1),
            expires: Timestamp(2),
        };
        let revoked = Revocation { by: "ada".into(), at: Timestamp(7), reason: "left".into() };
        let given = Certificate {
            serial: "0f".into(),
            role: "user".into(),
            name: "bob".into(),
            known: Timestamp(3),
            expires: Timestamp(4),
            revoked: Some(revoked.clone()),
        };
        assert_eq!(load_tokens(&[token(&ours)]).unwrap(), [ours]);
        let good = Certificate { revoked: None, ..given.clone() };
        assert_eq!(load_certificates(&[certificate(&given), certificate(&good)]).unwrap(), [given, good]);
        assert_eq!(load_revoked_names(&[revoked_name("bob", &revoked)]).unwrap(), [("bob".to_owned(), revoked)]);
        let damaged = [("tokens/ab".to_owned(), vec![0xff])];
        assert!(load_tokens(&damaged).unwrap_err().to_string().contains("tokens/ab"));
    }
}
