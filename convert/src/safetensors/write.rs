//! Lays out safetensors files as `save_pretrained` does.

use model::Dtype;
use serde_json::{Value, json};

use crate::dtype::safetensors_name;
use crate::error::Result;
use crate::matrix::{Cast, Matrix, emit};
use crate::plan::Tensor;
use crate::zip::write::Sink;

/// Most bytes of tensors in one file; `save_pretrained`'s default.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// A tensor with the type it is written as.
#[derive(Clone, Debug)]
pub struct Typed<S> {
    /// What it is made of.
    pub tensor: Tensor<S>,
    /// Its type in the file.
    pub dtype: Dtype,
    /// A type that its elements pass through before.
    pub via: Option<Dtype>,
}

impl<S> Typed<S> {
    /// Bytes of its elements.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tensor.elements() * self.dtype.size()
    }
}

/// One file to be written.
#[derive(Debug)]
pub struct FileDraft<S> {
    /// Its name.
    pub name: String,
    header: Vec<u8>,
    tensors: Vec<Typed<S>>,
}

/// Distributes tensors, given in module order, over files of at most `limit` bytes.
///
/// As `save_pretrained` does: a file is ended when the next tensor would not
/// fit; a tensor beyond the limit gets a file of its own, and the begun one
/// goes on after it. One file alone is called `model.safetensors`.
#[must_use]
pub fn split<S>(tensors: Vec<Typed<S>>, limit: u64) -> Vec<FileDraft<S>> {
    let mut groups: Vec<Vec<Typed<S>>> = Vec::new();
    let (mut begun, mut held) = (Vec::new(), 0);
    for tensor in tensors {
        let bytes = tensor.bytes();
        if bytes > limit {
            groups.push(vec![tensor]);
            continue;
        }
        if held + bytes > limit {
            groups.push(std::mem::take(&mut begun));
            held = 0;
        }
        begun.push(tensor);
        held += bytes;
    }
    if !begun.is_empty() {
        groups.push(begun);
    }
    let count = groups.len();
    groups.into_iter().enumerate().map(|(i, group)| FileDraft::new(file_name(i, count), group)).collect()
}

fn file_name(i: usize, count: usize) -> String {
    if count == 1 { "model.safetensors".to_owned() } else { format!("model-{:05}-of-{count:05}.safetensors", i + 1) }
}

/// The index that names each tensor's file, as `save_pretrained` writes it.
#[must_use]
pub fn index<S>(files: &[FileDraft<S>]) -> Vec<u8> {
    let mut names: Vec<(&str, &str)> =
        files.iter().flat_map(|f| f.tensors.iter().map(|t| (t.tensor.name.as_str(), f.name.as_str()))).collect();
    names.sort_unstable();
    let map: serde_json::Map<String, Value> = names.into_iter().map(|(t, f)| (t.to_owned(), f.into())).collect();
    let total: u64 = files.iter().flat_map(|f| f.tensors.iter().map(Typed::bytes)).sum();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    format!("{index:#}\n").into_bytes()
}

impl<S> FileDraft<S> {
    /// Widest elements first, then by name: the order that the format's own writer has.
    fn new(name: String, mut tensors: Vec<Typed<S>>) -> Self {
        tensors.sort_by(|a, b| b.dtype.size().cmp(&a.dtype.size()).then_with(|| a.tensor.name.cmp(&b.tensor.name)));
        let mut map = serde_json::Map::new();
        map.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
        let mut at = 0;
        for typed in &tensors {
            let end = at + typed.bytes();
            let info = json!({
                "dtype": safetensors_name(typed.dtype), "shape": typed.tensor.shape, "data_offsets": [at, end],
            });
            map.insert(typed.tensor.name.clone(), info);
            at = end;
        }
        let mut text = Value::Object(map).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        header.extend(text);
        Self { name, header, tensors }
    }

    /// Size of the finished file in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.header.len() as u64 + self.tensors.iter().map(Typed::bytes).sum::<u64>()
    }
}

impl<S: std::fmt::Debug> FileDraft<S> {
    /// Writes the file, taking elements from `resolve`.
    ///
    /// # Errors
    ///
    /// Those of `resolve` and of the sink.
    pub fn write<'a, K: Sink>(&self, mut sink: K, resolve: &dyn Fn(&S) -> Result<Matrix<'a>>) -> Result<K> {
        sink.put(&self.header)?;
        for typed in &self.tensors {
            emit(&typed.tensor, Cast { via: typed.via, to: typed.dtype }, resolve, &mut |bytes| sink.put(bytes))?;
        }
        Ok(sink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safetensors::Header;
    use std::path::Path;

    fn typed(name: &str, n: u64) -> Typed<String> {
        Typed {
            tensor: Tensor { name: name.to_owned(), shape: vec![n], blocks: Vec::new() },
            dtype: Dtype::Bf16,
            via: None,
        }
    }

    #[test]
    fn files_are_begun_when_the_next_tensor_would_not_fit() {
        let tensors = vec![typed("z", 50), typed("a", 40), typed("b", 11), typed("huge", 1000), typed("c", 1)];
        let files = split(tensors, 200);
        let names: Vec<Vec<&str>> =
            files.iter().map(|f| f.tensors.iter().map(|t| t.tensor.name.as_str()).collect()).collect();
        assert_eq!(names, [vec!["a", "z"], vec!["huge"], vec!["b", "c"]]);
        assert_eq!(files[1].name, "model-00002-of-00003.safetensors");
        let index: Value = serde_json::from_slice(&index(&files)).unwrap();
        assert_eq!(index["metadata"]["total_size"], 2204);
        assert_eq!(index["weight_map"]["huge"], "model-00002-of-00003.safetensors");
        assert_eq!(split(vec![typed("a", 1)], 200)[0].name, "model.safetensors");
    }

    #[test]
    fn the_header_is_one_that_the_strict_reader_accepts() {
        let files = split(vec![typed("b", 3), typed("a", 5)], 200);
        let mut bytes = files[0].header.clone();
        assert_eq!(bytes.len() % 8, 0);
        bytes.resize(usize::try_from(files[0].size()).unwrap(), 0);
        let header = Header::parse(Path::new("f"), &bytes).unwrap();
        assert_eq!(header.tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}
