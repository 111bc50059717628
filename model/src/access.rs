//! Who was let in: tokens that wait for their use, certificates that were given, and those taken back.

use crate::Timestamp;

/// A token that somebody may become somebody with, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Digest of the token, in hex digits; the token itself is kept nowhere.
    pub digest: String,
    /// The role in the certificate that it is exchanged for.
    pub role: String,
    /// The name in that certificate.
    pub name: String,
    /// Who made it.
    pub by: String,
    /// When it was made.
    pub made: Timestamp,
    /// From when on it is good for nothing.
    pub expires: Timestamp,
}

/// A certificate of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its number, in hex digits.
    pub serial: String,
    /// What its holder is.
    pub role: String,
    /// Who its holder is.
    pub name: String,
    /// When it was given, or seen for the first time.
    pub known: Timestamp,
    /// From when on it is good for nothing.
    pub expires: Timestamp,
    /// By whom and when it was taken back.
    pub revoked: Option<Revocation>,
}

/// That something was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// By whom.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why, in the words of whoever did it.
    pub reason: String,
}
