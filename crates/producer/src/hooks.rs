//! What a producer tells its caller as it happens, for accounts of the caller's own: by tenant, by cost.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use shardwell_core::{Placed, PutEntry, ShardId};
use tracing::error;

use crate::failure::PutFailure;
use crate::ticket::{AttemptError, Landed};

/// Told of what happens to records, as it happens. Set with [`ProducerBuilder::hooks`](crate::ProducerBuilder::hooks).
///
/// It is called on the producer's own threads, by several at a time, and everything waits for it: it must return at once. A panic in it
/// is logged, and changes nothing for the records.
pub trait ProducerHooks: Send + Sync + 'static {
    /// The service has answered for a record, or a request with it has failed. Default: nothing.
    fn record_answered(&self, _answered: &AnsweredRecord<'_>) {}

    /// The fate of a user record is known; its ticket is resolved right after. Default: nothing.
    fn user_record_settled(&self, _settled: &SettledRecord<'_>) {}
}

/// A record as it went to Kinesis, and what was answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AnsweredRecord<'a> {
    /// The stream.
    pub stream: &'a str,
    /// The shard that the record was meant for; none where that is not known.
    pub shard: Option<&'a ShardId>,
    /// Payload and partition key, as the service counts: it charges for them, in units of 25 KB, whatever it holds.
    pub bytes: usize,
    /// How many user records it holds.
    pub user_records: usize,
    /// How long it waited: since its first user record was put, or since the attempt before.
    pub waited: Duration,
    /// How long the request took.
    pub took: Duration,
    /// Where it is, or what went wrong. It may be in a shard where it does not belong; then it is written again.
    pub result: Result<&'a Placed, &'a AttemptError>,
}

/// A user record, and what became of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SettledRecord<'a> {
    /// The stream.
    pub stream: &'a str,
    /// The user record, as it was put.
    pub record: &'a PutEntry,
    /// What its ticket says.
    pub result: Result<&'a Landed, &'a PutFailure>,
}

/// The caller's hooks, if there are any.
#[derive(Clone, Default)]
pub(crate) struct Hooks(Option<Arc<dyn ProducerHooks>>);

impl Hooks {
    pub(crate) fn new(hooks: impl ProducerHooks) -> Self {
        Self(Some(Arc::new(hooks)))
    }

    pub(crate) const fn are_set(&self) -> bool {
        self.0.is_some()
    }

    /// Calls them; whatever they do, the producer goes on.
    pub(crate) fn call(&self, call: impl FnOnce(&dyn ProducerHooks)) {
        let Some(hooks) = &self.0 else { return };
        if catch_unwind(AssertUnwindSafe(|| call(&**hooks))).is_err() {
            error!("the hooks of a producer have panicked; what they were told is lost to them");
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hooks").field(&self.are_set()).finish()
    }
}
