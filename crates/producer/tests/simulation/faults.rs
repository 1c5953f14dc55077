//! A stream between the producer and the one in memory, which fails as a seed says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use shardwell_core::aggregation::effective_hash_key;
use shardwell_core::memory::MemoryStream;
use shardwell_core::{
    EnvExt, PutEntry, PutError, PutErrorKind, PutResult, Shard, ShardFilter, Stream, StreamDescription, StreamError,
    StreamErrorKind, StreamWriter,
};
use shardwell_sim::SimEnv;

use crate::between::Behaviour;

/// How often what goes wrong, each from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) throttled_entry: f64,
    /// Of the entries in the upper half of the hash keys, beside the others.
    pub(crate) throttled_half: f64,
    pub(crate) failed_entry: f64,
    pub(crate) throttled_call: f64,
    pub(crate) timeout_before: f64,
    pub(crate) timeout_after: f64,
    pub(crate) unavailable: f64,
    pub(crate) failed_listing: f64,
    pub(crate) stale_listing: f64,
    /// The longest time that a call takes.
    pub(crate) slowest: Duration,
}

#[derive(Clone)]
pub(crate) struct FaultyStream {
    inner: MemoryStream,
    env: SimEnv,
    state: Arc<Mutex<State>>,
}

struct State {
    random: fastrand::Rng,
    rates: Rates,
    /// What the shards were at some time before.
    old_shards: Vec<Shard>,
}

impl FaultyStream {
    pub(crate) fn new(inner: MemoryStream, env: SimEnv, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self {
            inner,
            env,
            state: Arc::new(Mutex::new(State { random, rates: Rates::default(), old_shards: Vec::new() })),
        }
    }

    pub(crate) fn set(&self, rates: Rates) {
        self.state().rates = rates;
    }

    /// What is listed from now on, where a listing is stale.
    pub(crate) fn remember_shards(&self) {
        self.state().old_shards = self.inner.shards(&ShardFilter::AtLatest).expect("the stream is there");
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds this")
    }

    fn happens(&self, rate: impl Fn(&Rates) -> f64) -> bool {
        let mut state = self.state();
        let rate = rate(&state.rates);
        state.random.f64() < rate
    }

    async fn takes_time(&self) {
        let (share, slowest) = {
            let mut state = self.state();
            (state.random.f64(), state.rates.slowest)
        };
        self.env.sleep(Duration::from_millis(2) + slowest.mul_f64(share * share)).await;
    }
}

fn failed(kind: StreamErrorKind) -> StreamError {
    StreamError::new(kind, "as planned")
}

fn refused(kind: PutErrorKind, code: &str) -> PutResult {
    Err(PutError { kind, code: code.to_owned(), message: "as planned".to_owned() })
}

#[async_trait]
impl Behaviour for FaultyStream {
    fn inner(&self) -> &MemoryStream {
        &self.inner
    }

    async fn put(&self, entries: &[PutEntry]) -> Result<Vec<PutResult>, StreamError> {
        self.takes_time().await;
        if self.happens(|rates| rates.throttled_call) {
            return Err(failed(StreamErrorKind::Throttled));
        }
        if self.happens(|rates| rates.timeout_before) {
            return Err(failed(StreamErrorKind::Timeout));
        }
        if self.happens(|rates| rates.unavailable) {
            return Err(failed(StreamErrorKind::Unavailable));
        }
        // Entry by entry, in any order, as the service does.
        let mut order: Vec<usize> = (0..entries.len()).collect();
        self.state().random.shuffle(&mut order);
        let mut results: Vec<Option<PutResult>> = entries.iter().map(|_| None).collect();
        for index in order {
            let entry = &entries[index];
            let is_upper = effective_hash_key(entry.partition_key.as_str(), entry.explicit_hash_key) >> 127 == 1;
            let is_throttled =
                self.happens(|rates| rates.throttled_entry) || is_upper && self.happens(|rates| rates.throttled_half);
            let result = if is_throttled {
                refused(PutErrorKind::Throttled, "ProvisionedThroughputExceededException")
            } else if self.happens(|rates| rates.failed_entry) {
                refused(PutErrorKind::Internal, "InternalFailure")
            } else {
                self.inner.put(&entries[index..=index]).await?.remove(0)
            };
            results[index] = Some(result);
        }
        if self.happens(|rates| rates.timeout_after) {
            return Err(failed(StreamErrorKind::Timeout));
        }
        self.takes_time().await;
        Ok(results.into_iter().flatten().collect())
    }

    async fn describe(&self) -> Result<StreamDescription, StreamError> {
        self.takes_time().await;
        self.inner.describe().await
    }

    async fn list_shards(&self, filter: ShardFilter) -> Result<Vec<Shard>, StreamError> {
        self.takes_time().await;
        if self.happens(|rates| rates.failed_listing) {
            return Err(failed(StreamErrorKind::Unavailable));
        }
        if self.happens(|rates| rates.stale_listing) && !self.state().old_shards.is_empty() {
            return Ok(self.state().old_shards.clone());
        }
        self.inner.list_shards(filter).await
    }
}
