//! A few threads over a list of jobs.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};
use crate::progress::Stop;

/// Most threads that are started; beyond these, storage is the limit.
const MOST: usize = 8;

/// Threads worth starting on this machine.
#[must_use]
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST)
}

/// Runs jobs `0..count` and gives their results in order.
///
/// The first failure asks the other jobs to stop.
///
/// # Errors
///
/// That first failure.
pub fn for_each<T: Send>(count: usize, job: &(dyn Fn(usize, &Stop) -> Result<T> + Sync)) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let stop = Stop::default();
    let done: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::with_capacity(count));
    let work = || -> Result<()> {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return Ok(());
            }
            stop.check()?;
            let result = job(i, &stop).inspect_err(|_| stop.set())?;
            if let Ok(mut done) = done.lock() {
                done.push((i, result));
            }
        }
    };
    let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads().min(count)).map(|_| scope.spawn(work)).collect();
        let mut outcomes = vec![work()];
        outcomes.extend(helpers.into_iter().map(|h| h.join().unwrap_or(Err(Error::Stopped))));
        outcomes
    });
    let mut failures: Vec<Error> = outcomes.into_iter().filter_map(Result::err).collect();
    if !failures.is_empty() {
        let cause = failures.iter().position(|e| !matches!(e, Error::Stopped)).unwrap_or(0);
        return Err(failures.swap_remove(cause));
    }
    let mut done = done.into_inner().map_err(|_| Error::Stopped)?;
    done.sort_by_key(|(i, _)| *i);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_the_cause_wins_over_those_it_stopped() {
        assert_eq!(for_each(100, &|i, _| Ok(i)).unwrap(), (0..100).collect::<Vec<_>>());
        let error = for_each(10, &|i, stop| {
            if i == 3 { Err(Error::usage("three")) } else { stop.check().map(|()| i) }
        });
        assert_eq!(error.unwrap_err().to_string(), "three");
    }
}
