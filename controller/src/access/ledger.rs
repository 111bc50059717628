//! Who was let in: the one owner of tokens, certificates and what was taken back.
//!
//! The driver asks it, commits what it writes with all else, and shows what was
//! saved on the [`Board`] that the gate looks at.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use model::{Certificate, Revocation, Timestamp, Token};
use runtime::pki::SLACK;
use runtime::tls::Peer;
use store::record;
use tokio::sync::watch;

/// Tokens that may wait for their use.
const TOKENS: usize = 10_000;
/// Certificates that are remembered.
const CERTIFICATES: usize = 100_000;
/// How long a certificate that has ended is still listed, in milliseconds.
const REMEMBERED: u64 = 30 * 86_400_000;

/// What is known of everybody's certificates and tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    tokens: BTreeMap<String, Token>,
    certificates: BTreeMap<String, Certificate>,
    names: BTreeMap<String, Revocation>,
}

/// What the ledger is asked to do.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// Remember a token.
    Make(Token),
    /// Exchange the token of this digest for a certificate.
    Use { digest: String, certificate: Certificate },
    /// Remember a certificate that was renewed, or is seen for the first time.
    Know(Certificate),
    /// Take back what has this serial number, or all that this name has.
    Revoke { word: String, revocation: Revocation },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is remembered.
    Done,
    /// These were taken back, and so many tokens.
    Revoked { certificates: Vec<Certificate>, tokens: usize },
    /// The token is unknown or was used.
    NoToken,
    /// The token's time is over.
    Expired,
    /// The token is another one's.
    Other { role: String, name: String },
    /// There are too many already.
    Full,
}

/// One change of what is remembered.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Token(Token),
    Used(String),
    Certificate(Certificate),
    Forgotten(String),
    Name(String, Revocation),
}

impl Ledger {
    /// From what the store remembers.
    pub(crate) fn restore(
        tokens: Vec<Token>,
        certificates: Vec<Certificate>,
        names: Vec<(String, Revocation)>,
    ) -> Self {
        Self {
            tokens: tokens.into_iter().map(|token| (token.digest.clone(), token)).collect(),
            certificates: certificates.into_iter().map(|one| (one.serial.clone(), one)).collect(),
            names: names.into_iter().collect(),
        }
    }

    /// Does what is asked, and says what has to be saved.
    pub(crate) fn take(&mut self, ask: Ask, now: Timestamp) -> (Answer, Vec<Change>) {
        let mut changes = self.swept(now);
        let answer = match ask {
            Ask::Make(_) if self.tokens.len() >= TOKENS => Answer::Full,
            Ask::Make(token) => {
                changes.push(Change::Token(token));
                Answer::Done
            }
            Ask::Use { digest, certificate } => match self.tokens.get(&digest) {
                _ if self.certificates.len() >= CERTIFICATES => Answer::Full,
                None => Answer::NoToken,
                // Before anything that tells of it: one whose time is over is of nobody's interest.
                Some(token) if token.expires <= now => Answer::Expired,
                Some(token) if token.role != certificate.role || token.name != certificate.name => {
                    Answer::Other { role: token.role.clone(), name: token.name.clone() }
                }
                Some(_) => {
                    changes.extend([Change::Used(digest), Change::Certificate(certificate)]);
                    Answer::Done
                }
            },
            Ask::Know(certificate) if self.certificates.contains_key(&certificate.serial) => Answer::Done,
            Ask::Know(_) if self.certificates.len() >= CERTIFICATES => Answer::Full,
            Ask::Know(certificate) => {
                changes.push(Change::Certificate(certificate));
                Answer::Done
            }
            Ask::Revoke { word, revocation } => self.revoke(&word, &revocation, &mut changes),
        };
        changes.iter().for_each(|change| self.apply(change.clone()));
        (answer, changes)
    }

