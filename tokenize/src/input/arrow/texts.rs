//! Text columns of every kind, one text at a time.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, LargeStringArray, StringArray, StringViewArray};
use arrow_schema::DataType;

/// The rows of one text column.
///
/// Nothing is expanded: a few bytes of a dictionary's keys, or of views, may
/// stand for gigabytes of text.
pub(super) enum Texts {
    Plain(StringArray),
    Large(LargeStringArray),
    View(StringViewArray),
    Dictionary {
        column: ArrayRef,
        /// Where the text of each row is among the values.
        keys: Vec<usize>,
        values: Box<Self>,
    },
}

impl Texts {
    /// Whether columns of this type are text.
    pub(super) fn is_one(kind: &DataType) -> bool {
        if let DataType::Dictionary(_, value) = kind {
            return Self::is_one(value);
        }
        matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
    }

    pub(super) fn of(column: ArrayRef) -> Self {
        // Arrow's own list of types, which only it extends.
        #[allow(clippy::wildcard_enum_match_arm)]
        match column.data_type() {
            DataType::Utf8 => Self::Plain(column.as_string().clone()),
            DataType::LargeUtf8 => Self::Large(column.as_string().clone()),
            DataType::Utf8View => Self::View(column.as_string_view().clone()),
            _ => {
                let dictionary = column.as_any_dictionary();
                // Where all rows are null there may be no value for a key to stand for.
                let keys = if dictionary.values().is_empty() { Vec::new() } else { dictionary.normalized_keys() };
                let values = Box::new(Self::of(dictionary.values().clone()));
                Self::Dictionary { column, keys, values }
            }
        }
    }

    /// The text of one row; `None` for a null.
    pub(super) fn get(&self, row: usize) -> Option<&str> {
        match self {
            Self::Plain(column) => column.is_valid(row).then(|| column.value(row)),
            Self::Large(column) => column.is_valid(row).then(|| column.value(row)),
            Self::View(column) => column.is_valid(row).then(|| column.value(row)),
            Self::Dictionary { column, keys, values } => {
                let key = keys.get(row).filter(|_| column.is_valid(row))?;
                values.get(*key)
            }
        }
    }

    /// The first `rows` as plain strings.
    pub(super) fn first(&self, rows: usize) -> StringArray {
        if let Self::Plain(column) = self {
            return column.slice(0, rows);
        }
        (0..rows).map(|row| self.get(row)).collect()
    }
}
