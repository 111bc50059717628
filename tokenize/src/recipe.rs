//! From the texts of a row to the ids of each output: the reference's handlers.
//!
//! Source of the rules: MindSpeed-LLM 2.2.0, `tasks/preprocess/`.

use crate::encode::{Encoder, Fault, Session, Tokenizer};
use crate::error::Error;
use crate::fold::{KeyIds, NO_DOCUMENT};
use crate::input::Absent;

/// Which of the reference's handlers makes texts of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handler {
    /// `GeneralPretrainHandler`: each key is a text.
    #[default]
    Pretrain,
    /// `AlpacaPretrainHandler`: instruction, input and output in one text.
    AlpacaPretrain,
    /// `AlpacaStyleInstructionHandler --prompt-type qwen`: a chat of one turn
    /// whose question is masked in the labels.
    AlpacaInstruction,
}

/// The columns of an instruction.
const ALPACA: [&str; 3] = ["instruction", "input", "output"];
/// The outputs of instruction mode, as file names have them.
pub(crate) const PACKED: [&str; 3] = ["packed_input_ids", "packed_attention_mask", "packed_labels"];

/// The parts of the one text of [`Handler::AlpacaPretrain`].
const ALPACA_HEAD: &str = "A chat between a curious user and an artificial intelligence assistant. \
The assistant gives helpful, detailed, and polite answers to the user's questions.\
USER: Below is an instruction that describes a task. \
Write a response that appropriately completes the request.\n\n### Instruction:\n";
const ALPACA_INPUT: &str = " Input:\n";
const ALPACA_ANSWER: &str = "\n\n### Response: ASSISTANT: ";

/// The prompt type `qwen`.
const SYSTEM: &str = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n";
const USER: &str = "<|im_start|>user\n";
const ASSISTANT: &str = "<|im_end|>\n<|im_start|>assistant\n";
/// The prompt type's end token, which replaces the tokenizer's own.
pub(crate) const END: &str = "<|im_end|>";
/// Stands for the number of the turn in any prompt, the user's words included.
const TURN: &str = "{{idx}}";
/// The label of an id that is not learned.
const IGNORED: i32 = -100;
/// The longest conversation unless a length is given, in ids.
const CUTOFF: usize = 100_000;

impl Handler {
    /// The columns to read, given the keys asked for.
    pub(crate) fn inputs(self, keys: &[String]) -> Vec<String> {
        match self {
            Self::Pretrain => keys.to_vec(),
            Self::AlpacaPretrain | Self::AlpacaInstruction => ALPACA.map(str::to_owned).to_vec(),
        }
    }

    /// The names of the outputs, given the keys asked for.
    #[must_use]
    pub fn outputs(self, keys: &[String]) -> Vec<String> {
        match self {
            Self::Pretrain | Self::AlpacaPretrain => keys.to_vec(),
            Self::AlpacaInstruction => PACKED.map(str::to_owned).to_vec(),
        }
    }

    pub(crate) fn absent(self) -> Absent {
        match self {
            Self::Pretrain => Absent::Refused,
            Self::AlpacaPretrain => Absent::Anything,
            Self::AlpacaInstruction => Absent::Null,
        }
    }
}

/// A handler with its ids.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    handler: Handler,
    /// Ends each document.
    eod: Option<u32>,
    /// Fills each document up to a multiple.
    padding: Option<(usize, u32)>,
    /// Ends each answer.
    end: u32,
    cutoff: usize,
}

impl Recipe {
    /// Looks up the ids that `handler` needs.
    pub(crate) fn new(
        handler: Handler,
        append_eod: bool,
        pad_to_multiple_of: u32,
        seq_length: Option<u32>,
        tokenizer: &Tokenizer,
    ) -> Result<Self, Error> {
        let instruction = handler == Handler::AlpacaInstruction;
        let end = if instruction { tokenizer.id_of(END)? } else { 0 };
        let eod = match append_eod {
            false => None,
            true if instruction => Some(end),
            true => Some(tokenizer.eos_id()?),
        };
        let multiple = usize::try_from(pad_to_multiple_of).unwrap_or(usize::MAX);
        let padding = if handler == Handler::Pretrain && multiple > 1 {
            // The reference pads with the first id behind the vocabulary.
            let id = u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
            Some((multiple, id))
        } else {
            None
        };
        let cutoff = seq_length.map_or(CUTOFF, |length| usize::try_from(length).unwrap_or(usize::MAX));
        Ok(Self { handler, eod, padding, end, cutoff })
    }

