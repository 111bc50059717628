//! How torch pickles a tensor: a call that rebuilds it from a storage.

use model::Dtype;

use crate::pickle::{Id, Pickle, Value};

/// Most bytes of a storage's key or type; one str may stand in many places at no cost to whoever wrote the file.
const LONGEST_NAME: usize = 64;

/// A tensor's place in a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorRef {
    /// Key of the storage: the payload is entry `data/<key>`.
    pub key: String,
    /// Element type as torch names the storage, such as `BFloat16Storage`.
    pub storage: String,
    /// Elements in the storage.
    pub elements: u64,
    /// First element.
    pub offset: u64,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// Elements from one index to the next, per dimension.
    pub strides: Vec<u64>,
}

impl TensorRef {
    /// The element type, where weights may have it.
    #[must_use]
    pub fn dtype(&self) -> Option<Dtype> {
        match self.storage.as_str() {
            "BFloat16Storage" => Some(Dtype::Bf16),
            "HalfStorage" => Some(Dtype::Fp16),
            "FloatStorage" => Some(Dtype::Fp32),
            _ => None,
        }
    }

    /// Reads the value at `id`; `None` where it is no tensor.
    #[must_use]
    pub fn read(pickle: &Pickle<'_>, id: Id) -> Option<Self> {
        Self::from_call(pickle, id, 4)
    }

    /// `depth` bounds wrappers inside wrappers.
    fn from_call(pickle: &Pickle<'_>, id: Id, depth: u32) -> Option<Self> {
        let Value::Object { callable, args, .. } = pickle.get(id) else { return None };
        Self::from_function(pickle, *callable, *args, depth)
    }

    fn from_function(pickle: &Pickle<'_>, callable: Id, args: Id, depth: u32) -> Option<Self> {
        let Value::Global { name, .. } = pickle.get(callable) else { return None };
        let args_items = pickle.items(args)?;
        match *name {
            "_rebuild_tensor_v2" | "_rebuild_tensor" => Self::from_storage(pickle, args_items),
            // (data, requires_grad, hooks[, state])
            "_rebuild_parameter" | "_rebuild_parameter_with_state" if depth > 0 => {
                Self::from_call(pickle, *args_items.first()?, depth - 1)
            }
            // (function, type, args, state)
            "_rebuild_from_type_v2" | "_rebuild_from_type" if depth > 0 => {
                let [function, _, inner] = *args_items.first_chunk()?;
                Self::from_function(pickle, function, inner, depth - 1)
            }
            _ => None,
        }
    }

    /// Arguments: storage, offset, size, stride, …
    fn from_storage(pickle: &Pickle<'_>, args: &[Id]) -> Option<Self> {
        let [storage, offset, size, stride] = *args.first_chunk()?;
        let Value::Persistent(id) = pickle.get(storage) else { return None };
        // ('storage', type, key, device, elements)
        let [tag, kind, key, _device, elements] = *pickle.items(*id)?.first_chunk()?;
        if pickle.str(tag)? != "storage" {
            return None;
        }
        let kind = if let Value::Global { name, .. } = pickle.get(kind) {
            name
        } else {
            pickle.str(kind)?.rsplit('.').next()?
        };
        let key = pickle.str(key)?;
        if key.len() > LONGEST_NAME || kind.len() > LONGEST_NAME {
            return None;
        }
        Some(Self {
            key: key.to_owned(),
            storage: kind.to_owned(),
            elements: pickle.count(elements)?,
            offset: pickle.count(offset)?,
            shape: counts(pickle, size)?,
            strides: counts(pickle, stride)?,
        })
    }
}

/// A tuple of counts, also inside `torch.Size((…))`.
fn counts(pickle: &Pickle<'_>, id: Id) -> Option<Vec<u64>> {
    let items = if let Value::Object { args, .. } = pickle.get(id) {
        pickle.items(*pickle.items(*args)?.first()?)?
    } else {
        pickle.items(id)?
    };
    if items.len() > 8 {
        return None;
    }
    items.iter().map(|item| pickle.count(*item)).collect()
}
