//! A stream in memory: the model of Kinesis behind the seams, on an injected clock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::kinesis::{
    Kinesis, KinesisError, KinesisErrorKind, MAX_GET_RECORDS, RoutedEntry, ShardIterator, SharedKinesis,
    StreamSettings, StreamSummary,
};
use crate::{
    ChildShard, Env, PartitionKey, Placed, PutEntry, PutErrorKind, PutResult, Read, ReadLimits, Shard, ShardFilter,
    ShardId, ShardReader, StartPosition, Stream, StreamDescription, StreamError, StreamErrorKind, StreamIdentity,
    StreamWriter, Timestamp,
};

/// A handle on one stream of a [`Kinesis`] model. Clones share the model.
///
/// The clock is the `Env`'s wall clock, so in simulated time the stream lives in simulated time too: states, arrival
/// times, retention and the age of iterators. All handles on one model should be given clocks that agree.
///
/// Beside the seams it has plain methods for what tests and simulations do to a stream. They fail with the model's
/// [`KinesisError`], which names the service's exception.
#[derive(Clone)]
pub struct MemoryStream {
    kinesis: SharedKinesis,
    env: Arc<dyn Env>,
    name: Arc<str>,
    limits: ReadLimits,
}

impl MemoryStream {
    /// A handle on a stream of a shared model. The stream need not exist yet.
    pub fn new(kinesis: SharedKinesis, env: Arc<dyn Env>, name: &str) -> Self {
        Self { kinesis, env, name: name.into(), limits: ReadLimits::NONE }
    }

    /// A stream in a model of its own, in the region `local`, active at once.
    ///
    /// # Errors
    /// When the name or the number of shards is not allowed.
    pub fn create(env: Arc<dyn Env>, name: &str, shards: u32) -> Result<Self, KinesisError> {
        let stream = Self::new(SharedKinesis::new(Kinesis::new("local")), env, name);
        stream.create_with(StreamSettings::new(shards))?;
        Ok(stream)
    }

