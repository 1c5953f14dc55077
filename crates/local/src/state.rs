//! What every operation works on: the model and its clock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use shardwell_core::Timestamp;
use shardwell_core::memory::kinesis::SharedKinesis;

pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) kinesis: SharedKinesis,
    clock: Clock,
    offset_millis: Arc<AtomicI64>,
}

impl State {
    pub(crate) fn new(kinesis: SharedKinesis, clock: Clock) -> Self {
        Self { kinesis, clock, offset_millis: Arc::default() }
    }

    /// The engine's wall clock.
    pub(crate) fn now(&self) -> Timestamp {
        let offset = self.offset_millis.load(Ordering::Relaxed);
        Timestamp::from_millis((self.clock)().as_millis().saturating_add(offset))
    }

    pub(crate) fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let raise = |offset: i64| Some(offset.saturating_add(by));
        // The closure never refuses, so this cannot fail.
        let _ = self.offset_millis.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raise);
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("now", &self.now()).finish_non_exhaustive()
    }
}
