//! What a pickle holds, as inert values.

/// A value's place in its [`Pickle`].
pub type Id = u32;

/// One value. Containers hold places, so that sharing and cycles cost nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// None.
    None,
    /// True or False.
    Bool(bool),
    /// An int of up to 64 bits.
    Int(i64),
    /// A float.
    Float(f64),
    /// A str.
    Str(&'a str),
    /// Anything whose content does not matter here: bytes, huge ints, sets.
    Opaque,
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list.
    List(Vec<Id>),
    /// A dict as pairs in order of insertion.
    Dict(Vec<(Id, Id)>),
    /// A class or function: only its name.
    Global {
        /// Module.
        module: &'a str,
        /// Qualified name.
        name: &'a str,
    },
    /// A reference to something outside, such as a tensor's storage.
    Persistent(Id),
    /// What a call of `callable` with `args` would have made.
    Object {
        /// The class or function.
        callable: Id,
        /// Its arguments, a tuple.
        args: Id,
        /// The state given by BUILD.
        state: Option<Id>,
        /// Items set afterwards, as into a dict.
        items: Vec<(Id, Id)>,
    },
}

/// All values of one pickle.
#[derive(Debug)]
pub struct Pickle<'a> {
    pub(super) values: Vec<Value<'a>>,
    pub(super) root: Id,
}

impl<'a> Pickle<'a> {
    /// The outermost value.
    #[must_use]
    pub fn root(&self) -> Id {
        self.root
    }

    /// The value at a place that this pickle gave.
    #[must_use]
    pub fn get(&self, id: Id) -> &Value<'a> {
        self.values.get(id as usize).unwrap_or(&Value::None)
    }

    /// The pairs of a dict, an OrderedDict, a defaultdict, or an object's `__dict__`.
    #[must_use]
    pub fn pairs(&self, id: Id) -> Option<Vec<(Id, Id)>> {
        match self.get(id) {
            Value::Dict(pairs) => Some(pairs.clone()),
            Value::Object { args, state, items, .. } => {
                let mut pairs = self.argument_pairs(*args);
                pairs.extend(items);
                if pairs.is_empty()
                    && let Some(state) = state
                    && let Value::Dict(state) = self.get(*state)
                {
                    pairs.extend(state);
                }
                Some(pairs)
            }
            Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Str(_)
            | Value::Opaque
            | Value::Tuple(_)
            | Value::List(_)
            | Value::Global { .. }
            | Value::Persistent(_) => None,
        }
    }

    /// Pairs given to an OrderedDict's constructor as `[(key, value), …]`.
    fn argument_pairs(&self, args: Id) -> Vec<(Id, Id)> {
        let Value::Tuple(args) = self.get(args) else { return Vec::new() };
        let Some(Value::List(list)) = args.first().map(|id| self.get(*id)) else { return Vec::new() };
        let pair = |id: &Id| match self.items(*id) {
            Some([key, value]) => Some((*key, *value)),
            Some(_) | None => None,
        };
        list.iter().filter_map(pair).collect()
    }

    /// The str at a place.
    #[must_use]
    pub fn str(&self, id: Id) -> Option<&'a str> {
        if let Value::Str(text) = self.get(id) { Some(text) } else { None }
    }

    /// The non-negative int at a place.
    #[must_use]
    pub fn count(&self, id: Id) -> Option<u64> {
        if let Value::Int(n) = self.get(id) { u64::try_from(*n).ok() } else { None }
    }

    /// The items of a tuple or list.
    #[must_use]
    pub fn items(&self, id: Id) -> Option<&[Id]> {
        if let Value::Tuple(items) | Value::List(items) = self.get(id) { Some(items) } else { None }
    }
}