    /// Sets what [`Stream::read_limits`] tells. Default: [`ReadLimits::NONE`]. The model does not enforce them.
    #[must_use]
    pub fn with_read_limits(mut self, limits: ReadLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The model that the stream lives in.
    pub fn kinesis(&self) -> &SharedKinesis {
        &self.kinesis
    }

    /// The name of the stream.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates the stream, which must not exist.
    ///
    /// # Errors
    /// As [`Kinesis::create_stream`].
    pub fn create_with(&self, settings: StreamSettings) -> Result<(), KinesisError> {
        self.call(|kinesis, name, now| kinesis.create_stream(name, settings, now))
    }

    /// Deletes the stream.
    ///
    /// # Errors
    /// As [`Kinesis::delete_stream`].
    pub fn delete(&self) -> Result<(), KinesisError> {
        self.call(Kinesis::delete_stream)
    }

    /// What the stream is like.
    ///
    /// # Errors
    /// As [`Kinesis::describe`].
    pub fn summary(&self) -> Result<StreamSummary, KinesisError> {
        self.call(Kinesis::describe)
    }

    /// The shards that match a filter, by shard id.
    ///
    /// # Errors
    /// As [`Kinesis::list_shards`].
    pub fn shards(&self, filter: &ShardFilter) -> Result<Vec<Shard>, KinesisError> {
        self.call(|kinesis, name, now| kinesis.list_shards(name, filter, now))
    }

    /// Puts one record.
    ///
    /// # Errors
    /// As [`Kinesis::put_records`], or as [`PutErrorKind`] says when the record was not taken.
    pub fn append(&self, key: impl Into<PartitionKey>, data: impl Into<Bytes>) -> Result<Placed, StreamError> {
        let results = self.put_all(vec![PutEntry::new(key, data)])?;
        let missing = || StreamError::new(StreamErrorKind::Unavailable, "no result for the record");
        results.into_iter().next().ok_or_else(missing)?.map_err(|error| {
            let kind = match error.kind {
                PutErrorKind::Throttled => StreamErrorKind::Throttled,
                PutErrorKind::Internal => StreamErrorKind::Unavailable,
            };
            StreamError::new(kind, error.to_string()).with_source(error)
        })
    }

    /// Splits an open shard at a hash key.
    ///
    /// # Errors
    /// As [`Kinesis::split_shard`].
    pub fn split(&self, shard: &ShardId, new_start: u128) -> Result<(), KinesisError> {
        self.call(|kinesis, name, now| kinesis.split_shard(name, shard, new_start, now))
    }

    /// Merges two adjacent open shards.
    ///
    /// # Errors
    /// As [`Kinesis::merge_shards`].
    pub fn merge(&self, shard: &ShardId, adjacent: &ShardId) -> Result<(), KinesisError> {
        self.call(|kinesis, name, now| kinesis.merge_shards(name, shard, adjacent, now))
    }

    /// Changes the number of open shards.
    ///
    /// # Errors
    /// As [`Kinesis::update_shard_count`].
    pub fn update_shard_count(&self, target: u32) -> Result<(), KinesisError> {
        self.call(|kinesis, name, now| kinesis.update_shard_count(name, target, now))
    }

    /// Sets any retention, at once.
    ///
    /// # Errors
    /// As [`Kinesis::set_retention`].
    pub fn set_retention(&self, retention: Duration) -> Result<(), KinesisError> {
        self.call(|kinesis, name, now| kinesis.set_retention(name, retention, now))
    }

    fn put_all(&self, entries: Vec<PutEntry>) -> Result<Vec<PutResult>, KinesisError> {
        // Hashed before the lock is taken.
        let entries = entries.into_iter().map(RoutedEntry::from).collect();
        self.call(|kinesis, name, now| kinesis.put_records(name, entries, now))
    }

    fn call<T>(
        &self,
        operation: impl FnOnce(&mut Kinesis, &str, Timestamp) -> Result<T, KinesisError>,
    ) -> Result<T, KinesisError> {
        operation(&mut self.kinesis.lock(), &self.name, self.env.timestamp())
    }
}

#[async_trait]
impl Stream for MemoryStream {
    async fn describe(&self) -> Result<StreamDescription, StreamError> {
        let summary = self.summary()?;
        let identity = StreamIdentity { name: summary.name, arn: summary.arn, created_at: summary.created_at };
        Ok(StreamDescription {
            identity,
            status: summary.status,
            retention: summary.retention,
            automatic_distribution: summary.automatic_distribution,
        })
    }

    async fn list_shards(&self, filter: ShardFilter) -> Result<Vec<Shard>, StreamError> {
        Ok(self.shards(&filter)?)
    }

    async fn open(&self, shard: &ShardId, position: StartPosition) -> Result<Box<dyn ShardReader>, StreamError> {
        let iterator = self.call(|kinesis, name, now| kinesis.shard_iterator(name, shard, position, now))?;
        Ok(Box::new(MemoryShardReader { stream: self.clone(), at: At::Iterator(iterator) }))
    }

    fn read_limits(&self) -> ReadLimits {
        self.limits
    }

