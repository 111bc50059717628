//! Training lines as Megatron prints them.
//!
//! ` [time] iteration 3/ 10 | consumed samples: 96 | … | lm loss: 1.1E+01 | … |`,
//! from the last rank alone. Launchers put prefixes in front, versions add and
//! drop fields, so fields are found by name and each may be missing.

use proto::v1::TrainProgress;

/// Marks of Megatron's rank 0 behind the last iteration.
const DONE: &str = "[after training is done]";
/// Most iterations that are believed; far below it sums of them overflow nowhere.
const MOST: u64 = 1 << 48;

/// Reads one line; `None` if it is no iteration line.
#[must_use]
pub fn parse(line: &str) -> Option<TrainProgress> {
    let (head, fields) = line.split_once('|')?;
    let (_, counts) = head.rsplit_once("iteration")?;
    let (iteration, iterations) = counts.split_once('/')?;
    let count = |text: &str| text.trim().parse().ok().filter(|count: &u64| *count <= MOST);
    let mut step =
        TrainProgress { iteration: count(iteration)?, iterations: count(iterations)?, ..TrainProgress::default() };
    let mut known = 0;
    for field in fields.split('|') {
        let Some((name, value)) = field.split_once(':') else { continue };
        let value = value.trim();
        let number = || value.parse::<f64>().ok();
        let size = || number().filter(|size| size.is_finite() && *size >= 0.0);
        match name.trim() {
            "consumed samples" => step.consumed_samples = value.parse().unwrap_or(0),
            "elapsed time per iteration (ms)" => step.step_ms = size().unwrap_or(0.0),
            "learning rate" => step.learning_rate = size().unwrap_or(0.0),
            "lm loss" | "loss" => step.loss = number().unwrap_or(0.0),
            "grad norm" => step.grad_norm = number().unwrap_or(0.0),
            _ => continue,
        }
        known += 1;
    }
    (known > 0).then_some(step)
}

/// Whether the line says that the trainer has finished all iterations.
#[must_use]
pub fn is_done_mark(line: &str) -> bool {
    line.contains(DONE)
}

/// Whether a first loss looks like that of random weights.
///
/// Those predict all tokens alike: the loss is ln(vocabulary), a little over
/// it with a wide initialisation, and in no case far under it.
#[must_use]
pub fn looks_random(loss: f64, vocab_size: u64) -> bool {
    if vocab_size < 2 || !loss.is_finite() {
        return false;
    }
    #[allow(clippy::cast_precision_loss, reason = "vocabularies are far below 2^52")]
    let even = (vocab_size as f64).ln();
    loss > 0.9 * even
}

/// The warning about a first loss that looks like random weights'.
#[must_use]
pub fn random_warning(loss: f64, vocab_size: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "vocabularies are far below 2^52")]
    let even = (vocab_size as f64).ln();
    format!("training from random weights? first lm loss {loss:.3} is near ln({vocab_size}) = {even:.3}; check --load")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = " [2025-05-06 15:54:26] iteration        1/      10 | consumed samples:          128 | elapsed time per iteration (ms): 22849.3 | throughput per GPU (TFLOP/s/GPU): 299.9 | learning rate: 1.235606E-06 | global batch size:   128 | lm loss: 9.7951211929321289 | loss scale: 1.0 | grad norm: 20.1497642787274636 | number of skipped iterations:   0 | number of nan iterations:   0 |";
    const PREFIXED: &str = "[default0]: [2026-09-11 12:06:52.987995] iteration        3/ 7629408 | consumed samples:           96 | elapsed time per iteration (ms): 24379.9 | throughput per GPU (TFLOP/s/GPU): 26.8 | learning rate: 1.406250E-04 | global batch size:    32 | lm loss: 1.107468E+01 | loss scale: 1.0 | grad norm: 30.066 | num zeros: 1299.0 | params norm: 496.206 | number of skipped iterations:   0 | number of nan iterations:   0 |";

    #[test]
    fn both_recorded_forms_are_read() {
        let step = parse(PLAIN).unwrap();
        assert_eq!((step.iteration, step.iterations, step.consumed_samples), (1, 10, 128));
        assert!((step.loss - 9.795_121_192_932_129).abs() < 1e-12);
        assert!((step.step_ms - 22849.3).abs() < 1e-9 && (step.learning_rate - 1.235_606e-6).abs() < 1e-12);
        let step = parse(PREFIXED).unwrap();
        assert_eq!((step.iteration, step.iterations), (3, 7_629_408));
        assert!((step.loss - 11.07468).abs() < 1e-9 && (step.grad_norm - 30.066).abs() < 1e-9);
    }

    #[test]
    fn missing_fields_are_zero_and_other_lines_are_none() {
        let step = parse("iteration 2/20 | learning rate: 1.499E-05 |").unwrap();
        assert_eq!((step.iteration, step.loss.to_bits()), (2, 0));
        for other in [
            "",
            "iteration 2/20",
            "iteration x/20 | lm loss: 1 |",
            "[Rank 4] (after 1 iterations) memory (MB) | allocated: 12480.07",
            "iteration 2/20 | nothing known: 3 |",
            "iteration 18446744073709551615/20 | lm loss: 1 |",
            "iteration -2/20 | lm loss: 1 |",
        ] {
            assert!(parse(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn a_loss_may_be_no_number_and_a_time_may_not() {
        let step = parse("iteration 2/20 | elapsed time per iteration (ms): inf | lm loss: nan |").unwrap();
        assert!(step.loss.is_nan() && step.step_ms == 0.0, "{step:?}");
        assert!(parse("iteration 2/20 | elapsed time per iteration (ms): -5 |").unwrap().step_ms == 0.0);
    }

    #[test]
    fn a_loss_near_the_even_guess_is_suspicious() {
        assert!(looks_random(11.9, 152_064));
        assert!(looks_random(12.4, 152_064));
        assert!(!looks_random(1.8, 152_064));
        assert!(!looks_random(11.9, 0) && !looks_random(f64::NAN, 152_064));
        assert_eq!(
            random_warning(11.9, 152_064),
            "training from random weights? first lm loss 11.900 is near ln(152064) = 11.932; check --load"
        );
    }
}