    /// Opens what one thread needs to follow it.
    pub(crate) fn open<'run>(&'run self, encoder: &'run dyn Encoder) -> Result<Cook<'run>, Error> {
        // Elements of a chat are encoded without the tokenizer's own additions.
        let mut session = encoder.session(self.handler != Handler::AlpacaInstruction);
        let system = match self.handler {
            Handler::AlpacaInstruction => session.encode(SYSTEM).map_err(fault)?.to_vec(),
            Handler::Pretrain | Handler::AlpacaPretrain => Vec::new(),
        };
        Ok(Cook { recipe: self, session, system, text: String::new(), ids: Vec::new() })
    }
}

/// One thread's hand at a recipe.
pub(crate) struct Cook<'run> {
    recipe: &'run Recipe,
    session: Box<dyn Session + 'run>,
    system: Vec<u32>,
    text: String,
    ids: Vec<u32>,
}

impl Cook<'_> {
    /// Adds the ids of one row to each output.
    pub(crate) fn row(&mut self, texts: &[Option<&str>], outputs: &mut [KeyIds]) -> Result<(), Error> {
        match (self.recipe.handler, texts, outputs) {
            (Handler::Pretrain, texts, outputs) => {
                for (text, output) in texts.iter().zip(outputs) {
                    self.document(text.unwrap_or_default(), output)?;
                }
                Ok(())
            }
            (Handler::AlpacaPretrain, [instruction, input, answer], [output]) => {
                // What Python prints for no value.
                const NONE: &str = "None";
                let mut text = std::mem::take(&mut self.text);
                text.clear();
                text.push_str(ALPACA_HEAD);
                text.push_str(instruction.unwrap_or(NONE));
                text.push_str("\n\n###");
                match input.filter(|input| !input.is_empty()) {
                    Some(input) => {
                        text.push_str(ALPACA_INPUT);
                        text.push_str(input);
                    }
                    None => text.push_str(NONE),
                }
                text.push_str(ALPACA_ANSWER);
                text.push_str(answer.unwrap_or(NONE));
                let outcome = self.document(&text, output);
                self.text = text;
                outcome
            }
            (Handler::AlpacaInstruction, [instruction, input, answer], [ids, mask, labels]) => {
                let Some(answer) = answer else {
                    // The reference filters rows without an answer.
                    [ids, mask, labels].into_iter().for_each(|output| output.lengths.push(NO_DOCUMENT));
                    return Ok(());
                };
                self.chat(*instruction, *input, answer, [ids, mask, labels])
            }
            (Handler::AlpacaPretrain | Handler::AlpacaInstruction, _, _) => {
                Err(Error::Encode { what: "a row has not the columns of its handler".to_owned() })
            }
        }
    }

    fn document(&mut self, text: &str, output: &mut KeyIds) -> Result<(), Error> {
        if text.is_empty() {
            output.lengths.push(NO_DOCUMENT);
            return Ok(());
        }
        let ids = self.session.encode(text).map_err(fault)?;
        push_ids(&mut output.bytes, ids);
        let mut length = ids.len();
        let eod = self.recipe.eod.as_slice();
        if let Some((multiple, id)) = self.recipe.padding {
            // At least one, the end token included.
            let count = (length / multiple + 1) * multiple - length - eod.len();
            (0..count).for_each(|_| push_ids(&mut output.bytes, &[id]));
            length += count;
        }
        push_ids(&mut output.bytes, eod);
        output.lengths.push(as_length(length + eod.len())?);
        Ok(())
    }

    fn chat(
        &mut self,
        instruction: Option<&str>,
        input: Option<&str>,
        answer: &str,
        [ids, mask, labels]: [&mut KeyIds; 3],
    ) -> Result<(), Error> {
        let Recipe { eod, end, cutoff, .. } = *self.recipe;
        self.text.clear();
        self.text.push_str(USER);
        let mut words = [instruction, input].into_iter().flatten().filter(|text| !text.is_empty());
        if let Some(first) = words.next() {
            self.text.push_str(first);
        }
        if let Some(second) = words.next() {
            self.text.push('\n');
            self.text.push_str(second);
        }
        self.text.push_str(ASSISTANT);
        if let Some(at) = self.text.find(TURN) {
            self.text.replace_range(at..at + TURN.len(), "0");
        }
        self.ids.clear();
        self.ids.extend_from_slice(&self.system);
        self.ids.extend_from_slice(self.session.encode(&self.text).map_err(fault)?);
        let question = self.ids.len();
        if !answer.is_empty() {
            self.ids.extend_from_slice(self.session.encode(answer).map_err(fault)?);
        }
        self.ids.push(end);
        let (source, target) = cut(question, self.ids.len() - question, cutoff);
        let (question, answer) = (&self.ids[..source], &self.ids[question..question + target]);

        let length = as_length(source + target + usize::from(eod.is_some()))?;
        push_ids(&mut ids.bytes, question);
        (0..source).for_each(|_| labels.bytes.extend_from_slice(&IGNORED.to_le_bytes()));
        for output in [&mut *ids, &mut *labels] {
            push_ids(&mut output.bytes, answer);
            push_ids(&mut output.bytes, eod.as_slice());
            output.lengths.push(length);
        }
        (0..length).for_each(|_| mask.bytes.extend_from_slice(&1_i32.to_le_bytes()));
        mask.lengths.push(length);
        Ok(())
    }
}

