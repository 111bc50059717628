//! What nodes are chosen by.

use std::collections::BTreeMap;

/// Names with values: of a node what it is, of a job what its nodes must be.
///
/// At most [`Labels::MOST`]; a name is 1 to 63 of a-z, 0-9, `-`, `.`, `_` and
/// `/`, a value 1 to 63 characters without spaces and control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

/// Why labels are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Too many.
    #[error("there are {0} labels; at most {most} are allowed", most = Labels::MOST)]
    TooMany(usize),
    /// A malformed name.
    #[error("`{}` is no label's name: 1 to 63 of a-z, 0-9, `-`, `.`, `_` and `/`", .0.escape_debug())]
    Name(String),
    /// A malformed value.
    #[error("label `{name}` has the value `{}`: 1 to 63 characters without spaces", .value.escape_debug())]
    Value {
        /// Of which label.
        name: String,
        /// The value, cut.
        value: String,
    },
}

impl Labels {
    /// Most labels of one node or job.
    pub const MOST: usize = 32;
    /// The label of which nodes with the same value are near to each other.
    pub const RACK: &'static str = "rack";

    /// Checks names and values.
    ///
    /// # Errors
    ///
    /// [`LabelError`] for the first that breaks the rules.
    pub fn new(labels: BTreeMap<String, String>) -> Result<Self, LabelError> {
        if labels.len() > Self::MOST {
            return Err(LabelError::TooMany(labels.len()));
        }
        let cut = |text: &str| text.chars().take(64).collect::<String>();
        for (name, value) in &labels {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._/".contains(c);
            if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
                return Err(LabelError::Name(cut(name)));
            }
            let shown = |c: char| !c.is_whitespace() && !c.is_control();
            if value.is_empty() || value.chars().count() > 63 || !value.chars().all(shown) {
                return Err(LabelError::Value { name: name.clone(), value: cut(value) });
            }
        }
        Ok(Self(labels))
    }

    /// The value of a label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether every label of `wanted` is here with the same value.
    #[must_use]
    pub fn have(&self, wanted: &Self) -> bool {
        wanted.iter().all(|(name, value)| self.get(name) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Result<Labels, LabelError> {
        Labels::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn names_and_values_are_checked() {
        let good = labels(&[("rack", "r1"), ("chip.io/kind", "910B")]).unwrap();
        assert_eq!((good.get("rack"), good.get("zone")), (Some("r1"), None));
        assert!(good.have(&labels(&[("rack", "r1")]).unwrap()) && good.have(&Labels::default()));
        assert!(!good.have(&labels(&[("rack", "r2")]).unwrap()) && !good.have(&labels(&[("zone", "r1")]).unwrap()));
        let long = "x".repeat(64);
        for bad in [("", "v"), ("Rack", "v"), ("ra ck", "v"), (long.as_str(), "v")] {
            assert!(matches!(labels(&[bad]), Err(LabelError::Name(_))), "{bad:?}");
        }
        for bad in [("a", ""), ("a", "b c"), ("a", "\u{1b}"), ("a", long.as_str())] {
            assert!(matches!(labels(&[bad]), Err(LabelError::Value { .. })), "{bad:?}");
        }
        let many: BTreeMap<_, _> = (0..33).map(|n| (format!("l{n}"), "v".to_owned())).collect();
        assert_eq!(Labels::new(many), Err(LabelError::TooMany(33)));
    }
}
