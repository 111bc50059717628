//! The header of a page, in thrift's compact protocol.
//!
//! <https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>

const BOOLEANS: [u8; 2] = [1, 2];
const I32: u8 = 5;
const STRUCT: u8 = 12;
/// Structs within structs; the format has three.
const MAX_DEPTH: u8 = 16;

/// What a page says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// In bytes, without the header.
    pub(super) unpacked: i32,
    pub(super) packed: i32,
    /// How many bytes at its begin are never packed.
    pub(super) levels: i64,
    /// Whether the rest is not packed either.
    pub(super) plain: bool,
    /// Its own length.
    pub(super) length: usize,
}

impl Header {
    /// Parses the header at the begin of `bytes`; `None` if it does not end in
    /// them, or is not one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: bytes };
        let mut header = Self::default();
        let mut id = 0;
        while let Some(kind) = reader.field(&mut id)? {
            match (id, kind) {
                (2, I32) => header.unpacked = reader.i32()?,
                (3, I32) => header.packed = reader.i32()?,
                (1 | 4, I32) => reader.varint().map(drop)?,
                (5, STRUCT) => reader.numbers(4, |_, _| ())?,
                (7, STRUCT) => reader.numbers(2, |_, _| ())?,
                (8, STRUCT) => reader.numbers(6, |id, value| match id {
                    5 | 6 => header.levels += i64::from(value),
                    7 => header.plain = value == 0,
                    _ => {}
                })?,
                // Another type than the format's: whoever reads on may take it for anything.
                (1..=5 | 7 | 8, _) => return None,
                (_, kind) => reader.skip(kind, MAX_DEPTH)?,
            }
        }
        header.length = bytes.len() - reader.rest.len();
        Some(header)
    }
}

struct Reader<'bytes> {
    rest: &'bytes [u8],
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn i32(&mut self) -> Option<i32> {
        let value = u32::try_from(self.varint()?).ok()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// The type of the next field, and in `id` its number; `Some(None)` at the struct's end.
    fn field(&mut self, id: &mut i16) -> Option<Option<u8>> {
        let byte = self.byte()?;
        let (delta, kind) = (byte >> 4, byte & 0xf);
        if kind == 0 {
            return Some(None);
        }
        *id = if delta == 0 { i16::try_from(self.i32()?).ok()? } else { id.checked_add(delta.into())? };
        Some(Some(kind))
    }

    /// A struct that begins with `count` numbers; `visit` also hears of its booleans.
    fn numbers(&mut self, count: i16, mut visit: impl FnMut(i16, i32)) -> Option<()> {
        let mut id = 0;
        while let Some(kind) = self.field(&mut id)? {
            if (1..=count).contains(&id) {
                if kind != I32 {
                    return None;
                }
                let value = self.i32()?;
                visit(id, value);
            } else {
                if BOOLEANS.contains(&kind) {
                    visit(id, i32::from(kind == BOOLEANS[0]));
                }
                self.skip(kind, MAX_DEPTH)?;
            }
        }
        Some(())
    }

    fn skip(&mut self, kind: u8, depth: u8) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            1 | 2 => Some(()),
            3 => self.bytes(1),
            4..=6 => self.varint().map(drop),
            7 => self.bytes(8),
            8 => {
                let count = self.varint()?;
                self.bytes(usize::try_from(count).ok()?)
            }
            STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth)?;
                }
                Some(())
            }
            // Lists, sets and maps: no page header has any.
            _ => None,
        }
    }

    fn bytes(&mut self, count: usize) -> Option<()> {
        self.rest = self.rest.get(count..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Header;

    #[test]
    fn a_header_is_read_to_its_end_or_not_at_all() {
        // A data page of version 2: sizes 300 and 150, levels of 2 and 3 bytes, not packed.
        let v2 = [0x15, 0x06, 0x15, 0xd8, 0x04, 0x15, 0xac, 0x02, 0x5c, 0x15, 8, 0x15, 0, 0x15, 8, 0x15, 0];
        let bytes = [&v2[..], &[0x15, 4, 0x15, 6, 0x12, 0, 0, 0xaa]].concat();
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header, Header { unpacked: 300, packed: 150, levels: 5, plain: true, length: bytes.len() - 1 });
        for end in 0..bytes.len() - 1 {
            assert_eq!(Header::parse(&bytes[..end]), None, "{end}");
        }
        // The packed size as a string.
        assert_eq!(Header::parse(&[0x15, 0, 0x15, 2, 0x18, 1, b'a', 0]), None);
        // The last of several sizes counts, as for the library.
        assert_eq!(Header::parse(&[0x25, 2, 0x05, 4, 6, 0x15, 8, 0]).unwrap().unpacked, 3);
        assert_eq!(Header::parse(&[0x8c; 99]), None);
    }
}
