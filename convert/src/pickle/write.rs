//! Writes protocol 2, the one that `torch.save` uses.

use std::collections::HashMap;

/// A pickle under construction: opcodes are appended by the methods.
///
/// Values need no memo; only names of classes are memoised, since they repeat.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    globals: HashMap<(&'static str, &'static str), u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Self { out: vec![0x80, 2], globals: HashMap::new() }
    }
}

impl Writer {
    /// Ends the pickle and gives its bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.out.push(b'.');
        self.out
    }

    /// Appends an opcode without argument.
    fn op(&mut self, op: u8) -> &mut Self {
        self.out.push(op);
        self
    }

    /// None.
    pub fn none(&mut self) -> &mut Self {
        self.op(b'N')
    }

    /// True or False.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.op(if value { 0x88 } else { 0x89 })
    }

    /// An int in the shortest form.
    pub fn int(&mut self, value: i64) -> &mut Self {
        if let Ok(small) = u8::try_from(value) {
            self.out.extend([b'K', small]);
        } else if let Ok(short) = u16::try_from(value) {
            self.op(b'M').out.extend(short.to_le_bytes());
        } else if let Ok(word) = i32::try_from(value) {
            self.op(b'J').out.extend(word.to_le_bytes());
        } else {
            self.out.extend([0x8a, 8]);
            self.out.extend(value.to_le_bytes());
        }
        self
    }

    /// An int that counts something; counts fit in 63 bits.
    pub fn count(&mut self, value: u64) -> &mut Self {
        self.int(i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// A float.
    pub fn float(&mut self, value: f64) -> &mut Self {
        self.op(b'G').out.extend(value.to_be_bytes());
        self
    }

    /// A str; longer than 4 GiB never occurs.
    pub fn str(&mut self, value: &str) -> &mut Self {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.op(b'X').out.extend(length.to_le_bytes());
        self.out.extend(value.as_bytes());
        self
    }

    /// A class or function by name.
    pub fn global(&mut self, module: &'static str, name: &'static str) -> &mut Self {
        if let Some(slot) = self.globals.get(&(module, name)) {
            let slot = *slot;
            self.out.extend([b'h', slot]);
            return self;
        }
        self.op(b'c').out.extend(module.as_bytes());
        self.op(b'\n').out.extend(name.as_bytes());
        self.op(b'\n');
        if let Ok(slot) = u8::try_from(self.globals.len()) {
            self.globals.insert((module, name), slot);
            self.out.extend([b'q', slot]);
        }
        self
    }

    /// Marks where a tuple's or dictionary's items begin.
    pub fn mark(&mut self) -> &mut Self {
        self.op(b'(')
    }

    /// A tuple of everything since the mark.
    pub fn tuple(&mut self) -> &mut Self {
        self.op(b't')
    }

    /// A tuple of ints.
    pub fn counts(&mut self, values: &[u64]) -> &mut Self {
        self.mark();
        for value in values {
            self.count(*value);
        }
        self.tuple()
    }

    /// A list of ints.
    pub fn list(&mut self, values: &[u64]) -> &mut Self {
        self.op(b']').mark();
        for value in values {
            self.count(*value);
        }
        self.op(b'e')
    }

    /// ().
    pub fn empty_tuple(&mut self) -> &mut Self {
        self.op(b')')
    }

    /// {}.
    pub fn empty_dict(&mut self) -> &mut Self {
        self.op(b'}')
    }

    /// Puts the pairs since the mark into the dictionary below it.
    pub fn set_items(&mut self) -> &mut Self {
        self.op(b'u')
    }

    /// Calls the function below with the tuple on top.
    pub fn reduce(&mut self) -> &mut Self {
        self.op(b'R')
    }

    /// Makes an instance of the class below with the tuple on top.
    pub fn new_object(&mut self) -> &mut Self {
        self.op(0x81)
    }

    /// Gives the object below the state on top.
    pub fn build(&mut self) -> &mut Self {
        self.op(b'b')
    }

    /// Makes a persistent reference of the value on top.
    pub fn persistent(&mut self) -> &mut Self {
        self.op(b'Q')
    }
}
