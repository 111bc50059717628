//! Reads protocols 0 to 5 without executing anything.

use std::collections::HashMap;

use super::value::{Id, Pickle, Value};

/// Largest pickle that is read.
pub const LARGEST: usize = 32 << 20;

/// Most values that one pickle may make.
const MOST_VALUES: usize = 2 << 20;

/// Deepest stack, marks included.
const DEEPEST: usize = 1 << 20;

const NONE: Id = 0;
const TRUE: Id = 1;
const FALSE: Id = 2;
const OPAQUE: Id = 3;

impl<'a> Pickle<'a> {
    /// Reads one pickle.
    ///
    /// # Errors
    ///
    /// A sentence about the first malformed, unknown or excessive opcode.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.len() > LARGEST {
            return Err(format!("{} bytes are more than the {LARGEST} that are read", bytes.len()));
        }
        let mut machine = Machine {
            bytes,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            values: vec![Value::None, Value::Bool(true), Value::Bool(false), Value::Opaque],
        };
        let root = machine.run().map_err(|reason| format!("{reason} at byte {}", machine.at))?;
        Ok(Self { values: machine.values, root })
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    values: Vec<Value<'a>>,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    fn run(&mut self) -> Step<Id> {
        loop {
            let op = self.take(1)?[0];
            if op == b'.' {
                return self.pop();
            }
            self.step(op)?;
            if self.stack.len() > DEEPEST || self.marks.len() > DEEPEST {
                return Err("the stack is too deep".to_owned());
            }
        }
    }

    fn step(&mut self, op: u8) -> Step<()> {
        match op {
            0x80 => self.protocol(),
            0x95 => self.take(8).map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop_or_unmark(),
            b'1' => self.since_mark().map(drop),
            b'2' => self.top().map(|id| self.stack.push(id)),
            b'N' => self.place(NONE),
            0x88 => self.place(TRUE),
            0x89 => self.place(FALSE),
            b'I' | b'L' => self.text_int(),
            b'F' => self.text_float(),
            b'J' => self.fixed(|b: [u8; 4]| Value::Int(i64::from(i32::from_le_bytes(b)))),
            b'K' => self.fixed(|b: [u8; 1]| Value::Int(i64::from(b[0]))),
            b'M' => self.fixed(|b: [u8; 2]| Value::Int(i64::from(u16::from_le_bytes(b)))),
            b'G' => self.fixed(|b: [u8; 8]| Value::Float(f64::from_be_bytes(b))),
            0x8a => self.long(1),
            0x8b => self.long(4),
            b'X' => self.text(4),
            0x8c => self.text(1),
            0x8d => self.text(8),
            b'T' => self.skip(4),
            b'U' => self.skip(1),
            b'B' => self.skip(4),
            b'C' => self.skip(1),
            0x8e | 0x96 => self.skip(8),
            b')' => self.make(Value::Tuple(Vec::new())),
            b']' => self.make(Value::List(Vec::new())),
            b'}' => self.make(Value::Dict(Vec::new())),
            0x8f => self.make(Value::Opaque),
            b't' => self.collect(Value::Tuple),
            b'l' => self.collect(Value::List),
            0x91 => self.collect(|_| Value::Opaque),
            b'd' => {
                let items = self.since_mark()?;
                let pairs = in_pairs(&items)?;
                self.make(Value::Dict(pairs))
            }
            0x85..=0x87 => self.short_tuple(usize::from(op - 0x84)),
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(&items)
            }
            0x90 => self.since_mark().map(drop),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[(key, value)])
            }
            b'u' => {
                let items = self.since_mark()?;
                let pairs = in_pairs(&items)?;
                self.set(&pairs)
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.make(Value::Global { module, name })
            }
            0x93 => self.stack_global(),
            b'R' | 0x81 => {
                let (args, callable) = (self.pop()?, self.pop()?);
                self.make(Value::Object { callable, args, state: None, items: Vec::new() })
            }
            0x92 => {
                let (_keywords, args, callable) = (self.pop()?, self.pop()?, self.pop()?);
                self.make(Value::Object { callable, args, state: None, items: Vec::new() })
            }
            b'b' => self.build(),
            b'Q' => {
                let id = self.pop()?;
                self.make(Value::Persistent(id))
            }
            b'q' => {
                let slot = u32::from(self.take(1)?[0]);
                self.put(slot)
            }
            b'r' => {
                let slot = self.word()?;
                self.put(slot)
            }
            0x94 => {
                let slot = u32::try_from(self.memo.len()).map_err(|_| "the memo is too large".to_owned())?;
                self.put(slot)
            }
            b'p' => {
                let slot = self.line()?.parse().map_err(|_| "a memo slot is no number".to_owned())?;
                self.put(slot)
            }
            b'h' => {
                let slot = u32::from(self.take(1)?[0]);
                self.fetch(slot)
            }
            b'j' => {
                let slot = self.word()?;
                self.fetch(slot)
            }
            b'g' => {
                let slot = self.line()?.parse().map_err(|_| "a memo slot is no number".to_owned())?;
                self.fetch(slot)
            }
            other => Err(format!("unknown opcode 0x{other:02x}")),
        }
    }

    fn protocol(&mut self) -> Step<()> {
        let protocol = self.take(1)?[0];
        if protocol > 5 { Err(format!("protocol {protocol} is unknown")) } else { Ok(()) }
    }

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| "the pickle ends too early".to_owned())?;
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| "the pickle ends too early".to_owned())
    }

    fn word(&mut self) -> Step<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A little-endian length of `size` bytes.
    fn length(&mut self, size: usize) -> Step<usize> {
        let bytes = self.take(size)?;
        let value = bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
        usize::try_from(value).map_err(|_| "a length is impossible".to_owned())
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|b| *b == b'\n').ok_or_else(|| "a line has no end".to_owned())?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "a line is no UTF-8".to_owned())
    }

    fn make(&mut self, value: Value<'a>) -> Step<()> {
        if self.values.len() >= MOST_VALUES {
            return Err(format!("more than {MOST_VALUES} values"));
        }
        let id = Id::try_from(self.values.len()).map_err(|_| "too many values".to_owned())?;
        self.values.push(value);
        self.place(id)
    }

    fn place(&mut self, id: Id) -> Step<()> {
        self.stack.push(id);
        Ok(())
    }

    fn fixed<const N: usize>(&mut self, value: impl Fn([u8; N]) -> Value<'a>) -> Step<()> {
        let bytes = self.array()?;
        self.make(value(bytes))
    }

    fn long(&mut self, size: usize) -> Step<()> {
        let length = self.length(size)?;
        let bytes = self.take(length)?;
        if bytes.len() > 8 {
            return self.place(OPAQUE);
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut word = if negative { [0xff; 8] } else { [0; 8] };
        word[..bytes.len()].copy_from_slice(bytes);
        self.make(Value::Int(i64::from_le_bytes(word)))
    }

    fn text_int(&mut self) -> Step<()> {
        match self.line()? {
            "01" => self.place(TRUE),
            "00" => self.place(FALSE),
            digits => match digits.trim_end_matches('L').parse() {
                Ok(n) => self.make(Value::Int(n)),
                Err(_) => self.place(OPAQUE),
            },
        }
    }

    fn text_float(&mut self) -> Step<()> {
        let value = self.line()?.parse().map_err(|_| "a float is no number".to_owned())?;
        self.make(Value::Float(value))
    }

    fn text(&mut self, size: usize) -> Step<()> {
        let length = self.length(size)?;
        let bytes = self.take(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => self.make(Value::Str(text)),
            Err(_) => self.place(OPAQUE), // Python lets lone surrogates through.
        }
    }

    fn skip(&mut self, size: usize) -> Step<()> {
        let length = self.length(size)?;
        self.take(length)?;
        self.place(OPAQUE)
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Id> {
        if self.stack.len() <= self.floor() {
            return Err("the stack is empty".to_owned());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".to_owned())
    }

    fn top(&self) -> Step<Id> {
        if self.stack.len() <= self.floor() {
            return Err("the stack is empty".to_owned());
        }
        self.stack.last().copied().ok_or_else(|| "the stack is empty".to_owned())
    }

    fn pop_or_unmark(&mut self) -> Step<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn since_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| "a mark is missing".to_owned())?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn collect(&mut self, value: impl Fn(Vec<Id>) -> Value<'a>) -> Step<()> {
        let items = self.since_mark()?;
        self.make(value(items))
    }

    fn short_tuple(&mut self, count: usize) -> Step<()> {
        let start = self.stack.len().checked_sub(count).filter(|start| *start >= self.floor());
        let start = start.ok_or_else(|| "the stack is empty".to_owned())?;
        let items = self.stack.split_off(start);
        self.make(Value::Tuple(items))
    }

    fn append(&mut self, items: &[Id]) -> Step<()> {
        let target = self.top()?;
        match self.values.get_mut(target as usize) {
            Some(Value::List(list)) => list.extend_from_slice(items),
            Some(Value::Object { .. } | Value::Opaque) => {}
            _ => return Err("only a list can be appended to".to_owned()),
        }
        Ok(())
    }

    fn set(&mut self, pairs: &[(Id, Id)]) -> Step<()> {
        let target = self.top()?;
        match self.values.get_mut(target as usize) {
            Some(Value::Dict(held) | Value::Object { items: held, .. }) => held.extend_from_slice(pairs),
            _ => return Err("only a dict can be given items".to_owned()),
        }
        Ok(())
    }

    fn build(&mut self) -> Step<()> {
        let state = self.pop()?;
        let target = self.top()?;
        if let Some(Value::Object { state: held, .. }) = self.values.get_mut(target as usize) {
            *held = Some(state);
        }
        Ok(())
    }

    fn stack_global(&mut self) -> Step<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        let text = |id: Id| match self.values.get(id as usize) {
            Some(Value::Str(text)) => Ok(*text),
            _ => Err("a class's name is no str".to_owned()),
        };
        let (module, name) = (text(module)?, text(name)?);
        self.make(Value::Global { module, name })
    }

    fn put(&mut self, slot: u32) -> Step<()> {
        let id = self.top()?;
        self.memo.insert(slot, id);
        if self.memo.len() > MOST_VALUES { Err("the memo is too large".to_owned()) } else { Ok(()) }
    }

    fn fetch(&mut self, slot: u32) -> Step<()> {
        let id = self.memo.get(&slot).copied().ok_or_else(|| format!("memo slot {slot} is empty"))?;
        self.place(id)
    }
}