/// How much of question and answer is kept of a conversation of `limit` ids.
///
/// In floating point like the reference: at the limit itself it can lose an id.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn cut(source: usize, target: usize, limit: usize) -> (usize, usize) {
    let share = limit as f64 * (target as f64 / (source + target) as f64);
    let most_target = (share as usize).max(1);
    let most_source = limit - most_target.min(target).min(limit);
    (source.min(most_source), target.min(most_target))
}

fn fault(fault: Fault) -> Error {
    match fault {
        Fault::Failed(what) => Error::Encode { what },
        Fault::Differs(what) => Error::Differs { what },
    }
}

fn as_length(length: usize) -> Result<i32, Error> {
    i32::try_from(length).map_err(|_| Error::Encode { what: format!("a text gave {length} ids") })
}

/// Appends ids as little-endian bytes: a plain copy on most machines.
pub(crate) fn push_ids(bytes: &mut Vec<u8>, ids: &[u32]) {
    let start = bytes.len();
    bytes.resize(start + 4 * ids.len(), 0);
    for (place, id) in bytes[start..].chunks_exact_mut(4).zip(ids) {
        place.copy_from_slice(&id.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn question_and_answer_are_cut_in_proportion() {
        for (source, target, limit, expected) in [
            (10, 10, 100, (10, 10)),
            (10, 10, 20, (10, 10)),
            (30, 10, 20, (15, 5)),
            (1000, 1, 20, (19, 1)),
            (1, 1000, 20, (1, 19)),
            (5, 5, 1, (0, 1)),
            // 22 * (15 / 22) is not quite 15: the reference loses the last id of such a row.
            (7, 15, 22, (7, 14)),
        ] {
            assert_eq!(cut(source, target, limit), expected, "{source} {target} {limit}");
        }
        for limit in 2..300_usize {
            for target in 1..limit {
                let (kept_source, kept_target) = cut(limit - target, target, limit);
                assert!(kept_source == limit - target && kept_target >= target - 1, "{target} of {limit}");
            }
        }
    }
}