    fn dedicated(&self) -> Arc<dyn Stream> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl StreamWriter for MemoryStream {
    async fn put(&self, entries: &[PutEntry]) -> Result<Vec<PutResult>, StreamError> {
        Ok(self.put_all(entries.to_vec())?)
    }
}

/// The name of the stream.
impl fmt::Display for MemoryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

impl fmt::Debug for MemoryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStream").field("name", &self.name).field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct MemoryShardReader {
    stream: MemoryStream,
    at: At,
}

#[derive(Debug)]
enum At {
    Iterator(ShardIterator),
    End(Vec<ChildShard>),
}

#[async_trait]
impl ShardReader for MemoryShardReader {
    async fn read(&mut self, limit: usize) -> Result<Read, StreamError> {
        let iterator = match &self.at {
            At::Iterator(iterator) => iterator,
            At::End(children) => {
                let end = Some(children.clone());
                return Ok(Read { records: Vec::new(), behind_latest: Some(Duration::ZERO), end });
            }
        };
        let limit = limit.clamp(1, MAX_GET_RECORDS);
        let batch = self.stream.call(|kinesis, name, now| match kinesis.get_records(iterator, limit, now) {
            Err(error) if error.kind == KinesisErrorKind::ExpiredIterator => {
                let fresh = kinesis.shard_iterator(name, &iterator.shard_id(), iterator.place.into(), now)?;
                kinesis.get_records(&fresh, limit, now)
            }
            answer => answer,
        })?;
        let end = batch.next.is_none().then(|| batch.children.clone());
        self.at = batch.next.map_or(At::End(batch.children), At::Iterator);
        Ok(Read { records: batch.records, behind_latest: Some(batch.behind_latest), end })
    }
}

/// Classified as the service's exceptions are; a stream that is not ready yet may be ready later.
impl From<KinesisError> for StreamError {
    fn from(error: KinesisError) -> Self {
        let kind = match error.kind {
            KinesisErrorKind::ResourceNotFound => StreamErrorKind::NotFound,
            KinesisErrorKind::ResourceInUse => StreamErrorKind::Unavailable,
            KinesisErrorKind::LimitExceeded => StreamErrorKind::Throttled,
            KinesisErrorKind::InvalidArgument
            | KinesisErrorKind::Validation
            | KinesisErrorKind::ExpiredIterator
            | KinesisErrorKind::ExpiredNextToken => StreamErrorKind::Invalid,
        };
        Self::new(kind, error.to_string()).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEnv;
    use crate::testing::stream::{Fixture, StreamHooks, conforms};

    /// The model behind the suite's hooks.
    #[derive(Debug)]
    struct Hooks {
        kinesis: SharedKinesis,
        env: Arc<dyn Env>,
    }

    impl Hooks {
        fn stream(&self, name: &str) -> MemoryStream {
            MemoryStream::new(self.kinesis.clone(), Arc::clone(&self.env), name)
        }
    }

    #[async_trait]
    impl StreamHooks for Hooks {
        async fn create(&self, name: &str, shards: u32) -> Fixture {
            let stream = self.stream(name);
            stream.create_with(StreamSettings::new(shards)).expect("created");
            Fixture { stream: stream.dedicated(), writer: Arc::new(stream) }
        }

        async fn split(&self, name: &str, shard: &ShardId, new_start: u128) {
            self.stream(name).split(shard, new_start).expect("split");
        }

        async fn merge(&self, name: &str, shard: &ShardId, adjacent: &ShardId) {
            self.stream(name).merge(shard, adjacent).expect("merged");
        }

        async fn delete(&self, name: &str) {
            self.stream(name).delete().expect("deleted");
        }

        fn env(&self) -> Arc<dyn Env> {
            Arc::clone(&self.env)
        }
    }

    fn env() -> Arc<dyn Env> {
        Arc::new(SystemEnv::new().expect("threads"))
    }

    #[tokio::test]
    async fn conforms_to_the_seams() {
        let hooks = Hooks { kinesis: SharedKinesis::new(Kinesis::new("local")), env: env() };
        conforms(&hooks).await;
    }

    #[tokio::test]
    async fn the_value_and_a_shared_trait_object_are_the_same_stream() {
        let stream = MemoryStream::create(env(), "flights", 2).expect("created");
        let shared: Arc<dyn Stream> = Arc::new(stream.clone());
        stream.append("N14228", "one").expect("put");
        assert_eq!(Stream::describe(&stream).await.expect("value"), shared.describe().await.expect("object"));
        let shards = shared.list_shards(ShardFilter::All).await.expect("listed");
        let mut seen = 0;
        for shard in shards {
            let mut reader = shared.open(&shard.id, StartPosition::TrimHorizon).await.expect("opened");
            seen += reader.read(10).await.expect("read").records.len();
        }
        assert_eq!(seen, 1);
        assert_eq!(stream.read_limits(), ReadLimits::NONE);
        assert_eq!(stream.with_read_limits(ReadLimits::POLLING).dedicated().read_limits(), ReadLimits::POLLING);
    }

    /// An environment whose wall clock stands where it is put.
    #[derive(Debug)]
    struct FixedClock {
        system: SystemEnv,
        millis: std::sync::atomic::AtomicI64,
    }

    impl Env for FixedClock {
        fn now(&self) -> crate::Monotonic {
            self.system.now()
        }

        fn timestamp(&self) -> Timestamp {
            Timestamp::from_millis(self.millis.load(std::sync::atomic::Ordering::SeqCst))
        }

        fn sleep_until(&self, deadline: crate::Monotonic) -> futures_util::future::BoxFuture<'static, ()> {
            self.system.sleep_until(deadline)
        }

        fn spawn_detached(&self, place: crate::Place, task: futures_util::future::BoxFuture<'static, ()>) {
            self.system.spawn_detached(place, task);
        }

        fn random(&self) -> u64 {
            self.system.random()
        }

        fn cpu_time(&self) -> Option<crate::CpuTime> {
            None
        }
    }

