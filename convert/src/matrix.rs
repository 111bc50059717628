//! Two-dimensional views of stored tensors, and the streaming copy of their blocks.

use model::Dtype;

use crate::dtype;
use crate::error::{Error, Result};
use crate::plan::{Block, Tensor};

/// A view of stored elements as rows; a vector of n elements has n rows of width 1.
///
/// The constructors check that every element lies inside `bytes`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    bytes: &'a [u8],
    dtype: Dtype,
    rows: usize,
    width: usize,
    /// Elements from one row to the next.
    row_stride: usize,
    /// Elements from one column to the next.
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Views `bytes` as a row-major tensor of one or two dimensions.
    ///
    /// Returns `None` where the shape does not have exactly these bytes.
    #[must_use]
    pub fn contiguous(bytes: &'a [u8], dtype: Dtype, shape: &[u64]) -> Option<Self> {
        let (rows, width) = two_dimensions(shape)?;
        let elements = rows.checked_mul(width)?;
        (elements.checked_mul(dtype::width(dtype))? == bytes.len()).then_some(Self {
            bytes,
            dtype,
            rows,
            width,
            row_stride: width,
            column_stride: 1,
        })
    }

    /// Views `bytes` with explicit strides, in elements.
    ///
    /// Returns `None` where an element would lie outside, or for more than two dimensions.
    #[must_use]
    pub fn strided(bytes: &'a [u8], dtype: Dtype, shape: &[u64], strides: &[u64]) -> Option<Self> {
        let (rows, width) = two_dimensions(shape)?;
        let stride = |i: usize| usize::try_from(*strides.get(i)?).ok();
        let (row_stride, column_stride) = if shape.len() == 1 { (stride(0)?, 1) } else { (stride(0)?, stride(1)?) };
        if strides.len() != shape.len() {
            return None;
        }
        if rows > 0 && width > 0 {
            let last = (rows - 1).checked_mul(row_stride)?.checked_add((width - 1).checked_mul(column_stride)?)?;
            if last.checked_add(1)?.checked_mul(dtype::width(dtype))? > bytes.len() {
                return None;
            }
        }
        // The stride of a single row or column says nothing; torch writes anything there.
        let column_stride = if width == 1 { 1 } else { column_stride };
        let row_stride = if rows == 1 { width } else { row_stride };
        Some(Self { bytes, dtype, rows, width, row_stride, column_stride })
    }

    /// Element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Whether both views hold the same bytes in the same order.
    #[must_use]
    pub fn same(&self, other: &Matrix<'_>) -> bool {
        if (self.dtype, self.rows, self.width) != (other.dtype, other.rows, other.width) {
            return false;
        }
        (0..self.rows).all(|row| {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            match (self.run(row, 0, self.width), other.run(row, 0, other.width)) {
                (Some(a), Some(b)) => a == b,
                _ => {
                    self.gather(row, 0, self.width, &mut a);
                    other.gather(row, 0, other.width, &mut b);
                    a == b
                }
            }
        })
    }

    fn holds(&self, row: usize, rows: usize, first: usize, width: usize) -> bool {
        row.checked_add(rows).is_some_and(|end| end <= self.rows)
            && first.checked_add(width).is_some_and(|end| end <= self.width)
    }

    /// Whether whole rows follow each other without gaps.
    fn dense(&self) -> bool {
        self.column_stride == 1 && self.row_stride == self.width
    }

    fn rows(&self, row: usize, rows: usize) -> &'a [u8] {
        let size = self.width * dtype::width(self.dtype);
        &self.bytes[row * size..(row + rows) * size]
    }

    fn run(&self, row: usize, first: usize, width: usize) -> Option<&'a [u8]> {
        (self.column_stride == 1).then(|| {
            let size = dtype::width(self.dtype);
            let start = (row * self.row_stride + first) * size;
            &self.bytes[start..start + width * size]
        })
    }

    fn gather(&self, row: usize, first: usize, width: usize, out: &mut Vec<u8>) {
        let size = dtype::width(self.dtype);
        for column in first..first + width {
            let start = (row * self.row_stride + column * self.column_stride) * size;
            out.extend_from_slice(&self.bytes[start..start + size]);
        }
    }
}

