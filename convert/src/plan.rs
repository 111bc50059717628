//! Which elements of which stored tensors make up each tensor to be written.
//!
//! Pure arithmetic over a [`model::ModelShape`]: knows no file.
//! Rules: MindSpeed-LLM 2.2.0's converter and Megatron-LM core_v0.12.1's
//! local transformer layer.

pub mod compose;
pub mod hf;
pub mod layer;
pub mod mcore;

/// A tensor to be written, as a sequence of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor<S> {
    /// Its name in the output.
    pub name: String,
    /// Its dimensions, slowest first.
    pub shape: Vec<u64>,
    /// What fills it, in order.
    pub blocks: Vec<Block<S>>,
}

/// Rows copied from one or several sources side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<S> {
    /// First row, in every source.
    pub row: u64,
    /// Number of rows.
    pub rows: u64,
    /// How often the block is written, at least once; more for padding.
    pub times: u64,
    /// Column ranges, joined in this order within each row.
    pub parts: Vec<Part<S>>,
}

/// A column range of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<S> {
    /// The stored tensor.
    pub source: S,
    /// First column.
    pub first: u64,
    /// Number of columns.
    pub width: u64,
}

impl<S> Tensor<S> {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// The same plan with other names for its sources.
    #[must_use]
    pub fn map<T>(self, name: impl Fn(S) -> T) -> Tensor<T> {
        let part = |part: Part<S>| Part { source: name(part.source), first: part.first, width: part.width };
        let block = |block: Block<S>| Block {
            row: block.row,
            rows: block.rows,
            times: block.times,
            parts: block.parts.into_iter().map(part).collect(),
        };
        Tensor { name: self.name, shape: self.shape, blocks: self.blocks.into_iter().map(block).collect() }
    }
}

impl<S> Block<S> {
    /// Whole rows of one source whose rows are `width` wide.
    pub fn rows(source: S, row: u64, rows: u64, width: u64) -> Self {
        Self { row, rows, times: 1, parts: vec![Part { source, first: 0, width }] }
    }
}
