//! Text to ids: a fast encoder that has to prove itself against the reference.

mod checked;
mod config;
mod disputed;
mod fast;
mod reference;
mod sample;
mod slow;

use std::path::{Path, PathBuf};
use std::thread;

use crate::error::Error;

/// Which encoder to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The fast one as long as it agrees with the reference.
    #[default]
    Auto,
    /// The fast one; an error once it disagrees with the reference.
    Fast,
    /// The reference, whatever the fast one does.
    Reference,
}

/// Turns texts into ids; shared by all workers.
pub trait Encoder: Send + Sync {
    /// Opens what one thread needs to encode; `additions` are what the
    /// tokenizer puts around each text.
    fn session(&self, additions: bool) -> Box<dyn Session + '_>;

    /// The text of some ids, where this encoder can tell.
    fn text_of(&self, _ids: &[u32]) -> Option<String> {
        None
    }

    /// The id of one token, where this encoder can tell.
    fn id_of(&self, _token: &str) -> Option<u32> {
        None
    }

    /// The name that reports use.
    fn name(&self) -> &'static str;
}

/// One thread's encoder with its buffers.
pub trait Session {
    /// Encodes one text; the ids are valid until the next call.
    ///
    /// # Errors
    ///
    /// [`Fault::Differs`] if the fast encoder turns out not to be trusted.
    fn encode(&mut self, text: &str) -> Result<&[u32], Fault>;
}

/// Why a text has no ids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// What the tokenizer said.
    #[error("{0}")]
    Failed(String),
    /// Where the two encoders differ.
    #[error("the fast encoder {0}")]
    Differs(String),
}

/// A Hugging Face tokenizer directory, loaded.
pub struct Tokenizer {
    directory: PathBuf,
    encoder: checked::Checked,
    facts: config::Facts,
    vocab_size: usize,
    warnings: Vec<String>,
    backend: Backend,
}

impl Tokenizer {
    /// Loads `directory` and compares the two encoders on the built-in sample.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`] or [`Error::Tokenizer`] if it cannot be used.
    pub fn load(directory: &Path, backend: Backend) -> Result<Self, Error> {
        let files = config::Files::read(directory)?;
        let special = files.facts.split_special_tokens;
        let fault = |what: String| Error::Tokenizer { path: directory.to_owned(), what };
        // Each takes about a second for a large vocabulary.
        let (fast, reference) = thread::scope(|scope| {
            let fast = scope.spawn(|| match backend {
                Backend::Reference => Err("not asked for".to_owned()),
                Backend::Auto | Backend::Fast => guarded(|| fast::Fast::load(files.json.clone(), special)),
            });
            let reference = guarded(|| reference::Reference::load(&files.text, special));
            (fast.join().unwrap_or_else(|_| Err("it broke down while loading".to_owned())), reference)
        });
        let reference = reference.map_err(&fault)?;
        let (vocab_size, eos) =
            reference.describe(files.facts.eos_token.as_deref(), &files.facts.expected).map_err(&fault)?;
        let (fast, problem) = match fast {
            Ok(fast) => (Some(Box::new(fast) as Box<dyn Encoder>), None),
            Err(what) => (None, Some(format!("cannot load this tokenizer ({what})"))),
        };
        let mut tokenizer = Self {
            directory: directory.to_owned(),
            encoder: checked::Checked::new(fast, Box::new(reference)),
            facts: config::Facts { eos_id: eos, ..files.facts },
            vocab_size,
            warnings: files.warnings,
            backend,
        };
        problem.map_or(Ok(()), |what| tokenizer.refuse_fast(&what))?;
        let sample: Vec<String> = sample::texts(&tokenizer.facts.special);
        if let Some(what) = tokenizer.encoder.first_difference(sample.iter().map(String::as_str)) {
            tokenizer.refuse_fast(&what)?;
        }
        Ok(tokenizer)
    }

    /// The encoder to use.
    pub fn encoder(&self) -> &dyn Encoder {
        &self.encoder
    }

    /// The fast encoder without any supervision: for measuring only.
    pub fn bare_fast(&self) -> Option<&dyn Encoder> {
        self.encoder.bare_fast()
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Ids of the vocabulary with the added tokens.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The text of the end token.
    pub fn eos_token(&self) -> Option<&str> {
        self.facts.eos_token.as_deref()
    }

    /// The id of the end token.
    ///
    /// # Errors
    ///
    /// [`Error::NoEos`] if there is none, or it is not in the vocabulary.
    pub fn eos_id(&self) -> Result<u32, Error> {
        let fault = |what: String| Error::NoEos { path: self.directory.clone(), what };
        let Some(token) = &self.facts.eos_token else {
            return Err(fault("`tokenizer_config.json` names no `eos_token`".to_owned()));
        };
        self.facts.eos_id.ok_or_else(|| fault(format!("`{token}` is not in the vocabulary")))
    }

    /// The text of some ids, special tokens spelled out.
    pub fn decode(&self, ids: &[u32]) -> Option<String> {
        self.encoder.text_of(ids)
    }

    /// The id of a token that a prompt needs.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if it is not in the vocabulary.
    pub(crate) fn id_of(&self, token: &str) -> Result<u32, Error> {
        let what = format!("`{token}` is not in the vocabulary");
        self.encoder.id_of(token).ok_or(Error::Tokenizer { path: self.directory.clone(), what })
    }

    /// The id that fills up packed sequences: the padding token, or the end
    /// token of the prompt type.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if it is not in the vocabulary.
    pub fn packing_pad_id(&self) -> Result<u32, Error> {
        self.id_of(self.facts.pad_token.as_deref().unwrap_or(crate::recipe::END))
    }

    /// blake3 of `tokenizer.json` and `tokenizer_config.json`.
    pub fn digest(&self) -> &str {
        &self.facts.digest
    }

    /// What a careful user should know about this tokenizer.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Uses the reference alone from here on, and says why in a warning.
    ///
    /// # Errors
    ///
    /// [`Error::Differs`] if the fast encoder was demanded.
    pub(crate) fn refuse_fast(&mut self, what: &str) -> Result<(), Error> {
        match self.backend {
            Backend::Fast => return Err(Error::Differs { what: what.to_owned() }),
            Backend::Auto => self.warnings.push(format!("the fast encoder {what}: the slow reference encoder is used")),
            Backend::Reference => {}
        }
        self.encoder.distrust_fast();
        Ok(())
    }
}

#[cfg(test)]
impl Tokenizer {
    /// A tokenizer of two given encoders that nothing has been compared on.
    pub(crate) fn of(fast: Box<dyn Encoder>, reference: Box<dyn Encoder>, backend: Backend) -> Self {
        Self {
            directory: PathBuf::new(),
            encoder: checked::Checked::new(Some(fast), reference),
            facts: config::Facts::default(),
            vocab_size: 256,
            warnings: Vec::new(),
            backend,
        }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Tokenizer")
            .field("directory", &self.directory)
            .field("encoder", &self.encoder().name())
            .field("vocab_size", &self.vocab_size)
            .finish_non_exhaustive()
    }
}

/// Runs foreign code that may panic on a hostile file.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panic_text(panic.as_ref())))
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
