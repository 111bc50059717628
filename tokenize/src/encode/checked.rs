//! The fast encoder under supervision.

use super::disputed::is_disputed;
use super::{Encoder, Session, guarded};

/// One text in so many is encoded twice: some percent of the time.
const AUDIT_EVERY: u32 = 4096;
/// Longer texts are not audited, in bytes: one must not cost as much as all.
const AUDIT_BYTES: usize = 64 << 10;

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
        let (mut fast, mut reference) = (self.fast.as_ref()?.session(), self.reference.session());
        for text in texts.filter(|text| !is_disputed(text)) {
            let same = guarded(|| fast.encode(text).map(<[u32]>::to_vec))
                == guarded(|| reference.encode(text).map(<[u32]>::to_vec));
            if !same {
                return Some(difference(text));
            }
        }
        None
    }

    /// Uses the reference alone from here on.
    pub(super) fn distrust_fast(&mut self) {
        self.fast = None;
    }
}

impl Encoder for Checked {
    fn session(&self) -> Box<dyn Session + '_> {
        let reference = self.reference.session();
        match &self.fast {
            Some(fast) => Box::new(CheckedSession { fast: fast.session(), reference, until_audit: AUDIT_EVERY }),
            None => reference,
        }
    }

    fn name(&self) -> &'static str {
        self.fast.as_ref().unwrap_or(&self.reference).name()
    }
}

struct CheckedSession<'encoder> {
    fast: Box<dyn Session + 'encoder>,
    reference: Box<dyn Session + 'encoder>,
    until_audit: u32,
}

impl Session for CheckedSession<'_> {
    fn encode(&mut self, text: &str) -> Result<&[u32], String> {
        if is_disputed(text) {
            return self.reference.encode(text);
        }
        let ids = self.fast.encode(text)?;
        if self.until_audit > 0 {
            self.until_audit -= 1;
        } else if text.len() <= AUDIT_BYTES {
            self.until_audit = AUDIT_EVERY;
            if self.reference.encode(text)? != ids {
                return Err(format!("the fast encoder {}", difference(text)));
            }
        }
        Ok(ids)
    }
}

fn difference(text: &str) -> String {
    let start: String = text.chars().take(24).collect();
    format!("differs from the reference on a text that begins {start:?}")
}