    fn revoke(&self, word: &str, revocation: &Revocation, changes: &mut Vec<Change>) -> Answer {
        let of_name = |one: &&Certificate| one.name == word || one.serial == word;
        let there: Vec<&Certificate> = self.certificates.values().filter(of_name).collect();
        let tokens: Vec<&Token> = self.tokens.values().filter(|token| token.name == word).collect();
        let open = there.iter().filter(|one| one.revoked.is_none());
        let certificates: Vec<Certificate> =
            open.map(|one| Certificate { revoked: Some(revocation.clone()), ..(*one).clone() }).collect();
        changes.extend(certificates.iter().cloned().map(Change::Certificate));
        changes.extend(tokens.iter().map(|token| Change::Used(token.digest.clone())));
        // Also what was made beside the controller and never shown; a number is one certificate's alone.
        if !there.iter().any(|one| one.serial == word) {
            changes.push(Change::Name(word.to_owned(), revocation.clone()));
        }
        Answer::Revoked { certificates, tokens: tokens.len() }
    }

    /// What is over is not kept for ever. Who was revoked is listed until the certificate ends.
    fn swept(&self, now: Timestamp) -> Vec<Change> {
        let tokens = self.tokens.values().filter(|token| now.since(token.expires) > REMEMBERED);
        let ended = self.certificates.values().filter(|one| now.since(one.expires) > REMEMBERED);
        let tokens = tokens.map(|token| Change::Used(token.digest.clone()));
        tokens.chain(ended.map(|one| Change::Forgotten(one.serial.clone()))).take(64).collect()
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Token(token) => drop(self.tokens.insert(token.digest.clone(), token)),
            Change::Used(digest) => drop(self.tokens.remove(&digest)),
            Change::Certificate(one) => drop(self.certificates.insert(one.serial.clone(), one)),
            Change::Forgotten(serial) => drop(self.certificates.remove(&serial)),
            Change::Name(name, revocation) => drop(self.names.insert(name, revocation)),
        }
    }

    /// Whether this certificate was taken back.
    fn revoked(&self, peer: &Peer) -> bool {
        if let Some(known) = self.certificates.get(&peer.serial) {
            return known.revoked.is_some();
        }
        let given = u64::try_from(peer.valid.0).unwrap_or(0).saturating_add(SLACK.as_secs());
        self.names.contains_key(&peer.serial)
            || self.names.get(&peer.name).is_some_and(|revoked| given <= revoked.at.0 / 1000)
    }
}

impl Change {
    /// What is put into the store, or taken out of it.
    pub(crate) fn record(&self) -> (String, Option<Vec<u8>>) {
        let put = |(key, value)| (key, Some(value));
        match self {
            Self::Token(token) => put(record::token(token)),
            Self::Certificate(certificate) => put(record::certificate(certificate)),
            Self::Name(name, revocation) => put(record::revoked_name(name, revocation)),
            Self::Used(digest) => (record::token_key(digest), None),
            Self::Forgotten(serial) => (record::certificate_key(serial), None),
        }
    }
}

