//! The one door between model and wire.
//!
//! What comes from the wire is checked and bounded here; what goes out needs
//! no check. Health samples, progress and log chunks stay wire types.

mod assignment;
mod attempt;
mod event;
mod limit;
mod node;

pub use node::{hello_node, live_attempts};

/// Why a message was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field that must be set is not.
    #[error("field `{0}` is missing")]
    Missing(&'static str),
    /// A name breaks its rule.
    #[error(transparent)]
    Name(#[from] model::NameError),
    /// A label breaks its rule.
    #[error(transparent)]
    Label(#[from] model::LabelError),
    /// A word that this version does not know.
    #[error("field `{field}` has the unknown value `{}`", .given.escape_debug())]
    Unknown {
        /// Which field.
        field: &'static str,
        /// The value, cut to 64 characters.
        given: String,
    },
    /// A text or list longer than allowed.
    #[error("field `{field}` holds {given}, more than the {limit} allowed")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Bytes or entries given.
        given: usize,
        /// Bytes or entries allowed.
        limit: usize,
    },
    /// A number outside its range.
    #[error("field `{field}` is {given}, outside {least} to {most}")]
    OutOfRange {
        /// Which field.
        field: &'static str,
        /// The number given.
        given: u64,
        /// Least allowed.
        least: u64,
        /// Most allowed.
        most: u64,
    },
}
