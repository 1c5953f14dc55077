//! How long a lease may be trusted.

use std::time::Duration;

use crate::Monotonic;

/// The times that follow from a lease duration.
///
/// Others take a lease over once its counter has not changed for the whole duration on *their* clock. Its owner
/// therefore stops trusting it earlier, counted from the *start* of the write that renewed it, on its own clock: no
/// clock is ever compared with another machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTiming {
    duration: Duration,
}

impl LeaseTiming {
    /// The times for a lease duration.
    pub const fn new(duration: Duration) -> Self {
        Self { duration }
    }

    /// How long a lease holds after a renewal.
    pub const fn duration(&self) -> Duration {
        self.duration
    }

    /// How much earlier its owner stops trusting it: a tenth, for clocks that run at different rates and for the way
    /// from the check to what follows it.
    pub fn margin(&self) -> Duration {
        self.duration / 10
    }

    /// How often a lease is renewed: three times per duration, so that two renewals may fail.
    pub fn renew_interval(&self) -> Duration {
        self.duration / 3
    }

    /// How soon a renewal of unknown outcome is repeated.
    pub fn renew_retry(&self) -> Duration {
        self.duration / 20
    }

    /// Until when a lease is trusted whose renewal was started at `attempt` and succeeded.
    pub fn trusted_until(&self, attempt: Monotonic) -> Monotonic {
        attempt.plus(self.duration.saturating_sub(self.margin()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_ends_before_anybody_may_take_the_lease() {
        let timing = LeaseTiming::new(Duration::from_secs(10));
        let start = Monotonic::from_origin(Duration::from_secs(100));
        assert_eq!(timing.trusted_until(start), Monotonic::from_origin(Duration::from_secs(109)));
        assert!(timing.renew_interval() * 2 + timing.renew_retry() < timing.duration() - timing.margin());
    }
}