/// What of the ledger was saved, for whoever looks; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    shown: Arc<RwLock<Ledger>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Board {
    /// Shows what was saved.
    pub(crate) fn apply(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        changes.into_iter().for_each(|change| shown.apply(change));
        drop(shown);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Shows what was loaded.
    pub(crate) fn replace(&self, ledger: Ledger) {
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = ledger;
        self.changed.send_modify(|count| *count += 1);
    }

    /// Counts the changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether this certificate was taken back.
    pub(crate) fn revoked(&self, peer: &Peer) -> bool {
        self.look(|ledger| ledger.revoked(peer))
    }

    /// Whether this certificate is remembered.
    pub(crate) fn knows(&self, serial: &str) -> bool {
        self.look(|ledger| ledger.certificates.contains_key(serial))
    }

    /// All tokens that wait.
    pub(crate) fn tokens(&self) -> Vec<Token> {
        self.look(|ledger| ledger.tokens.values().cloned().collect())
    }

    /// All certificates that are remembered.
    pub(crate) fn certificates(&self) -> Vec<Certificate> {
        self.look(|ledger| ledger.certificates.values().cloned().collect())
    }

    fn look<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use runtime::tls::Role;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn token(digest: &str, name: &str, expires: u64) -> Token {
        let (role, by) = ("agent".to_owned(), "ada".to_owned());
        Token { digest: digest.into(), role, name: name.into(), by, made: NOW, expires: Timestamp(expires) }
    }

    fn certificate(serial: &str, name: &str) -> Certificate {
        let (role, expires) = ("agent".to_owned(), NOW.after_ms(1000));
        Certificate { serial: serial.into(), role, name: name.into(), known: NOW, expires, revoked: None }
    }

    fn peer(serial: &str, name: &str, given_ms: u64) -> Peer {
        let from = i64::try_from(given_ms / 1000 - SLACK.as_secs()).unwrap();
        Peer { role: Role::Agent, name: name.into(), serial: serial.into(), valid: (from, i64::MAX) }
    }

    fn revoke(word: &str, at: Timestamp) -> Ask {
        Ask::Revoke { word: word.into(), revocation: Revocation { by: "ada".into(), at, reason: String::new() } }
    }

    #[test]
    fn a_token_is_good_once_for_its_holder_and_time() {
        let mut ledger = Ledger::default();
        ledger.take(Ask::Make(token("t", "n1", NOW.0 + 5)), NOW);
        ledger.take(Ask::Make(token("old", "n1", NOW.0)), NOW);
        let using = |digest: &str, name: &str| Ask::Use { digest: digest.into(), certificate: certificate("1", name) };
        let table = [
            (using("t", "n2"), Answer::Other { role: "agent".into(), name: "n1".into() }),
            (using("old", "n1"), Answer::Expired),
            (using("none", "n1"), Answer::NoToken),
            (using("t", "n1"), Answer::Done),
            (using("t", "n1"), Answer::NoToken),
        ];
        for (ask, expected) in table {
            assert_eq!(ledger.take(ask.clone(), NOW).0, expected, "{ask:?}");
        }
    }

    #[test]
    fn what_was_taken_back_is_so_by_number_by_name_and_unseen() {
        let mut ledger = Ledger::default();
        for (serial, name) in [("1", "n1"), ("2", "n1"), ("3", "n2")] {
            ledger.take(Ask::Know(certificate(serial, name)), NOW);
        }
        ledger.take(Ask::Make(token("t", "n1", NOW.0 + 5)), NOW);
        assert_eq!(ledger.take(revoke("77", NOW), NOW).0, Answer::Revoked { certificates: Vec::new(), tokens: 0 });
        assert!(ledger.revoked(&peer("77", "n9", NOW.0 + 5000)), "never seen, and out");
        let (answer, _) = ledger.take(revoke("1", NOW), NOW);
        assert!(matches!(answer, Answer::Revoked { certificates, tokens: 0 } if certificates.len() == 1));
        assert!(ledger.revoked(&peer("1", "n1", NOW.0)) && !ledger.revoked(&peer("2", "n1", NOW.0)));
        assert!(!ledger.revoked(&peer("9", "n1", NOW.0)), "one certificate says nothing of another");

        let (answer, changes) = ledger.take(revoke("n1", NOW), NOW);
        assert!(matches!(answer, Answer::Revoked { certificates, tokens: 1 } if certificates.len() == 1));
        assert_eq!(changes.len(), 3);
        assert!(ledger.tokens.is_empty());
        for (serial, name, given, refused) in [
            ("2", "n1", NOW.0, true),
            ("9", "n1", NOW.0, true),
            ("9", "n1", NOW.0 + 1000, false),
            ("3", "n2", NOW.0, false),
        ] {
            assert_eq!(ledger.revoked(&peer(serial, name, given)), refused, "{serial} {given}");
        }
        // A new one of that name is good, in the same second too.
        ledger.take(Ask::Know(certificate("10", "n1")), NOW);
        assert!(!ledger.revoked(&peer("10", "n1", NOW.0)));
    }

    #[test]
    fn a_board_shows_what_the_records_say() {
        let (mut ledger, board) = (Ledger::default(), Board::default());
        let (_, changes) = ledger.take(Ask::Know(certificate("1", "n1")), NOW);
        let (key, value) = changes[0].record();
        assert_eq!(record::load_certificates(&[(key, value.unwrap())]).unwrap(), [certificate("1", "n1")]);
        assert!(!board.knows("1"));
        board.apply(changes);
        assert!(board.knows("1"));
        // Long after its end nothing of it is left.
        let (_, changes) = ledger.take(Ask::Know(certificate("2", "n2")), NOW.after_ms(REMEMBERED + 5000));
        assert_eq!(changes[0].record(), ("certificates/1".to_owned(), None));
    }
}
