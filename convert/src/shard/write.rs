//! Writes a shard as `torch.save` would.

use model::Dtype;

use super::TOP;
use super::args::{Plain, Written};
use crate::error::Result;
use crate::matrix::{Cast, Matrix, emit};
use crate::pickle::write::Writer as Pickler;
use crate::plan::Tensor;
use crate::plan::mcore::{Chunk, Convention, Entry};
use crate::zip::Writer as Zipper;
use crate::zip::write::{Sink, archive_size};

/// A shard ready to be written: everything but the tensors' bytes.
#[derive(Debug)]
pub struct Draft<S> {
    pickle: Vec<u8>,
    tensors: Vec<Tensor<S>>,
    dtype: Dtype,
}

impl<S: std::fmt::Debug> Draft<S> {
    /// Lays out a shard with these chunks, all tensors of one type.
    #[must_use]
    pub fn new(chunks: Vec<Chunk<S>>, args: &Written<'_>, convention: Convention) -> Self {
        let pickle = pickle(&chunks, args, convention);
        let entries = chunks.into_iter().flat_map(|chunk| chunk.entries);
        let tensors = entries.filter_map(|entry| match entry {
            Entry::Tensor(tensor) => Some(tensor),
            Entry::ExtraState(_) => None,
        });
        Self { pickle, tensors: tensors.collect(), dtype: args.dtype }
    }

    /// Size of the finished file in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        let names: Vec<String> = (0..self.tensors.len()).map(data_name).collect();
        let (pickle, order, version, id) = (name("data.pkl"), name("byteorder"), name("version"), name(IDENTITY));
        let head = [(pickle.as_str(), self.pickle.len() as u64), (order.as_str(), ORDER.len() as u64)];
        let data = names.iter().map(String::as_str).zip(self.tensors.iter().map(|t| t.elements() * self.dtype.size()));
        let tail = [(version.as_str(), VERSION.len() as u64), (id.as_str(), 40)];
        archive_size(head.into_iter().chain(data).chain(tail))
    }

    /// Writes the file, taking tensors' elements from `resolve`.
    ///
    /// # Errors
    ///
    /// Those of `resolve` and of the sink.
    pub fn write<'a, K: Sink>(&self, sink: K, resolve: &dyn Fn(&S) -> Result<Matrix<'a>>) -> Result<K> {
        let mut zip = Zipper::new(sink);
        zip.entry(&name("data.pkl"), &self.pickle)?;
        zip.entry(&name("byteorder"), ORDER)?;
        for (key, tensor) in self.tensors.iter().enumerate() {
            zip.begin(&data_name(key), tensor.elements() * self.dtype.size())?;
            emit(tensor, Cast::to(self.dtype), resolve, &mut |bytes| zip.write(bytes))?;
            zip.end()?;
        }
        zip.entry(&name("version"), VERSION)?;
        let identity = zip.identity();
        zip.entry(&name(IDENTITY), identity.as_bytes())?;
        zip.finish()
    }
}

const ORDER: &[u8] = b"little";
const VERSION: &[u8] = b"3\n";
const IDENTITY: &str = ".data/serialization_id";

fn name(rest: &str) -> String {
    format!("{TOP}/{rest}")
}

fn data_name(key: usize) -> String {
    format!("{TOP}/data/{key}")
}

fn pickle<S>(chunks: &[Chunk<S>], args: &Written<'_>, convention: Convention) -> Vec<u8> {
    let mut p = Pickler::default();
    p.empty_dict().mark();
    p.str("args").global("argparse", "Namespace").empty_tuple().new_object().empty_dict().mark();
    for (key, value) in args.pairs() {
        p.str(key);
        match value {
            Plain::None | Plain::Other => p.none(),
            Plain::Bool(b) => p.bool(b),
            Plain::Int(n) => p.int(n),
            Plain::Float(f) => p.float(f),
            Plain::Str(s) => p.str(&s),
            Plain::Counts(counts) => p.list(&counts),
        };
    }
    p.set_items().build();
    p.str("checkpoint_version").float(3.0);
    p.str("iteration").count(args.progress.iteration);
    let mut key = 0u64;
    for chunk in chunks {
        p.str(&chunk.key).global("collections", "OrderedDict").empty_tuple().reduce().mark();
        for entry in &chunk.entries {
            match entry {
                Entry::ExtraState(name) => {
                    p.str(name).none();
                }
                Entry::Tensor(tensor) => {
                    p.str(&tensor.name);
                    pickle_tensor(&mut p, tensor, key, args.dtype);
                    key += 1;
                }
            }
        }
        p.set_items();
    }
    if convention == Convention::V1 {
        p.str("rerun_state_machine").none();
        p.str("num_floating_point_operations_so_far").int(0);
    }
    p.set_items();
    p.finish()
}

fn pickle_tensor<S>(p: &mut Pickler, tensor: &Tensor<S>, key: u64, dtype: Dtype) {
    let storage = match dtype {
        Dtype::Bf16 => "BFloat16Storage",
        Dtype::Fp16 => "HalfStorage",
        Dtype::Fp32 => "FloatStorage",
    };
    let mut strides: Vec<u64> = Vec::with_capacity(tensor.shape.len());
    let mut stride = 1;
    for dimension in tensor.shape.iter().rev() {
        strides.insert(0, stride);
        stride *= dimension;
    }
    p.global("torch._utils", "_rebuild_tensor_v2").mark();
    p.mark().str("storage").global("torch", storage).str(&key.to_string()).str("cpu").count(tensor.elements());
    p.tuple().persistent();
    p.count(0).counts(&tensor.shape).counts(&strides).bool(false);
    p.global("collections", "OrderedDict").empty_tuple().reduce();
    p.tuple().reduce();
}
