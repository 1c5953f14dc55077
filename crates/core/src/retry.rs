//! How to try again: exponential backoff with full jitter.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// How often and how soon to try again.
///
/// The delay before attempt `n + 1` is drawn evenly from zero to `initial × factor^(n-1)`, capped ("full jitter"), so
/// that many callers that failed together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    initial: Duration,
    factor: f32,
    cap: Duration,
    max_retries: Option<u32>,
}

impl Default for RetryPolicy {
    /// 200 ms, doubling up to 60 s, for ever.
    fn default() -> Self {
        Self { initial: Duration::from_millis(200), factor: 2.0, cap: Duration::from_secs(60), max_retries: None }
    }
}

/// No delay grows past this many doublings: keeps the arithmetic finite whatever the attempt.
const MAX_STEPS: u32 = 64;

impl RetryPolicy {
    /// The longest delay before the first retry. Default: 200 ms. Too small hammers what is struggling; too large makes
    /// a hiccup slow.
    #[must_use]
    pub const fn with_initial(mut self, initial: Duration) -> Self {
        self.initial = initial;
        self
    }

    /// By how much the longest delay grows with each retry, at least 1. Default: 2.
    #[must_use]
    pub const fn with_factor(mut self, factor: f32) -> Self {
        self.factor = factor.max(1.0);
        self
    }

    /// Where the growth stops. Default: 60 s. Too large leaves a shard idle long after an outage has ended.
    #[must_use]
    pub const fn with_cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// How many retries follow the first attempt; `None` for any number. Default: `None`.
    #[must_use]
    pub const fn with_max_retries(mut self, max_retries: Option<u32>) -> Self {
        self.max_retries = max_retries;
        self
    }

    /// The longest delay after the `failures`-th failure in a row (from 1); `None` when the retries are used up.
    pub fn longest_delay(&self, failures: u32) -> Option<Duration> {
        if self.max_retries.is_some_and(|max| failures > max) {
            return None;
        }
        let step = failures.saturating_sub(1).min(MAX_STEPS);
        ExponentialBuilder::new()
            .with_min_delay(self.initial)
            .with_factor(self.factor)
            .with_max_delay(self.cap)
            .without_max_times()
            .build()
            .nth(step as usize)
            .map(|delay| delay.min(self.cap))
    }

    /// The delay after the `failures`-th failure in a row (from 1), with jitter from 64 random bits; `None` when the
    /// retries are used up.
    pub fn delay(&self, failures: u32, random: u64) -> Option<Duration> {
        // 53 bits make every fraction from 0 to just below 1 that a double can hold.
        let fraction = (random >> 11) as f64 / (1u64 << 53) as f64;
        self.longest_delay(failures).map(|longest| longest.mul_f64(fraction))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn delays_double_up_to_the_cap() {
        let policy = RetryPolicy::default().with_cap(Duration::from_secs(1)).with_max_retries(Some(5));
        let longest: Vec<_> = (1..=6).map(|n| policy.longest_delay(n).map(|d| d.as_millis())).collect();
        assert_eq!(longest, [Some(200), Some(400), Some(800), Some(1000), Some(1000), None]);
    }

    #[test]
    fn many_failures_stay_at_the_cap() {
        assert_eq!(RetryPolicy::default().longest_delay(u32::MAX), Some(Duration::from_secs(60)));
    }

    proptest! {
        #[test]
        fn jitter_stays_below_the_longest_delay(failures in 1u32..100, random: u64) {
            let policy = RetryPolicy::default();
            let longest = policy.longest_delay(failures).expect("unlimited");
            prop_assert!(policy.delay(failures, random).expect("unlimited") <= longest);
        }
    }
}