fn in_pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    } else {
        Err("a dict's items do not come in pairs".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pickle::write::Writer;

    #[test]
    fn what_the_writer_writes_is_read_back() {
        let mut w = Writer::default();
        w.empty_dict().mark();
        w.str("args").global("argparse", "Namespace").empty_tuple().new_object();
        w.empty_dict().mark().str("n").int(-5).str("big").int(1 << 40).str("x").float(0.5).set_items().build();
        w.str("t").counts(&[1, 300, 70_000]).str("b").bool(true).str("none").none();
        w.set_items();
        let bytes = w.finish();
        let p = Pickle::parse(&bytes).unwrap();
        let pairs = p.pairs(p.root()).unwrap();
        let names: Vec<_> = pairs.iter().filter_map(|(k, _)| p.str(*k)).collect();
        assert_eq!(names, ["args", "t", "b", "none"]);
        let args = p.pairs(pairs[0].1).unwrap();
        assert_eq!(p.get(args[0].1), &Value::Int(-5));
        assert_eq!(p.get(args[1].1), &Value::Int(1 << 40));
        let counts: Vec<_> = p.items(pairs[1].1).unwrap().iter().map(|i| p.count(*i).unwrap()).collect();
        assert_eq!(counts, [1, 300, 70_000]);
    }

    #[test]
    fn malformed_pickles_end_in_a_sentence() {
        let table: &[(&[u8], &str)] = &[
            (b"", "ends too early at byte 0"),
            (b"\x80\x09.", "protocol 9 is unknown"),
            (b"\x80\x02\xff.", "unknown opcode 0xff"),
            (b"\x80\x02.", "the stack is empty"),
            (b"\x80\x02}q\x00s.", "the stack is empty"),
            (b"\x80\x02u.", "a mark is missing"),
            (b"\x80\x02}(K\x01u.", "do not come in pairs"),
            (b"\x80\x02N(K\x01K\x02u.", "only a dict"),
            (b"\x80\x02Na.", "the stack is empty"),
            (b"\x80\x02NNa.", "only a list"),
            (b"\x80\x02h\x07.", "memo slot 7 is empty"),
            (b"\x80\x02X\xff\xff\xff\xffabc.", "ends too early"),
            (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.", "ends too early"),
            (b"\x80\x02cmodule", "a line has no end"),
            (b"\x80\x02K\x01K\x02\x93.", "name is no str"),
            (b"\x80\x02(K\x01\x86.", "the stack is empty"),
        ];
        for (bytes, expected) in table {
            let error = Pickle::parse(bytes).unwrap_err();
            assert!(error.contains(expected), "{bytes:?}: {error} lacks {expected}");
        }
    }

    #[test]
    fn calls_stay_names_and_cycles_stay_finite() {
        // os.system("true"), as an exploit would write it.
        let p = Pickle::parse(b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.").unwrap();
        assert!(matches!(p.get(p.root()), Value::Object { .. }));
        // A list that holds itself.
        let p = Pickle::parse(b"\x80\x02]q\x00h\x00a.").unwrap();
        assert_eq!(p.items(p.root()), Some(&[p.root()][..]));
    }

    #[test]
    fn bombs_are_stopped_by_limits() {
        let marks = [&b"\x80\x02"[..], &vec![b'('; DEEPEST + 2], b"."].concat();
        assert!(Pickle::parse(&marks).unwrap_err().contains("too deep"));
        let deep = [&b"\x80\x02"[..], &vec![b')'; MOST_VALUES + 2], b"."].concat();
        assert!(Pickle::parse(&deep).is_err());
        let nested: Vec<u8> = [&b"\x80\x02)"[..], &vec![0x85; MOST_VALUES], b"."].concat();
        assert!(Pickle::parse(&nested).unwrap_err().contains("more than"));
        // Billion laughs: each tuple holds the one before twice; places make that linear.
        let mut laughs = b"\x80\x02)q\x00".to_vec();
        for i in 0..200u8 {
            laughs.extend([b'h', i, b'h', i, 0x86, b'q', i + 1]);
        }
        laughs.push(b'.');
        assert!(Pickle::parse(&laughs).is_ok());
        assert!(Pickle::parse(&vec![b'N'; LARGEST + 1]).unwrap_err().contains("more than"));
    }
}
