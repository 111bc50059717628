//! The header of one safetensors file, parsed without trust.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de::IgnoredAny};

use crate::error::{Error, Result};

/// Largest header that the format allows.
pub const LARGEST_HEADER: u64 = 100 << 20;

/// Most dimensions of a tensor that are read.
const MOST_DIMENSIONS: usize = 8;

/// One tensor's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, such as `model.norm.weight`.
    pub name: String,
    /// Element type as the header spells it, such as `BF16`.
    pub dtype: String,
    /// Dimensions, slowest first.
    pub shape: Vec<u64>,
    /// Bytes of the tensor, counted from the start of the file.
    pub range: Range<usize>,
}

/// The entries of one file, sorted by position.
#[derive(Clone, Debug)]
pub struct Header {
    /// All tensors, sorted by position.
    pub tensors: Vec<TensorInfo>,
    /// Bytes before the first tensor.
    pub length: usize,
}

impl Header {
    /// Parses the header at the start of a file's bytes.
    ///
    /// # Errors
    ///
    /// If the header does not fit the file or 100 MiB, is no JSON of the right
    /// form, names a tensor twice, or if the tensors' bytes do not equal their
    /// shapes, overlap, leave holes, or do not end with the file.
    pub fn parse(path: &Path, file: &[u8]) -> Result<Self> {
        Self::parse_bytes(path, file).map_err(|error| error.or_hint(REFETCH))
    }

    fn parse_bytes(path: &Path, file: &[u8]) -> Result<Self> {
        let bad = |reason: String| Error::bad(path, reason);
        let Some((length, rest)) = file.split_first_chunk::<8>() else {
            return Err(bad(format!("is no safetensors file: {} bytes", file.len())));
        };
        let length = u64::from_le_bytes(*length);
        if length > LARGEST_HEADER {
            return Err(bad(format!("states a header of {length} bytes; at most {LARGEST_HEADER} are allowed")));
        }
        let stated = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(json) = rest.get(..stated) else {
            return Err(bad(format!(
                "is truncated: its header of {length} bytes does not fit its {} bytes",
                file.len()
            )));
        };
        let raw: RawHeader = serde_json::from_slice(json).map_err(|e| bad(format!("has a malformed header: {e}")))?;
        place(path, raw.0, 8 + stated, file.len())
    }
}

const REFETCH: &str = "fetch the file again and compare its size with the source's";

/// Turns relative offsets into checked file ranges.
fn place(path: &Path, raw: Vec<(String, RawInfo)>, start: usize, file: usize) -> Result<Header> {
    let bad = |reason: String| Error::bad(path, reason);
    let data = (file - start) as u64;
    let mut tensors = Vec::with_capacity(raw.len());
    for (name, info) in raw {
        let [from, to] = info.data_offsets;
        if from > to {
            return Err(bad(format!("gives tensor `{name}` the offsets {from} to {to}")));
        }
        let elements = info.shape.0.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        let element = element_size(&info.dtype).ok_or_else(|| {
            Error::unsupported(format!("element type `{}` of tensor `{name}` in `{}`", info.dtype, path.display()))
                .with_hint("supported: BF16, F16, F32")
        })?;
        let bytes = elements
            .and_then(|n| n.checked_mul(element))
            .ok_or_else(|| bad(format!("gives tensor `{name}` a shape whose product overflows")))?;
        if bytes != to - from {
            return Err(bad(format!(
                "gives tensor `{name}` {} bytes, but its shape {:?} of {} needs {bytes}",
                to - from,
                info.shape.0,
                info.dtype
            )));
        }
        if to > data {
            return Err(bad(format!(
                "is truncated: tensor `{name}` ends at byte {to} of the data, but only {data} bytes are there"
            )));
        }
        let at = |offset: u64| usize::try_from(offset).map(|o| o + start).unwrap_or(usize::MAX);
        tensors.push(TensorInfo { name, dtype: info.dtype, shape: info.shape.0, range: at(from)..at(to) });
    }
    tensors.sort_by_key(|t| (t.range.start, t.range.end));
    let mut end = start;
    for tensor in &tensors {
        if tensor.range.start < end {
            return Err(bad(format!("has overlapping tensors: `{}` begins inside another", tensor.name)));
        }
        if tensor.range.start > end {
            return Err(bad(format!(
                "has a hole of {} bytes before tensor `{}`",
                tensor.range.start - end,
                tensor.name
            )));
        }
        end = tensor.range.end;
    }
    if end != file {
        return Err(bad(format!("has {} bytes after its last tensor", file - end)));
    }
    Ok(Header { tensors, length: start })
}

