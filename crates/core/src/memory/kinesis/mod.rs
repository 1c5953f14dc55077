//! One model of Kinesis: pure state, no I/O, the clock passed in.
//!
//! It is what [`MemoryStream`](super::MemoryStream) reads and writes in virtual time, and what the local engine serves.
//! One file per idea:
//!
//! | file | what it holds |
//! |---|---|
//! | `stream` | settings, states, retention |
//! | `shard` | records, ancestry, end |
//! | `routing` | from a partition key to the open shard |
//! | `numbering` | sequence numbers |
//! | `records` | put and get |
//! | `iterator` | shard iterators |
//! | `reshard` | split, merge, change of the number of shards |
//! | `list_shards` | the filters |
//!
//! Every operation takes `&mut self`: a record is numbered and appended in one critical section, so a reader that has
//! seen a number never misses a smaller one. States are worked out from the clock when somebody looks, so the model
//! needs neither tasks nor timers.

mod error;
mod iterator;
mod list_shards;
mod numbering;
mod records;
mod reshard;
mod routing;
mod shard;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{PutResult, Shard, ShardFilter, ShardId, StartPosition, Timestamp};

pub use error::{KinesisError, KinesisErrorKind};
pub use iterator::{ITERATOR_LIFETIME, IteratorPlace, ShardIterator};
pub use records::{MAX_GET_BYTES, MAX_GET_RECORDS, MAX_PUT_BYTES, MAX_PUT_ENTRIES, RecordBatch};
pub use routing::RoutedEntry;
pub use stream::{DEFAULT_MAX_RECORD_SIZE, MAX_SHARDS, RETENTION_HOURS, StreamMode, StreamSettings, StreamSummary};

use reshard::Reshard;
use stream::{Phase, StreamState};

/// The account that every stream of the model belongs to.
pub const ACCOUNT_ID: &str = "000000000000";

/// The streams of one account in one region.
///
/// `now` of every operation is the service's wall clock. Should it go back, the model stands still until it has caught
/// up: arrival times never fall.
#[derive(Debug)]
pub struct Kinesis {
    region: String,
    delays: StateDelays,
    clock: Timestamp,
    streams_created: u64,
    streams: BTreeMap<String, StreamState>,
}

/// How long a stream takes from one state to the next. Default: no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateDelays {
    /// From `CREATING` to `ACTIVE`.
    pub create: Duration,
    /// From `UPDATING` to `ACTIVE`; the shards change at the end.
    pub update: Duration,
    /// From `DELETING` to gone.
    pub delete: Duration,
}

impl StateDelays {
    /// The same delay for every change.
    pub const fn all(delay: Duration) -> Self {
        Self { create: delay, update: delay, delete: delay }
    }
}

impl Kinesis {
    /// No streams in a region, such as `us-east-1`.
    pub fn new(region: impl Into<String>) -> Self {
        let (delays, clock) = (StateDelays::default(), Timestamp::from_millis(0));
        Self { region: region.into(), delays, clock, streams_created: 0, streams: BTreeMap::new() }
    }

    /// Sets how long changes of state take from now on.
    #[must_use]
    pub fn with_delays(mut self, delays: StateDelays) -> Self {
        self.delays = delays;
        self
    }

    /// The region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The ARN of a stream with a name, whether it exists or not.
    pub fn arn(&self, name: &str) -> String {
        format!("arn:aws:kinesis:{}:{ACCOUNT_ID}:stream/{name}", self.region)
    }

    /// Creates a stream.
    ///
    /// # Errors
    /// [`KinesisErrorKind::ResourceInUse`] when the name is taken, [`KinesisErrorKind::Validation`] when the name or a
    /// setting is outside what the API allows.
    pub fn create_stream(&mut self, name: &str, settings: StreamSettings, now: Timestamp) -> Result<(), KinesisError> {
        let now = self.tick(now);
        check_stream_name(name)?;
        if !(1..=MAX_SHARDS).contains(&settings.shards) {
            let count = settings.shards;
            return Err(KinesisError::validation(format!("{count} shards: 1 to {MAX_SHARDS} may be")));
        }
        if self.stream(name, now).is_ok() {
            let message = format!("stream `{name}` exists already");
            return Err(KinesisError::new(KinesisErrorKind::ResourceInUse, message));
        }
        let (arn, ordinal) = (self.arn(name), self.streams_created);
        self.streams_created += 1;
        self.streams.insert(name.to_owned(), StreamState::new(name, arn, settings, ordinal, now, self.delays.create));
        Ok(())
    }

