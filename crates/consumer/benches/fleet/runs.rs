//! Many runs of a measurement, each in a virtual time of its own, as many at once as there are processors.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How often things are measured that differ much with the moment at which they happen.
pub(crate) const RUNS: u64 = 60;

/// Measures with each of the first `seeds` seeds. What was measured, by seed.
pub(crate) fn over_seeds<T, F>(seeds: u64, measure: impl Fn(u64) -> F + Sync) -> Vec<T>
where
    T: Send,
    F: Future<Output = T>,
{
    let next = AtomicU64::new(0);
    let measured = Mutex::new(Vec::new());
    let run = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let result = runtime.expect("a runtime").block_on(measure(seed));
            measured.lock().unwrap_or_else(PoisonError::into_inner).push((seed, result));
        }
    };
    std::thread::scope(|threads| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..processors {
            threads.spawn(run);
        }
    });
    let mut measured = measured.into_inner().unwrap_or_else(PoisonError::into_inner);
    measured.sort_by_key(|(seed, _)| *seed);
    measured.into_iter().map(|(_, result)| result).collect()
}
