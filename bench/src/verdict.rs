//! A number beside its bar.

use std::io::Write as _;

/// A number, its bar, and whether it is met.
#[derive(Debug)]
pub(crate) struct Verdict {
    met: bool,
}

impl Verdict {
    /// Says that `measured` must stay below `bar`.
    pub(crate) fn below(what: &str, measured: f64, bar: f64, unit: &str) -> Self {
        Self::say(what, measured, "<", bar, unit, measured < bar)
    }

    /// Says that `measured` must reach `bar`.
    pub(crate) fn at_least(what: &str, measured: f64, bar: f64, unit: &str) -> Self {
        Self::say(what, measured, ">=", bar, unit, measured >= bar)
    }

    pub(crate) fn is_met(&self) -> bool {
        self.met
    }

    fn say(what: &str, measured: f64, sign: &str, bar: f64, unit: &str, met: bool) -> Self {
        let word = if met { "met" } else { "NOT MET" };
        tell(&format!("{what}: {measured:.3}{unit} (bar {sign} {bar}{unit}): {word}"));
        Self { met }
    }
}

/// A line that belongs to the result.
pub(crate) fn tell(line: &str) {
    // Without a reader there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line that does not.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The value that a share `q` of `sorted` does not exceed; 0 if there is none.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
    let at = (sorted.len() as f64 * q).ceil() as usize;
    sorted.get(at.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((quantile(&sorted, 0.5), quantile(&sorted, 0.99)), (100.0, 198.0));
        assert_eq!((quantile(&[7.0], 0.99), quantile(&[], 0.5)), (7.0, 0.0));
    }
}