/// Bytes of one element of the types that a header may name.
fn element_size(dtype: &str) -> Option<u64> {
    match dtype {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" => Some(1),
        "U16" | "I16" | "F16" | "BF16" => Some(2),
        "U32" | "I32" | "F32" => Some(4),
        "U64" | "I64" | "F64" => Some(8),
        _ => None,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInfo {
    dtype: String,
    shape: RawShape,
    data_offsets: [u64; 2],
}

struct RawShape(Vec<u64>);

impl<'de> Deserialize<'de> for RawShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Dimensions;
        impl<'de> Visitor<'de> for Dimensions {
            type Value = RawShape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MOST_DIMENSIONS} dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<RawShape, A::Error> {
                let mut shape = Vec::new();
                while let Some(dimension) = seq.next_element()? {
                    if shape.len() == MOST_DIMENSIONS {
                        return Err(de::Error::invalid_length(shape.len() + 1, &self));
                    }
                    shape.push(dimension);
                }
                Ok(RawShape(shape))
            }
        }
        deserializer.deserialize_seq(Dimensions)
    }
}

/// Keeps the order and refuses a name that comes twice, which a plain map would hide.
struct RawHeader(Vec<(String, RawInfo)>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<RawHeader, A::Error> {
                let mut entries: Vec<(String, RawInfo)> = Vec::new();
                let mut names = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(de::Error::custom(format!("`{name}` comes twice")));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(RawHeader(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str, data: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    #[test]
    fn hostile_headers_are_refused_with_a_reason() {
        let table: &[(&str, usize, &str)] = &[
            (r#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}"#, 4, "malformed header"),
            (r#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[4,0]}}"#, 4, "offsets 4 to 0"),
            (r#"{"a":{"dtype":"BF16","shape":[3],"data_offsets":[0,4]}}"#, 4, "needs 6"),
            (r#"{"a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}}"#, 4, "truncated"),
            (r#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#, 6, "2 bytes after"),
            (r#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[2,6]}}"#, 6, "hole of 2 bytes"),
            (
                r#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[2,6]}}"#,
                6,
                "overlapping",
            ),
            (
                r#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]}}"#,
                8,
                "comes twice",
            ),
            (r#"{"a":{"dtype":"BF16","shape":[4294967296,4294967296,2],"data_offsets":[0,4]}}"#, 4, "overflows"),
            (r#"{"a":{"dtype":"BF16","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,2]}}"#, 2, "at most 8 dimensions"),
            (r#"{"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,4]}}"#, 4, "element type `Q4`"),
            (r#"{"a":{"dtype":"BF16","shape":[-2],"data_offsets":[0,4]}}"#, 4, "malformed header"),
            (r#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4],"x":1}}"#, 4, "unknown field"),
        ];
        for (json, data, expected) in table {
            let error = Header::parse(Path::new("f"), &file(json, *data)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} lacks {expected}");
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let path = Path::new("f");
        assert!(Header::parse(path, b"abc").unwrap_err().to_string().contains("is no safetensors file"));
        let huge = u64::MAX.to_le_bytes();
        assert!(Header::parse(path, &huge).unwrap_err().to_string().contains("at most 104857600"));
        let long = 1000u64.to_le_bytes();
        assert!(Header::parse(path, &long).unwrap_err().to_string().contains("is truncated"));
        let deep = "[".repeat(1 << 20);
        assert!(Header::parse(path, &file(&deep, 0)).is_err());
    }

    #[test]
    fn an_honest_header_gives_ranges_in_the_file() {
        let json = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},"a":{"dtype":"BF16","shape":[2,1],"data_offsets":[0,4]}}"#;
        let header = Header::parse(Path::new("f"), &file(json, 8)).unwrap();
        let start = 8 + json.len();
        assert_eq!(header.length, start);
        assert_eq!(header.tensors[0].name, "a");
        assert_eq!(header.tensors[1].range, start + 4..start + 8);
    }
}
