//! What a user implements, and what it is given.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shardwell_core::{BoxError, Checkpoint, PendingCheckpoint, ShardId, UserRecord, WorkerId, delivery};
use tokio_util::sync::CancellationToken;

use crate::Checkpointer;
use crate::worker::with_causes;

/// The code that handles the records of a shard: the one trait that a consumer service implements.
///
/// A processor is made by the worker's factory for each lane of each shard that the worker holds (so far lane 0 alone),
/// is called by one caller at a time, and is dropped when the lease goes. Its code may block its thread: that costs
/// throughput and never a lease.
///
/// ```
/// use shardwell_consumer::{Batch, Outcome, ProcessError, RecordProcessor, async_trait};
///
/// struct PrintLengths;
///
/// #[async_trait]
/// impl RecordProcessor for PrintLengths {
///     async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
///         for record in batch {
///             let text = std::str::from_utf8(&record.data)?; // any error retries the batch
///             println!("{} bytes", text.len());
///         }
///         Ok(Outcome::Done)
///     }
/// }
/// ```
///
/// # Order of calls
/// `initialize`, then `process` any number of times, then one of `shard_ended`, `shutdown_requested`, `lease_lost`; a
/// call that fails is made again. A processor that panics is dropped, and the factory makes another one, which is
/// initialized before it is called.
#[async_trait]
pub trait RecordProcessor: Send + 'static {
    /// Called before the first batch. May return a checkpoint to resume after, in place of the stored one: for a sink
    /// that keeps its position in the transaction of its data.
    ///
    /// # Errors
    /// Any error: the call is made again after a backoff, for ever. Nothing is read meanwhile.
    async fn initialize(&mut self, start: &Start) -> Result<Option<Checkpoint>, ProcessError> {
        let _ = start;
        Ok(None)
    }

    /// Handles a batch. The batch is done, and may be checkpointed, once this returned [`Outcome::Done`].
    ///
    /// # Errors
    /// Any error, by a plain `?`: the whole batch is delivered again after a backoff, until it is done. No record is
    /// ever skipped.
    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError>;

    /// Another worker has the lease, or may have it. What was done since the last checkpoint will be delivered there
    /// again. Nothing can be checkpointed any more; stop quietly.
    async fn lease_lost(&mut self) {}

    /// Every record of the shard is done, and no more will come. The framework marks the end of the shard once this
    /// returned, which lets its children start.
    ///
    /// # Errors
    /// Any error: the call is made again after a backoff.
    async fn shard_ended(&mut self, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        let _ = checkpointer;
        Ok(())
    }

    /// The worker stops, or hands the lease over: the last chance to flush, and with manual checkpoints to checkpoint.
    ///
    /// # Errors
    /// Logged; the lease goes all the same.
    async fn shutdown_requested(&mut self, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        let _ = checkpointer;
        Ok(())
    }
}

#[async_trait]
impl<P: RecordProcessor + ?Sized> RecordProcessor for Box<P> {
    async fn initialize(&mut self, start: &Start) -> Result<Option<Checkpoint>, ProcessError> {
        (**self).initialize(start).await
    }

    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        (**self).process(batch).await
    }

    async fn lease_lost(&mut self) {
        (**self).lease_lost().await;
    }

    async fn shard_ended(&mut self, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        (**self).shard_ended(checkpointer).await
    }

    async fn shutdown_requested(&mut self, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        (**self).shutdown_requested(checkpointer).await
    }
}

/// Makes the processor of a lane.
pub(crate) type ProcessorFactory = Arc<dyn Fn(&LaneContext) -> Box<dyn RecordProcessor> + Send + Sync>;

/// Which records a processor is for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneContext {
    /// The application.
    pub application: String,
    /// The name of the stream.
    pub stream: String,
    /// The shard.
    pub shard: ShardId,
    /// The lane of the shard: an ordered sub-stream of it, by partition key. Always 0 so far.
    pub lane: u32,
    /// The worker.
    pub worker: WorkerId,
}

/// Where a processor starts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Start {
    /// The lane.
    pub lane: LaneContext,
    /// How far the shard is done.
    pub checkpoint: Checkpoint,
    /// A checkpoint that a former owner announced and did not commit.
    pub pending: Option<PendingCheckpoint>,
}

/// What a processor says of a batch that it handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum Outcome {
    /// Every record of the batch is done.
    Done,
}

/// Why a processor could not do what it was asked to. Made from any error by `?`.
///
/// It is not an error type itself (it would then not be made from every other one); its cause is.
pub struct ProcessError {
    cause: BoxError,
}

impl ProcessError {
    /// The error underneath.
    pub fn cause(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.cause
    }
}

impl<E: Into<BoxError>> From<E> for ProcessError {
    fn from(cause: E) -> Self {
        Self { cause: cause.into() }
    }
}

/// The error and its causes, joined by colons.
impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_causes(&*self.cause))
    }
}

impl fmt::Debug for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.cause, f)
    }
}

/// User records of one lane, in order, at least one.
#[derive(Clone, Debug)]
pub struct Batch {
    records: delivery::Batch,
    lane: LaneContext,
    attempt: u32,
    behind_latest: Option<Duration>,
    cancelled: CancellationToken,
    checkpointer: Checkpointer,
}

impl Batch {
    pub(crate) fn new(
        records: delivery::Batch,
        lane: LaneContext,
        attempt: u32,
        behind_latest: Option<Duration>,
        cancelled: CancellationToken,
        checkpointer: Checkpointer,
    ) -> Self {
        Self { records, lane, attempt, behind_latest, cancelled, checkpointer }
    }

    /// The records.
    pub fn records(&self) -> &[UserRecord] {
        self.records.records()
    }

    /// Where the records come from.
    pub fn lane(&self) -> &LaneContext {
        &self.lane
    }

    /// Which attempt at this batch this is, from 1. After a restart it starts at 1 again.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How far the newest read of the shard was behind its tip; zero at the tip.
    pub fn behind_latest(&self) -> Option<Duration> {
        self.behind_latest
    }

    /// Whether the work on this batch has become useless: the lease is lost, or the deadline of a shutdown has passed.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Waits until the work on this batch has become useless; for use in `select!`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// The way to checkpoint by hand, where the worker was built with manual checkpoints.
    pub fn checkpointer(&self) -> &Checkpointer {
        &self.checkpointer
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a UserRecord;
    type IntoIter = std::slice::Iter<'a, UserRecord>;

    fn into_iter(self) -> Self::IntoIter {
        self.records().iter()
    }
}