fn two_dimensions(shape: &[u64]) -> Option<(usize, usize)> {
    match shape {
        [n] => Some((usize::try_from(*n).ok()?, 1)),
        [rows, width] => Some((usize::try_from(*rows).ok()?, usize::try_from(*width).ok()?)),
        _ => None,
    }
}

/// Most bytes handed to a sink at once while elements are cast.
const CAST_CHUNK: usize = 64 << 10;

/// What elements become on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// A type that they pass through before.
    pub via: Option<Dtype>,
    /// The type that they are written as.
    pub to: Dtype,
}

impl Cast {
    /// Straight to a type.
    #[must_use]
    pub fn to(to: Dtype) -> Self {
        Self { via: None, to }
    }
}

/// Streams the elements of a planned tensor, cast, into `sink`.
///
/// # Errors
///
/// Those of `resolve` and `sink`, and a plan that leaves its sources' bounds.
pub fn emit<'a, S: std::fmt::Debug>(
    tensor: &Tensor<S>,
    cast: Cast,
    resolve: &dyn Fn(&S) -> Result<Matrix<'a>>,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut scratch = Scratch::default();
    for block in &tensor.blocks {
        let parts = resolve_parts(tensor, block, resolve)?;
        let (row, rows) = (index(block.row)?, index(block.rows)?);
        for _ in 0..block.times {
            if let [(matrix, 0, width)] = parts[..]
                && matrix.dense()
                && width == matrix.width
            {
                put(matrix.rows(row, rows), matrix.dtype, cast, &mut scratch, sink)?;
                continue;
            }
            for row in row..row + rows {
                for (matrix, first, width) in &parts {
                    if let Some(run) = matrix.run(row, *first, *width) {
                        put(run, matrix.dtype, cast, &mut scratch, sink)?;
                    } else {
                        let mut gathered = Vec::new();
                        matrix.gather(row, *first, *width, &mut gathered);
                        put(&gathered, matrix.dtype, cast, &mut scratch, sink)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Room for elements that are being cast.
#[derive(Default)]
struct Scratch {
    between: Vec<u8>,
    out: Vec<u8>,
}

fn put(
    run: &[u8],
    from: Dtype,
    cast: Cast,
    scratch: &mut Scratch,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let via = cast.via.unwrap_or(from);
    if via == from && from == cast.to {
        return sink(run);
    }
    for chunk in run.chunks(CAST_CHUNK) {
        let Scratch { between, out } = scratch;
        out.clear();
        if via == from {
            dtype::cast(chunk, from, cast.to, out);
        } else {
            between.clear();
            dtype::cast(chunk, from, via, between);
            dtype::cast(between, via, cast.to, out);
        }
        sink(out)?;
    }
    Ok(())
}

fn resolve_parts<'a, S: std::fmt::Debug>(
    tensor: &Tensor<S>,
    block: &Block<S>,
    resolve: &dyn Fn(&S) -> Result<Matrix<'a>>,
) -> Result<Vec<(Matrix<'a>, usize, usize)>> {
    let mut parts = Vec::with_capacity(block.parts.len());
    for part in &block.parts {
        let matrix = resolve(&part.source)?;
        let (first, width) = (index(part.first)?, index(part.width)?);
        if !matrix.holds(index(block.row)?, index(block.rows)?, first, width) {
            return Err(Error::Internal(format!(
                "`{}` needs elements that {:?} does not have",
                tensor.name, part.source
            )));
        }
        parts.push((matrix, first, width));
    }
    Ok(parts)
}

fn index(value: u64) -> Result<usize> {
    usize::try_from(value)
        .map_err(|_| Error::Internal("the model is too large for this machine's addresses".to_owned()))
}
