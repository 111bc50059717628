//! How far engines are, added up.

use proto::v1::EngineProgress;

/// What one task of a stage says; `None` if it has said nothing yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Word {
    pub(super) progress: Option<EngineProgress>,
    pub(super) active: bool,
    /// It waits for all others.
    pub(super) closing: bool,
}

/// The sum over what counts in the unit of those that are at work: shards count
/// rows, and the task that joins them parts.
///
/// Only those at work have a speed. Tasks that have yet to begin are taken to
/// be as long as the others.
pub(super) fn sum(words: &[Word]) -> Option<EngineProgress> {
    let spoken = |word: &Word| word.progress.clone();
    let first = words.iter().filter(|word| word.active).find_map(spoken).or_else(|| words.iter().find_map(spoken))?;
    let mut sum = EngineProgress { unit: first.unit, ..EngineProgress::default() };
    let mut counted = 0_u64;
    for word in words {
        let Some(progress) = word.progress.as_ref().filter(|progress| progress.unit == sum.unit) else { continue };
        counted += 1;
        sum.done = sum.done.saturating_add(progress.done);
        sum.total = sum.total.saturating_add(progress.total);
        sum.tokens = sum.tokens.saturating_add(progress.tokens);
        if word.active {
            sum.per_second += progress.per_second;
            sum.tokens_per_second += progress.tokens_per_second;
            sum.text_bytes_per_second += progress.text_bytes_per_second;
        }
    }
    let waiting = words.iter().filter(|word| word.progress.is_none() && !word.closing).count() as u64;
    let whole = u128::from(sum.total) * u128::from(counted + waiting) / u128::from(counted.max(1));
    sum.seconds_left = left(u128::from(sum.done), whole, sum.per_second);
    Some(sum)
}

/// Seconds that the rest takes at this speed; `None` while whole or speed is unknown.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate, and it saturates"
)]
fn left(done: u128, whole: u128, per_second: f64) -> Option<u64> {
    let rest = whole.checked_sub(done).filter(|_| whole > 0 && per_second > 0.0)?;
    Some((rest as f64 / per_second).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(done: u64, total: u64, per_second: f64, active: bool) -> Word {
        let unit = "rows".to_owned();
        let tokens = done.saturating_mul(10);
        let progress = EngineProgress { done, total, unit, tokens, per_second, ..EngineProgress::default() };
        Word { progress: Some(progress), active, closing: false }
    }

    fn told(words: &[Word]) -> (u64, u64, f64, Option<u64>) {
        let sum = sum(words).unwrap_or_default();
        (sum.done, sum.total, sum.per_second, sum.seconds_left)
    }

    #[test]
    fn those_at_work_give_the_speed_and_those_that_wait_their_share() {
        let waiting = Word::default();
        let closing = Word { closing: true, ..Word::default() };
        let (over, one, two) = (rows(100, 100, 7.0, false), rows(20, 100, 5.0, true), rows(30, 100, 5.0, true));
        assert_eq!(told(&[one.clone(), two.clone(), closing.clone()]), (50, 200, 10.0, Some(15)));
        assert_eq!(told(&[over.clone(), one.clone(), closing.clone()]), (120, 200, 5.0, Some(16)));
        assert_eq!(told(&[over.clone(), one, waiting, closing.clone()]), (120, 200, 5.0, Some(36)));
        assert_eq!(told(&[over.clone(), closing]), (100, 100, 0.0, None));
        assert_eq!(sum(&[Word::default()]), None);
        assert_eq!(told(&[rows(5, 0, 5.0, true)]).3, None, "how many there are is not known yet");
        assert_eq!(told(&[rows(u64::MAX, u64::MAX, f64::MAX, true), over]).0, u64::MAX);
    }

    #[test]
    fn parts_are_not_added_to_rows() {
        let unit = "parts".to_owned();
        let parts = EngineProgress { done: 1, total: 4, unit, per_second: 0.5, ..EngineProgress::default() };
        let mut joining = Word { progress: Some(parts), active: true, closing: true };
        assert_eq!(told(&[rows(100, 100, 7.0, false), joining.clone()]), (1, 4, 0.5, Some(6)));
        joining.active = false;
        assert_eq!(told(&[rows(100, 100, 7.0, false), joining]).0, 100);
    }
}
