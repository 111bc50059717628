//! How often one may ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Calls that a holder of a certificate may make at once, and then a second.
const HOLDER: Rate = Rate { burst: 2000, a_second: 500 };
/// Calls from an address without a certificate: many agents behind one address may join at once.
const STRANGER: Rate = Rate { burst: 400, a_second: 40 };
/// Callers that are counted at once.
const COUNTED: usize = 16_384;
/// Pause between two looks at all of them.
const SWEEP: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    a_second: u32,
}

/// What each caller has left; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    left: Arc<Mutex<Left>>,
}

#[derive(Debug, Default)]
struct Left {
    buckets: BTreeMap<String, Bucket>,
    /// When full buckets were taken out last: a look at all of them is not made for each call.
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Bucket {
    /// When it was, or will be, full again.
    full: Instant,
}

impl Rates {
    /// Whether this caller may ask now. `holder` has shown a certificate.
    pub(super) fn take(&self, caller: &str, holder: bool, now: Instant) -> bool {
        let rate = if holder { HOLDER } else { STRANGER };
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.buckets.len() >= COUNTED && left.swept.is_none_or(|at| now.duration_since(at) > SWEEP) {
            left.buckets.retain(|_, bucket| bucket.full > now);
            left.swept = Some(now);
        }
        // Those that cannot be counted singly share one bucket.
        let many = left.buckets.len() >= COUNTED && !left.buckets.contains_key(caller);
        let caller = if many { "" } else { caller };
        let bucket = left.buckets.entry(caller.to_owned()).or_insert(Bucket { full: now });
        let one = Duration::from_secs(1) / rate.a_second;
        let full = bucket.full.max(now) + one;
        let takes = full.duration_since(now) <= one * rate.burst;
        if takes {
            bucket.full = full;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_often_waits_and_others_do_not() {
        let (rates, now) = (Rates::default(), Instant::now());
        let asked = |caller: &str, at: Instant, times: u32| (0..times).filter(|_| rates.take(caller, true, at)).count();
        assert_eq!(asked("ada", now, HOLDER.burst + 100), HOLDER.burst as usize);
        assert_eq!(asked("bob", now, 10), 10);
        assert_eq!(asked("ada", now + Duration::from_secs(1), 5000), HOLDER.a_second as usize);
        assert_eq!(asked("ada", now + Duration::from_secs(3600), 5000), HOLDER.burst as usize);
        for caller in 0..COUNTED * 2 {
            rates.take(&format!("c{caller}"), false, now);
        }
        assert!(rates.left.lock().unwrap().buckets.len() <= COUNTED + 1);
    }
}
