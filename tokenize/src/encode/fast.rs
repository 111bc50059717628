//! The fast encoder: `tokenizers` 1.0, a release candidate.

use serde_json::Value;
use tokenizers_fast::pipeline::{EncodeOptions, Override, PipelineToken, PipelineTokenizer};
use tokenizers_fast::{canonicalize_value, from_json};

use super::{Encoder, Fault, Session};

pub(super) struct Fast {
    inner: PipelineTokenizer,
    options: EncodeOptions,
}

impl Fast {
    /// Builds the encoder from a parsed `tokenizer.json`.
    pub(super) fn load(mut json: Value, split_special_tokens: bool) -> Result<Self, String> {
        canonicalize_value(&mut json).map_err(|error| error.to_string())?;
        let canonical = json.to_string();
        drop(json);
        let inner = from_json(&canonical).map_err(|error| error.to_string())?;
        // The reference call neither truncates nor pads, whatever the file says.
        let options = EncodeOptions {
            add_special_tokens: true,
            encode_special_tokens: split_special_tokens,
            padding: Override::Off,
            truncation: Override::Off,
        };
        Ok(Self { inner, options })
    }
}

impl Encoder for Fast {
    fn session(&self, additions: bool) -> Box<dyn Session + '_> {
        let options = EncodeOptions { add_special_tokens: additions, ..self.options.clone() };
        Box::new(FastSession { encoder: self, options, ids: Vec::new() })
    }

    fn name(&self) -> &'static str {
        "fast"
    }
}

struct FastSession<'encoder> {
    encoder: &'encoder Fast,
    options: EncodeOptions,
    ids: Vec<PipelineToken>,
}

impl Session for FastSession<'_> {
    fn encode(&mut self, text: &str) -> Result<&[u32], Fault> {
        self.ids.clear();
        self.encoder
            .inner
            .encode_into(text, &self.options, &mut self.ids)
            .map_err(|error| Fault::Failed(error.to_string()))?;
        Ok(PipelineToken::cast_slice(&self.ids))
    }
}