    /// Deletes a stream with all that is in it.
    ///
    /// # Errors
    /// [`KinesisErrorKind::ResourceNotFound`] when there is none; [`KinesisErrorKind::ResourceInUse`] when it is being
    /// deleted already.
    pub fn delete_stream(&mut self, name: &str, now: Timestamp) -> Result<(), KinesisError> {
        let now = self.tick(now);
        let until = now.plus(self.delays.delete);
        let stream = self.stream(name, now)?;
        if matches!(stream.phase, Phase::Deleting { .. }) {
            stream.check_active()?;
        }
        stream.phase = Phase::Deleting { until };
        if !stream.advance(now) {
            self.streams.remove(name);
        }
        Ok(())
    }

    /// What a stream is like.
    ///
    /// # Errors
    /// [`KinesisErrorKind::ResourceNotFound`] when there is none.
    pub fn describe(&mut self, name: &str, now: Timestamp) -> Result<StreamSummary, KinesisError> {
        let now = self.tick(now);
        self.stream(name, now).map(|stream| stream.summary())
    }

    /// Every stream, by name.
    pub fn list_streams(&mut self, now: Timestamp) -> Vec<StreamSummary> {
        let now = self.tick(now);
        self.streams.retain(|_, stream| stream.advance(now));
        self.streams.values().map(StreamState::summary).collect()
    }

    /// The shards that match a filter, by shard id; none of a stream that is being created.
    ///
    /// # Errors
    /// [`KinesisErrorKind::ResourceNotFound`] when there is no such stream.
    pub fn list_shards(
        &mut self,
        name: &str,
        filter: &ShardFilter,
        now: Timestamp,
    ) -> Result<Vec<Shard>, KinesisError> {
        let now = self.tick(now);
        self.stream(name, now).map(|stream| stream.list_shards(filter))
    }

    /// A place to read from. `LATEST` and a time are resolved here and now.
    ///
    /// # Errors
    /// [`KinesisErrorKind::ResourceNotFound`] when there is no such stream or shard,
    /// [`KinesisErrorKind::InvalidArgument`] for a sequence number that the shard never issued or a time in the future.
    pub fn shard_iterator(
        &mut self,
        name: &str,
        shard: &ShardId,
        position: StartPosition,
        now: Timestamp,
    ) -> Result<ShardIterator, KinesisError> {
        let now = self.tick(now);
        self.stream(name, now)?.iterator(shard, position, now)
    }

    /// The next records from a place on, at most `limit` (1 to 10,000) of them.
    ///
    /// # Errors
    /// [`KinesisErrorKind::ExpiredIterator`] after five minutes, [`KinesisErrorKind::ResourceNotFound`] when the stream
    /// was deleted (even if there is one of that name again) or the shard has expired.
    pub fn get_records(
        &mut self,
        iterator: &ShardIterator,
        limit: usize,
        now: Timestamp,
    ) -> Result<RecordBatch, KinesisError> {
        let now = self.tick(now);
        self.stream(&iterator.stream, now)?.get(iterator, limit, now)
    }

    /// Puts 1 to 500 records, with a result each.
    ///
    /// # Errors
    /// [`KinesisErrorKind::ResourceNotFound`] when there is no such stream, [`KinesisErrorKind::Validation`] or
    /// [`KinesisErrorKind::InvalidArgument`] when a limit is passed. Nothing was put then.
    pub fn put_records(
        &mut self,
        name: &str,
        entries: Vec<RoutedEntry>,
        now: Timestamp,
    ) -> Result<Vec<PutResult>, KinesisError> {
        let now = self.tick(now);
        self.stream(name, now)?.put(entries, now)
    }

    /// Splits an open shard in two, the second of which starts at `new_start`.
    ///
    /// # Errors
    /// [`KinesisErrorKind::ResourceInUse`] unless the stream is active, [`KinesisErrorKind::ResourceNotFound`] when
    /// there is no such stream or shard, [`KinesisErrorKind::InvalidArgument`] when the shard is closed or cannot be
    /// split there, [`KinesisErrorKind::Validation`] on an on-demand stream.
    pub fn split_shard(
        &mut self,
        name: &str,
        shard: &ShardId,
        new_start: u128,
        now: Timestamp,
    ) -> Result<(), KinesisError> {
        self.change(name, now, |stream| stream.plan_split(shard, new_start))
    }

    /// Merges two open shards whose ranges touch.
    ///
    /// # Errors
    /// As [`split_shard`](Self::split_shard); [`KinesisErrorKind::InvalidArgument`] when they are not adjacent.
    pub fn merge_shards(
        &mut self,
        name: &str,
        shard: &ShardId,
        adjacent: &ShardId,
        now: Timestamp,
    ) -> Result<(), KinesisError> {
        self.change(name, now, |stream| stream.plan_merge(shard, adjacent))
    }

