//! The settings of a delivery, in a form that tests can change and that the model reads.

use std::time::Duration;

use shardwell_core::RetryPolicy;
use shardwell_core::delivery::{DeliveryPolicy, OnSinkFailure};

/// The settings of a term of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) lanes: u32,
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    pub(crate) window: Duration,
    pub(crate) retries: Option<u32>,
    pub(crate) age: Option<Duration>,
    pub(crate) bisect: bool,
    pub(crate) isolate: bool,
    /// As a Lambda trigger: reports count up to their first record, and outages are failures.
    pub(crate) lambda: bool,
    pub(crate) discard_on_failure: bool,
    pub(crate) quarantine: bool,
    pub(crate) can_bury: bool,
    pub(crate) max_record_bytes: Option<usize>,
    pub(crate) state_bytes: usize,
    /// Every so manieth record is filtered; 0: none.
    pub(crate) filter: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            lanes: 1,
            records: 10,
            bytes: 1 << 20,
            window: Duration::ZERO,
            retries: Some(2),
            age: None,
            bisect: true,
            isolate: true,
            lambda: false,
            discard_on_failure: false,
            quarantine: false,
            can_bury: true,
            max_record_bytes: None,
            state_bytes: 1024,
            filter: 0,
        }
    }
}

impl Rules {
    pub(crate) fn policy(&self) -> DeliveryPolicy {
        let base = if self.lambda { DeliveryPolicy::lambda() } else { DeliveryPolicy::default() };
        let limited = |limit| if self.can_bury { limit } else { None };
        let on_failure = if self.discard_on_failure { OnSinkFailure::Discard } else { OnSinkFailure::Wait };
        let policy = base
            .with_lanes(self.lanes)
            .with_batch_records(self.records)
            .with_batch_bytes(self.bytes)
            .with_batch_window(self.window)
            .with_max_retries(limited(self.retries))
            .with_max_record_age(self.age.filter(|_| self.can_bury))
            .with_max_record_bytes(self.max_record_bytes.filter(|_| self.can_bury))
            .with_bisect(self.bisect)
            .with_isolate(self.isolate)
            .with_backoff(Self::backoff())
            .with_outage_backoff(Self::outage_backoff())
            .with_on_sink_failure(on_failure)
            .with_quarantine(self.quarantine && self.can_bury)
            .with_max_state_bytes(self.state_bytes);
        policy.resolve(self.can_bury).expect("a valid policy")
    }

    pub(crate) fn backoff() -> RetryPolicy {
        RetryPolicy::default().with_cap(Duration::from_secs(2))
    }

    pub(crate) fn outage_backoff() -> RetryPolicy {
        RetryPolicy::default().with_initial(Duration::from_secs(1)).with_cap(Duration::from_secs(5))
    }

    /// Whether a record is filtered.
    pub(crate) const fn filters(&self, index: usize) -> bool {
        self.filter > 0 && index.is_multiple_of(self.filter)
    }
}
