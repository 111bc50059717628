//! One plan behind another: shards of one layout straight from those of another.

use super::{Block, Part, Tensor};

/// Replaces each source of `tensor` by what that source itself is made of.
///
/// `sources` gives the plan of a named tensor; its blocks are written once
/// each, and those of `tensor` have one part each. `None` where a source is
/// not known or lacks the elements asked for.
pub fn compose<'a, S: Clone + 'a>(
    tensor: &Tensor<String>,
    sources: &dyn Fn(&str) -> Option<&'a Tensor<S>>,
) -> Option<Tensor<S>> {
    let mut blocks = Vec::new();
    for block in &tensor.blocks {
        let [part] = &block.parts[..] else { return None };
        let source = sources(&part.source)?;
        let start = blocks.len();
        cut(source, block.row, block.rows, part.first, part.width, &mut blocks)?;
        if block.times > 1 {
            // Only a single row is ever repeated, so that its pieces repeat one by one.
            let [only] = &mut blocks[start..] else { return None };
            if only.rows != 1 {
                return None;
            }
            only.times = block.times;
        }
    }
    Some(Tensor { name: tensor.name.clone(), shape: tensor.shape.clone(), blocks })
}

/// The blocks of a rectangle of `source`.
fn cut<S: Clone>(
    source: &Tensor<S>,
    row: u64,
    rows: u64,
    first: u64,
    width: u64,
    out: &mut Vec<Block<S>>,
) -> Option<()> {
    let (mut start, mut found) = (0_u64, 0);
    for block in &source.blocks {
        if block.times != 1 {
            return None;
        }
        let end = start + block.rows;
        let (low, high) = (row.max(start), (row + rows).min(end));
        if low < high {
            let parts = columns(&block.parts, first, width)?;
            out.push(Block { row: block.row + (low - start), rows: high - low, times: 1, parts });
            found += high - low;
        }
        start = end;
    }
    (found == rows).then_some(())
}

fn columns<S: Clone>(parts: &[Part<S>], first: u64, width: u64) -> Option<Vec<Part<S>>> {
    let (mut start, mut found) = (0_u64, 0);
    let mut out = Vec::new();
    for part in parts {
        let end = start + part.width;
        let (low, high) = (first.max(start), (first + width).min(end));
        if low < high {
            let source = part.source.clone();
            out.push(Part { source, first: part.first + (low - start), width: high - low });
            found += high - low;
        }
        start = end;
    }
    (found == width).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor<S>(blocks: Vec<Block<S>>) -> Tensor<S> {
        Tensor { name: "t".to_owned(), shape: vec![1], blocks }
    }

    #[test]
    fn a_rectangle_is_found_over_block_and_part_borders() {
        fn part<S>(source: S, first: u64, width: u64) -> Part<S> {
            Part { source, first, width }
        }
        let source = tensor(vec![
            Block { row: 10, rows: 3, times: 1, parts: vec![part('a', 0, 4), part('b', 5, 4)] },
            Block { row: 0, rows: 2, times: 1, parts: vec![part('c', 0, 8)] },
        ]);
        let wanted = tensor(vec![Block { row: 1, rows: 3, times: 1, parts: vec![part("s".to_owned(), 2, 4)] }]);
        let made = compose(&wanted, &|_| Some(&source)).unwrap();
        let expected = vec![
            Block { row: 11, rows: 2, times: 1, parts: vec![part('a', 2, 2), part('b', 5, 2)] },
            Block { row: 0, rows: 1, times: 1, parts: vec![part('c', 2, 4)] },
        ];
        assert_eq!(made.blocks, expected);
        let beyond = tensor(vec![Block { row: 4, rows: 2, times: 1, parts: vec![part("s".to_owned(), 0, 8)] }]);
        assert_eq!(compose(&beyond, &|_| Some(&source)), None);
        assert_eq!(compose::<char>(&wanted, &|_| None), None);
    }

    #[test]
    fn a_repeated_row_stays_one_block() {
        let source = tensor(vec![Block::rows('a', 0, 4, 8), Block::rows('b', 0, 4, 8)]);
        let padding = Block { times: 5, ..Block::rows("s".to_owned(), 7, 1, 8) };
        let made = compose(&tensor(vec![padding]), &|_| Some(&source)).unwrap();
        assert_eq!(made.blocks, vec![Block { times: 5, ..Block::rows('b', 3, 1, 8) }]);
    }
}
