//! Building a producer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shardwell_core::{Env, RetryPolicy, Stream, StreamWriter, SystemEnv};

use crate::budget::Budget;
use crate::driver::Target;
use crate::hooks::{Hooks, ProducerHooks};
use crate::producer::Producer;
use crate::settings::{Ordering, Settings, ShardRate};

/// Settings that make no producer, or an environment that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(String);

/// Collects what a producer is made of. The stream is what it writes to; everything else is a setting with a default.
#[must_use = "a builder does nothing until `build`"]
pub struct ProducerBuilder {
    target: Arc<dyn Target>,
    env: Option<Arc<dyn Env>>,
    hooks: Hooks,
    settings: Settings,
}

impl Producer {
    /// Starts building a producer for a stream. It can serve others too: [`for_stream`](Self::for_stream).
    pub fn builder(stream: impl Stream + StreamWriter) -> ProducerBuilder {
        ProducerBuilder { target: Arc::new(stream), env: None, hooks: Hooks::default(), settings: Settings::default() }
    }
}

impl ProducerBuilder {
    /// In which order records get into the stream. Default: any.
    pub fn ordering(mut self, ordering: Ordering) -> Self {
        self.settings.ordering = ordering;
        self
    }

    /// Whether user records of one shard are put together into aggregated records, as the KPL does. Default: yes. Whoever reads the
    /// stream must take them apart (the KCL does, shardwell does, a Lambda trigger does not); the service counts one record for all, and a
    /// shard takes a thousand a second. Streams with `AUTO` record distribution are recognised, and nothing is aggregated there.
    pub fn aggregation(mut self, aggregates: bool) -> Self {
        self.settings.aggregates = aggregates;
        self
    }

    /// How long a user record may wait for others. Default: 100 ms. Longer fills records and requests better; shorter is sooner there.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// How long a user record may take until it is in the stream; then it fails with
    /// [`PutFailureKind::Expired`](crate::PutFailureKind::Expired). Default: 30 s; `None` for as long as it takes. An aggregated record
    /// expires with the oldest of its members.
    pub fn record_ttl(mut self, ttl: Option<Duration>) -> Self {
        self.settings.record_ttl = ttl;
        self
    }

    /// The most bytes of an aggregated record. Default: 51,200, as in the KPL. Larger ones cost fewer records and are read in larger pieces.
    pub fn max_aggregate_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_aggregate_bytes = bytes;
        self
    }

    /// The most user records of an aggregated record. Default: as many as fit.
    pub fn max_aggregate_records(mut self, records: u64) -> Self {
        self.settings.max_aggregate_records = records;
        self
    }

    /// The most bytes of a record, payload and partition key. Default: 1 MiB, what a stream takes unless it was set to take more (up to
    /// 10 MiB).
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_record_bytes = bytes;
        self
    }

    /// The most bytes of a request. Default: 5 MiB; the service takes 10 MiB.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_request_bytes = bytes;
        self
    }

    /// The most records of a request. Default: 500, the most that the service takes.
    pub fn max_request_records(mut self, records: usize) -> Self {
        self.settings.max_request_records = records;
        self
    }

    /// How many requests may be under way to a stream at a time. Default: 24.
    pub fn max_requests_in_flight(mut self, requests: usize) -> Self {
        self.settings.max_requests_in_flight = requests;
        self
    }

    /// How many bytes may be in the producer at a time: payloads, partition keys, and 512 bytes for each user record. Default: 64 MiB.
    /// Whoever wants to put more waits.
    ///
    /// A request under way is also there as the bytes that are sent, encoded, which is 1.4 times its records. So if everything is under way
    /// and nothing is answered, the producer takes up to about 1.8 times this setting.
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_buffered_bytes = bytes;
        self
    }

    /// How many user records may be in the producer at a time. Default: 500,000.
    pub fn max_buffered_records(mut self, records: usize) -> Self {
        self.settings.max_buffered_records = records;
        self
    }

    /// How fast a shard is written at most, in bytes and records per second. Default: what the service takes, 1 MiB and 1000 records. It is
    /// less for a while where a shard throttles. Less from the start leaves something to others that write to the stream.
    pub fn shard_rate(mut self, bytes_per_second: f64, records_per_second: f64) -> Self {
        self.settings.shard_rate = Some(ShardRate { bytes: bytes_per_second, records: records_per_second });
        self
    }

    /// Sends as fast as the stream answers, for streams without limits.
    pub fn without_pacing(mut self) -> Self {
        self.settings.shard_rate = None;
        self
    }

    /// How often and how soon a record is tried again. Default: from 100 ms to 5 s, doubling, for as long as `record_ttl` allows.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.settings.retry = retry;
        self
    }

    /// Who is told of what happens to records, for accounts of its own. Default: nobody. The tickets tell the same to those who put.
    pub fn hooks(mut self, hooks: impl ProducerHooks) -> Self {
        self.hooks = Hooks::new(hooks);
        self
    }

    /// Clocks, tasks and randomness. Default: the system's, with threads of its own.
    pub fn env(mut self, env: Arc<dyn Env>) -> Self {
        self.env = Some(env);
        self
    }

    /// Builds and starts it. The stream is looked at when that is done; it need not be reachable yet.
    ///
    /// # Errors
    /// Where a setting makes no sense, or the system refuses threads; the message says what to do.
    pub fn build(self) -> Result<Producer, BuildError> {
        self.settings.check().map_err(BuildError)?;
        let env = match self.env {
            Some(env) => env,
            None => Arc::new(SystemEnv::new().map_err(|error| BuildError(format!("cannot start threads: {error}")))?),
        };
        let budget = Budget::new(self.settings.max_buffered_bytes, self.settings.max_buffered_records);
        Ok(Producer::start(self.target, env, budget, self.hooks, self.settings))
    }
}

impl fmt::Debug for ProducerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