    #[tokio::test]
    async fn a_reader_outlives_its_iterator_and_its_records() {
        let clock = Arc::new(FixedClock { system: SystemEnv::new().expect("threads"), millis: 1_000.into() });
        let advance = |millis| clock.millis.fetch_add(millis, std::sync::atomic::Ordering::SeqCst);
        let stream = MemoryStream::create(Arc::<FixedClock>::clone(&clock), "flights", 1).expect("created");
        let shard = stream.shards(&ShardFilter::All).expect("listed")[0].id.clone();
        let mut positions = vec![StartPosition::TrimHorizon, StartPosition::Latest];
        positions.push(StartPosition::AtTimestamp(Timestamp::from_millis(1_000)));
        let mut readers = Vec::new();
        for position in positions {
            readers.push(stream.open(&shard, position).await.expect("opened"));
        }
        advance(301_000);
        let kept = stream.append("a", "kept").expect("put");
        for reader in &mut readers {
            let read = reader.read(10).await.expect("read again after five minutes");
            assert_eq!(read.records.iter().map(|r| r.sequence_number).collect::<Vec<_>>(), [kept.sequence_number]);
        }
        advance(25 * 3_600_000);
        let later = stream.append("a", "later").expect("put");
        for reader in &mut readers {
            let read = reader.read(10).await.expect("read again after a day");
            assert_eq!(read.records.iter().map(|r| r.sequence_number).collect::<Vec<_>>(), [later.sequence_number]);
        }
    }

    #[tokio::test]
    async fn a_stream_that_was_deleted_and_created_again_is_not_read_on() {
        let stream = MemoryStream::create(env(), "flights", 1).expect("created");
        let shard = stream.shards(&ShardFilter::All).expect("listed")[0].id.clone();
        let mut reader = stream.open(&shard, StartPosition::TrimHorizon).await.expect("opened");
        let placed = stream.append("a", "old").expect("put");
        stream.delete().expect("deleted");
        assert_eq!(reader.read(10).await.expect_err("gone").kind(), StreamErrorKind::NotFound);
        stream.create_with(StreamSettings::new(1)).expect("created again");
        stream.append("a", "new").expect("put");
        let after = StartPosition::AfterSequenceNumber(placed.sequence_number);
        assert_eq!(stream.open(&shard, after).await.expect_err("foreign").kind(), StreamErrorKind::Invalid);
    }
}
