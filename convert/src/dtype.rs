//! Element types of stored tensors and the casts between them.

use half::slice::HalfFloatSliceExt;
use model::Dtype;

/// Elements converted at a time: two blocks of float32 stay in the first-level cache.
const BLOCK: usize = 2048;

/// Bytes of one element as an index type.
#[must_use]
pub fn width(dtype: Dtype) -> usize {
    match dtype {
        Dtype::Bf16 | Dtype::Fp16 => 2,
        Dtype::Fp32 => 4,
    }
}

/// The name that safetensors headers use.
#[must_use]
pub fn safetensors_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bf16 => "BF16",
        Dtype::Fp16 => "F16",
        Dtype::Fp32 => "F32",
    }
}

/// The name that `config.json` uses.
#[must_use]
pub fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bf16 => "bfloat16",
        Dtype::Fp16 => "float16",
        Dtype::Fp32 => "float32",
    }
}

/// The type of that name in `config.json` or on a command line.
#[must_use]
pub fn by_name(name: &str) -> Option<Dtype> {
    match name.strip_prefix("torch.").unwrap_or(name) {
        "bfloat16" | "bf16" | "BF16" => Some(Dtype::Bf16),
        "float16" | "half" | "fp16" | "F16" => Some(Dtype::Fp16),
        "float32" | "float" | "fp32" | "F32" => Some(Dtype::Fp32),
        _ => None,
    }
}

/// Casts little-endian elements, rounding to nearest, ties to even.
///
/// Appends to `out`. Values too large for half precision become infinite, as
/// in torch; a trailing partial element is ignored.
pub fn cast(bytes: &[u8], from: Dtype, to: Dtype, out: &mut Vec<u8>) {
    if from == to {
        out.extend_from_slice(bytes);
        return;
    }
    let mut floats = [0f32; BLOCK];
    for block in bytes.chunks(BLOCK * width(from)) {
        let count = block.len() / width(from);
        let floats = &mut floats[..count];
        load(block, from, floats);
        store(floats, to, out);
    }
}

fn load(block: &[u8], from: Dtype, floats: &mut [f32]) {
    match from {
        Dtype::Bf16 => {
            for (f, b) in floats.iter_mut().zip(block.chunks_exact(2)) {
                *f = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
            }
        }
        Dtype::Fp16 => {
            let mut halves = [half::f16::ZERO; BLOCK];
            let halves = &mut halves[..floats.len()];
            for (h, b) in halves.iter_mut().zip(block.chunks_exact(2)) {
                *h = half::f16::from_le_bytes([b[0], b[1]]);
            }
            halves.convert_to_f32_slice(floats);
        }
        Dtype::Fp32 => {
            for (f, b) in floats.iter_mut().zip(block.chunks_exact(4)) {
                *f = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
    }
}

fn store(floats: &[f32], to: Dtype, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + floats.len() * width(to), 0);
    let target = &mut out[start..];
    match to {
        Dtype::Bf16 => {
            for (b, f) in target.chunks_exact_mut(2).zip(floats) {
                b.copy_from_slice(&bf16_bits(*f).to_le_bytes());
            }
        }
        Dtype::Fp16 => {
            let mut halves = [half::f16::ZERO; BLOCK];
            let halves = &mut halves[..floats.len()];
            halves.convert_from_f32_slice(floats);
            for (b, h) in target.chunks_exact_mut(2).zip(halves.iter()) {
                b.copy_from_slice(&h.to_le_bytes());
            }
        }
        Dtype::Fp32 => {
            for (b, f) in target.chunks_exact_mut(4).zip(floats) {
                b.copy_from_slice(&f.to_le_bytes());
            }
        }
    }
}

/// Upper half of a float32 after rounding; every NaN becomes torch's `0x7fc0`.
fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let bits = if value.is_nan() { 0x7fc0 } else { rounded & 0xffff };
    u16::try_from(bits).unwrap_or(0x7fc0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bf16_of(value: f32) -> u16 {
        let mut out = Vec::new();
        cast(&value.to_le_bytes(), Dtype::Fp32, Dtype::Bf16, &mut out);
        u16::from_le_bytes([out[0], out[1]])
    }

    #[test]
    fn ties_go_to_the_even_neighbour() {
        assert_eq!(bf16_of(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(bf16_of(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert_eq!(bf16_of(f32::from_bits(0x3f80_8001)), 0x3f81);
        assert_eq!(bf16_of(f32::MAX), 0x7f80, "rounds up to infinity");
        assert_eq!(bf16_of(f32::NEG_INFINITY), 0xff80);
        assert_eq!(bf16_of(f32::from_bits(0xffff_ffff)), 0x7fc0);
    }

    #[test]
    fn every_half_value_survives_float32_and_every_bf16_value_too() {
        for dtype in [Dtype::Bf16, Dtype::Fp16] {
            let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let (mut wide, mut back) = (Vec::new(), Vec::new());
            cast(&all, dtype, Dtype::Fp32, &mut wide);
            cast(&wide, Dtype::Fp32, dtype, &mut back);
            for (a, b) in all.chunks_exact(2).zip(back.chunks_exact(2)) {
                let (a, b) = (u16::from_le_bytes([a[0], a[1]]), u16::from_le_bytes([b[0], b[1]]));
                let nan = match dtype {
                    Dtype::Bf16 => a & 0x7fff > 0x7f80,
                    Dtype::Fp16 | Dtype::Fp32 => a & 0x7fff > 0x7c00,
                };
                assert!(a == b || nan, "{dtype:?} {a:04x} {b:04x}");
            }
        }
    }

    #[test]
    fn half_precision_overflows_to_infinity_and_rounds_to_even() {
        let bits = |v: f32| {
            let mut out = Vec::new();
            cast(&v.to_le_bytes(), Dtype::Fp32, Dtype::Fp16, &mut out);
            u16::from_le_bytes([out[0], out[1]])
        };
        assert_eq!(bits(65504.0), 0x7bff);
        assert_eq!(bits(65520.0), 0x7c00);
        assert_eq!(bits(2049.0), 0x6800, "2049 lies between 2048 and 2050: even wins");
        assert_eq!(bits(2051.0), 0x6802);
    }
}
