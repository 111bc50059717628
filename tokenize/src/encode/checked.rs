//! The fast encoder under supervision.

use super::disputed::is_disputed;
use super::{Encoder, Fault, Session, guarded};

/// Of so many bytes one is encoded twice: some percent of the time.
const AUDIT_SHARE: u64 = 4096;
/// What each session encodes twice at its beginning, in bytes.
const AUDIT_FIRST: u64 = 8 << 10;
/// Longer texts are not audited, in bytes: one must not cost as much as all.
const AUDIT_LONGEST: usize = 64 << 10;

/// Encodes with `fast` where both agree by their tables, with `reference`
/// elsewhere, and compares the two on samples of the work itself.
pub(super) struct Checked {
    /// None if it was not wanted, could not load, or was refuted.
    fast: Option<Box<dyn Encoder>>,
    reference: Box<dyn Encoder>,
}

impl Checked {
    pub(super) fn new(fast: Option<Box<dyn Encoder>>, reference: Box<dyn Encoder>) -> Self {
        Self { fast, reference }
    }

    /// Compares the two on every text that is not disputed anyway, and says
    /// where they differ.
    pub(super) fn first_difference<'text>(&self, texts: impl Iterator<Item = &'text str>) -> Option<String> {
        let (mut fast, mut reference) = (self.fast.as_ref()?.session(true), self.reference.session(true));
        for text in texts.filter(|text| !is_disputed(text)) {
            let ids = |session: &mut dyn Session| {
                guarded(|| session.encode(text).map(<[u32]>::to_vec).map_err(|fault| fault.to_string()))
            };
            if ids(fast.as_mut()) != ids(reference.as_mut()) {
                return Some(difference(text));
            }
        }
        None
    }

    pub(super) fn bare_fast(&self) -> Option<&dyn Encoder> {
        self.fast.as_deref()
    }

    /// Uses the reference alone from here on.
    pub(super) fn distrust_fast(&mut self) {
        self.fast = None;
    }
}

impl Encoder for Checked {
    fn session(&self, additions: bool) -> Box<dyn Session + '_> {
        let reference = self.reference.session(additions);
        match &self.fast {
            Some(fast) => Box::new(CheckedSession { fast: fast.session(additions), reference, seen: 0, audited: 0 }),
            None => reference,
        }
    }

    fn text_of(&self, ids: &[u32]) -> Option<String> {
        self.reference.text_of(ids)
    }

    fn id_of(&self, token: &str) -> Option<u32> {
        self.reference.id_of(token)
    }

    fn name(&self) -> &'static str {
        self.fast.as_ref().unwrap_or(&self.reference).name()
    }
}

struct CheckedSession<'encoder> {
    fast: Box<dyn Session + 'encoder>,
    reference: Box<dyn Session + 'encoder>,
    /// In bytes.
    seen: u64,
    /// In bytes.
    audited: u64,
}

impl Session for CheckedSession<'_> {
    fn encode(&mut self, text: &str) -> Result<&[u32], Fault> {
        if is_disputed(text) {
            return self.reference.encode(text);
        }
        let ids = self.fast.encode(text)?;
        self.seen += text.len() as u64;
        if self.audited <= AUDIT_FIRST + self.seen / AUDIT_SHARE && text.len() <= AUDIT_LONGEST {
            self.audited += text.len() as u64;
            if self.reference.encode(text)? != ids {
                return Err(Fault::Differs(difference(text)));
            }
        }
        Ok(ids)
    }
}

fn difference(text: &str) -> String {
    let start: String = text.chars().take(24).collect();
    format!("differs from the reference on a text that begins {start:?}")
}