    /// Splits and merges until the stream has `target` open shards of equal width.
    ///
    /// # Errors
    /// As [`split_shard`](Self::split_shard); [`KinesisErrorKind::InvalidArgument`] for more than twice or less than
    /// half of the present number, or for the present number.
    pub fn update_shard_count(&mut self, name: &str, target: u32, now: Timestamp) -> Result<(), KinesisError> {
        self.change(name, now, |stream| stream.plan_uniform(target))
    }

    fn change(
        &mut self,
        name: &str,
        now: Timestamp,
        plan: impl FnOnce(&StreamState) -> Result<Reshard, KinesisError>,
    ) -> Result<(), KinesisError> {
        let (now, delay) = (self.tick(now), self.delays.update);
        let stream = self.stream(name, now)?;
        stream.check_active()?;
        stream.check_provisioned()?;
        let change = plan(stream)?;
        stream.update(change, now, delay);
        Ok(())
    }

    /// Keeps records longer, in hours.
    ///
    /// # Errors
    /// [`KinesisErrorKind::ResourceInUse`] unless the stream is active, [`KinesisErrorKind::InvalidArgument`] when it is
    /// less than now or outside 24 to 8760 hours.
    pub fn increase_retention(&mut self, name: &str, hours: u32, now: Timestamp) -> Result<(), KinesisError> {
        self.change_retention(name, hours, now, |wanted, current| wanted >= current)
    }

    /// Keeps records for less time, in hours. What is older is gone at once.
    ///
    /// # Errors
    /// [`KinesisErrorKind::ResourceInUse`] unless the stream is active, [`KinesisErrorKind::InvalidArgument`] when it is
    /// more than now or outside 24 to 8760 hours.
    pub fn decrease_retention(&mut self, name: &str, hours: u32, now: Timestamp) -> Result<(), KinesisError> {
        self.change_retention(name, hours, now, |wanted, current| wanted <= current)
    }

    fn change_retention(
        &mut self,
        name: &str,
        hours: u32,
        now: Timestamp,
        allowed: impl FnOnce(Duration, Duration) -> bool,
    ) -> Result<(), KinesisError> {
        let now = self.tick(now);
        let stream = self.stream(name, now)?;
        stream.check_active()?;
        let (wanted, current) = (Duration::from_secs(u64::from(hours) * 3600), stream.retention);
        if !RETENTION_HOURS.contains(&hours) || !allowed(wanted, current) {
            let (low, high, current) = (RETENTION_HOURS.start(), RETENTION_HOURS.end(), current.as_secs() / 3600);
            return Err(KinesisError::invalid(format!(
                "a retention of {hours} h for stream `{name}`, which has {current} h: {low} to {high} h may be, increased \
                 by the one call and decreased by the other"
            )));
        }
        stream.set_retention(wanted, now);
        Ok(())
    }

    /// Sets any retention at once, in any state: for tests that cannot wait for a day.
    ///
    /// # Errors
    /// [`KinesisErrorKind::ResourceNotFound`] when there is no such stream.
    pub fn set_retention(&mut self, name: &str, retention: Duration, now: Timestamp) -> Result<(), KinesisError> {
        let now = self.tick(now);
        self.stream(name, now)?.set_retention(retention, now);
        Ok(())
    }

    /// The later of a clock's reading and all readings before it.
    fn tick(&mut self, now: Timestamp) -> Timestamp {
        self.clock = self.clock.max(now);
        self.clock
    }

    /// A stream as it is at a time.
    fn stream(&mut self, name: &str, now: Timestamp) -> Result<&mut StreamState, KinesisError> {
        if self.streams.get_mut(name).is_some_and(|stream| !stream.advance(now)) {
            self.streams.remove(name);
        }
        self.streams.get_mut(name).ok_or_else(|| KinesisError::no_such_stream(name))
    }
}

/// Refuses what cannot be the name of a stream (Kinesis API: `[a-zA-Z0-9_.-]{1,128}`).
///
/// # Errors
/// [`KinesisErrorKind::Validation`].
pub fn check_stream_name(name: &str) -> Result<(), KinesisError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if (1..=128).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    let shown: String = name.chars().take(128).collect();
    Err(KinesisError::validation(format!(
        "`{shown}` cannot be the name of a stream: 1 to 128 letters, digits, `_`, `.` and `-` may be"
    )))
}

/// A model that many may use, one at a time.
#[derive(Clone, Debug)]
pub struct SharedKinesis(Arc<Mutex<Kinesis>>);

impl SharedKinesis {
    /// Shares a model.
    pub fn new(kinesis: Kinesis) -> Self {
        Self(Arc::new(Mutex::new(kinesis)))
    }

    /// The model, for one operation. Never keep it across an await point.
    pub fn lock(&self) -> MutexGuard<'_, Kinesis> {
        // No operation leaves the model half changed, so a panic elsewhere under the lock does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
