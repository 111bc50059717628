//! How often a failed task is tried again.

/// A budget of new tries within a rolling window, and the pauses before them.
///
/// A crash loop ends, and a run that fails now and then for months does not:
/// only failures within the last `window_ms` count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// New tries within a window.
    pub max: u32,
    /// Length of the window, in milliseconds.
    pub window_ms: u64,
    /// Pause before the first new try, in milliseconds; see [`Self::pause_ms`].
    pub backoff_ms: u64,
}

impl Retries {
    /// The window where none is named: a day.
    pub const WINDOW_MS: u64 = 86_400_000;
    /// The first pause where none is named.
    pub const BACKOFF_MS: u64 = 1_000;
    /// Pauses grow up to here, unless the first one is longer.
    pub const LONGEST_PAUSE_MS: u64 = 60_000;

    /// So many new tries within a day, with the usual pauses.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self { max, window_ms: Self::WINDOW_MS, backoff_ms: Self::BACKOFF_MS }
    }

    /// Pause before the next try, after `failed` failures that count beside the last one.
    ///
    /// Doubles with each of them.
    #[must_use]
    pub fn pause_ms(&self, failed: u32) -> u64 {
        let doubled = self.backoff_ms.saturating_mul(1 << failed.min(20));
        doubled.min(Self::LONGEST_PAUSE_MS.max(self.backoff_ms))
    }

    /// What the pauses alone take before the budget is used up.
    #[must_use]
    pub fn pauses_ms(&self) -> u64 {
        (0..self.max).fold(0, |sum, failed| sum.saturating_add(self.pause_ms(failed)))
    }
}

#[cfg(test)]
mod tests {
    use super::Retries;

    #[test]
    fn pauses_double_up_to_a_minute_or_the_first_one() {
        let of = |backoff_ms| Retries { backoff_ms, ..Retries::new(8) };
        let pauses = |retries: Retries| [0, 1, 5, 6, 7, 40, u32::MAX].map(|failed| retries.pause_ms(failed));
        assert_eq!(pauses(of(1_000)), [1_000, 2_000, 32_000, 60_000, 60_000, 60_000, 60_000]);
        assert_eq!(pauses(of(300_000)), [300_000; 7]);
        assert_eq!(pauses(of(u64::MAX)), [u64::MAX; 7]);
        assert_eq!((of(1_000).pauses_ms(), of(u64::MAX).pauses_ms()), (183_000, u64::MAX));
        assert_eq!(Retries::new(0).pauses_ms(), 0);
    }
}
