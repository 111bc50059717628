//! How long to wait before trying again.

use std::time::Duration;

use rand::Rng as _;

/// Doubling pauses with full jitter, so that a restarted server is not met by
/// all its clients at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Pauses from `first` up to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, ceiling: first }
    }

    /// The next pause: between half the present ceiling and all of it.
    pub fn pause(&mut self) -> Duration {
        let pause = self.ceiling.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.ceiling = (self.ceiling * 2).min(self.longest);
        pause
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_cap_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let bounds = [(50, 100), (100, 200), (175, 350), (175, 350)];
        for (low, high) in bounds {
            let pause = backoff.pause();
            assert!(pause >= Duration::from_millis(low) && pause <= Duration::from_millis(high), "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(100));
    }
}
