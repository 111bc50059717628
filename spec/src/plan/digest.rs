//! Digests by which an unchanged stage is recognised.

/// A digest over named parts; two lists of parts never collide by their borders.
pub(super) struct Digest(blake3::Hasher);

impl Digest {
    /// Begins the digest of a stage's result.
    ///
    /// The format's number changes when the meaning of the parts does, the
    /// version when the engines may write something else.
    pub(super) fn new(kind: &str) -> Self {
        let mut digest = Self(blake3::Hasher::new_derive_key("qctl stage result, format 1"));
        digest.text("engine", env!("CARGO_PKG_VERSION"));
        digest.text("kind", kind);
        digest
    }

    pub(super) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.part(name.as_bytes());
        self.part(value.as_bytes());
        self
    }

    pub(super) fn list(&mut self, name: &str, values: &[String]) -> &mut Self {
        self.part(name.as_bytes());
        self.0.update(&(values.len() as u64).to_le_bytes());
        for value in values {
            self.part(value.as_bytes());
        }
        self
    }

    pub(super) fn bytes(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.part(name.as_bytes());
        self.part(value);
        self
    }

    pub(super) fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_between_parts_count() {
        let of = |a: &[&str]| {
            let words: Vec<String> = a.iter().map(|w| (*w).to_owned()).collect();
            Digest::new("x").list("args", &words).finish()
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab"]), of(&["ab", ""]));
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
    }
}
