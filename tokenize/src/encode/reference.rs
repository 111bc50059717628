//! The reference encoder: the stable `tokenizers`, as the Python tool uses it.

use tokenizers::{Encoding, Tokenizer};

use super::{Encoder, Fault, Session};

pub(super) struct Reference {
    inner: Tokenizer,
}

impl Reference {
    /// Builds the encoder from the text of a `tokenizer.json`.
    pub(super) fn load(text: &[u8], split_special_tokens: bool) -> Result<Self, String> {
        let mut inner = Tokenizer::from_bytes(text).map_err(|error| error.to_string())?;
        // The reference call neither truncates nor pads, whatever the file says.
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        inner.with_padding(None);
        inner.set_encode_special_tokens(split_special_tokens);
        Ok(Self { inner })
    }

    /// The size of the vocabulary, and the id of `eos` if it has one.
    ///
    /// # Errors
    ///
    /// If an id is too large for the output, or is not the `expected` one.
    pub(super) fn describe(
        &self,
        eos: Option<&str>,
        expected: &[(u32, String)],
    ) -> Result<(usize, Option<u32>), String> {
        for (id, token) in expected {
            let found = self.inner.token_to_id(token);
            if found != Some(*id) {
                return Err(format!("`tokenizer_config.json` gives `{token}` the id {id}, `tokenizer.json` {found:?}"));
            }
        }
        let largest = self.inner.get_vocab(true).into_values().max();
        if largest.is_some_and(|id| i32::try_from(id).is_err()) {
            return Err("an id of its vocabulary does not fit 31 bits".to_owned());
        }
        let eos = eos.and_then(|token| self.inner.token_to_id(token));
        Ok((self.inner.get_vocab_size(true), eos))
    }
}

impl Encoder for Reference {
    fn session(&self, additions: bool) -> Box<dyn Session + '_> {
        Box::new(ReferenceSession { encoder: self, additions, encoding: Encoding::default() })
    }

    fn text_of(&self, ids: &[u32]) -> Option<String> {
        self.inner.decode(ids, false).ok()
    }

    fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    fn name(&self) -> &'static str {
        "reference"
    }
}

struct ReferenceSession<'encoder> {
    encoder: &'encoder Reference,
    additions: bool,
    encoding: Encoding,
}

impl Session for ReferenceSession<'_> {
    fn encode(&mut self, text: &str) -> Result<&[u32], Fault> {
        let encoded = self.encoder.inner.encode_fast(text, self.additions);
        self.encoding = encoded.map_err(|error| Fault::Failed(error.to_string()))?;
        Ok(self.encoding.get_ids())
    }
}
