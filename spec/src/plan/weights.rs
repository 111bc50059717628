//! How many bytes each shard of a checkpoint has.

use model::{Deal, ModelShape, Parallel, layout::padded_vocab};

/// Bytes of one tensor-parallel shard of pipeline stage `pp`, about.
///
/// Exact but for the norms, which every tensor-parallel rank holds whole, and slots without a layer.
pub(super) fn shard_bytes(
    shape: &ModelShape,
    parallel: Parallel,
    deal: &Deal,
    divisor: u64,
    element: u64,
    pp: u32,
) -> u64 {
    let (h, f, d) = (shape.hidden_size, shape.ffn_hidden_size, shape.kv_channels);
    let (nh, ng) = (shape.num_attention_heads, shape.num_query_groups);
    let tp = u64::from(parallel.tp());
    let qkv_rows = (nh.saturating_add(ng.saturating_mul(2))).saturating_mul(d);
    let mut layer = qkv_rows.saturating_mul(h);
    if shape.qkv_bias {
        layer = layer.saturating_add(qkv_rows);
    }
    layer = layer.saturating_add(h.saturating_mul(nh).saturating_mul(d));
    layer = layer.saturating_add(h.saturating_mul(f).saturating_mul(3)) / tp;
    layer = layer.saturating_add(h.saturating_mul(2));
    let mut elements = layer.saturating_mul(deal.slots_of_stage(parallel.pp(), pp, shape.num_layers));
    let vocabulary = padded_vocab(shape.vocab_size, divisor, parallel.tp()).saturating_mul(h) / tp;
    if pp == 0 {
        elements = elements.saturating_add(vocabulary);
    }
    let last = pp + 1 == parallel.pp();
    // A tied model on one stage has no output layer; on more, the last stage holds a copy.
    if last && (!shape.tied || parallel.pp() > 1) {
        elements = elements.saturating_add(vocabulary);
    }
    if last {
        elements = elements.saturating_add(h);
    }
    elements.saturating_mul(element)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::outline::stand_in;

    #[test]
    fn shards_of_a_7b_model_add_up() {
        let shape = ModelShape { num_layers: 28, ..stand_in(Parallel::new(1, 1).unwrap(), &Deal::default()) };
        let whole = shard_bytes(&shape, Parallel::new(1, 1).unwrap(), &Deal::default(), 1, 2, 0);
        // 7,615,616,512 parameters, as the model's card has it.
        assert_eq!(whole, 7_615_616_512 * 2);
        let cut = Parallel::new(2, 2).unwrap();
        let sum: u64 = (0..2).map(|pp| 2 * shard_bytes(&shape, cut, &Deal::default(), 1, 2, pp)).sum();
        assert!(sum > whole && sum - whole < whole / 1000, "only norms are held twice: {sum} {whole}");
    }
}
