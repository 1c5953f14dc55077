//! What a user implements, and what it is given.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shardwell_core::delivery::{self, ErrorClass};
use shardwell_core::{BoxError, Checkpoint, ExtendedSequenceNumber, PendingCheckpoint, ShardId, UserRecord, WorkerId};
use tokio_util::sync::CancellationToken;

use crate::Checkpointer;
use crate::causes::with_causes;

/// The code that handles the records of a shard: the one trait that a consumer service implements.
///
/// A processor is made by the worker's factory for each lane of each shard that the worker holds, is called by one caller
/// at a time, and is dropped when the lease goes. Its code may block its thread: that costs throughput and never a lease.
///
/// ```
/// use shardwell_consumer::{Batch, Outcome, ProcessError, ProcessResultExt, RecordProcessor, async_trait};
///
/// struct PrintLengths;
///
/// #[async_trait]
/// impl RecordProcessor for PrintLengths {
///     async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
///         for record in batch {
///             let text = std::str::from_utf8(&record.data).at(record)?; // what came before is done
///             println!("{} bytes", text.len());
///         }
///         Ok(Outcome::Done)
///     }
/// }
/// ```
///
/// # Failures
/// What a processor says of a failure decides what happens next; the [`DeliveryPolicy`](delivery::DeliveryPolicy) says how
/// often and how soon.
///
/// | it returns | done | what follows |
/// |---|---|---|
/// | `Ok(Outcome::Done)` | all | |
/// | an error, `?` | nothing | the batch is split in two, or tried again |
/// | an error [`at`](ProcessResultExt::at) a record | all before it | that record alone, then the rest |
/// | `Ok(Outcome::Failed(…))` | all others | each that failed, alone |
/// | a [transient](ErrorClass::Transient) error | as above | the same again, later; no retry is spent |
/// | a [permanent](ErrorClass::Permanent) error | as above | the record is dead at once |
///
/// A panic, and a call that takes longer than it may, are errors of the whole batch, and the processor is replaced. A
/// record that cannot be split off any further and has failed once more than the policy allows is dead: it goes to the
/// dead-letter sinks, and the shard goes on behind it. Without a sink nothing ever dies, and the batch is tried for ever.
///
/// # Order of calls
/// `initialize`, then `process` any number of times, then one of `shard_ended`, `shutdown_requested`, `lease_lost`; a
/// call that fails is made again. A processor that panics is dropped, and the factory makes another one, which is
/// initialized before it is called.
#[async_trait]
pub trait RecordProcessor: Send + 'static {
    /// Called before the first batch. May return a checkpoint to resume after, in place of the stored one: for a sink
    /// that keeps its position in the transaction of its data. With more than one lane a position says nothing (each lane
    /// is somewhere else), and what is returned is ignored.
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
    /// See [Failures](#failures).
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
    /// The lane of the shard, from 0: an ordered sub-stream of it, by partition key.
    pub lane: u32,
    /// Whether the processor is made for dead letters that are tried again, and not for the shard: its batches are single
    /// records, with their positions, that lie behind the shard's checkpoint.
    pub redrive: bool,
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
#[derive(Debug)]
#[non_exhaustive]
#[must_use]
pub enum Outcome {
    /// Every record of the batch is done.
    Done,
    /// Exactly these failed, in any order; all others are done. None at all is as good as [`Outcome::Done`]. One that names
    /// a record that is not in the batch makes the whole batch fail: who is wrong about that may be wrong about the rest.
    Failed(Vec<RecordFailure>),
}

/// A record that failed.
#[derive(Debug)]
pub struct RecordFailure {
    pub(crate) position: ExtendedSequenceNumber,
    pub(crate) error: ProcessError,
}

impl RecordFailure {
    /// A record that failed, and why.
    pub fn new(record: &UserRecord, error: impl Into<ProcessError>) -> Self {
        Self { position: record.position, error: error.into() }
    }
}

/// Why a processor could not do what it was asked to. Made from any error by `?`.
///
/// It is not an error type itself (it would then not be made from every other one); its cause is.
pub struct ProcessError {
    cause: BoxError,
    class: ErrorClass,
    from: Option<ExtendedSequenceNumber>,
}

impl ProcessError {
    /// An outage of something that the processor needs: nothing is wrong with the records, and no retry is spent.
    pub fn transient(cause: impl Into<BoxError>) -> Self {
        Self { cause: cause.into(), class: ErrorClass::Transient, from: None }
    }

    /// Trying again is useless: the record is dead at once.
    pub fn permanent(cause: impl Into<BoxError>) -> Self {
        Self { cause: cause.into(), class: ErrorClass::Permanent, from: None }
    }

    /// The records before this one are done, and it is the one that failed.
    #[must_use]
    pub fn from_record(self, record: &UserRecord) -> Self {
        Self { from: Some(record.position), ..self }
    }

    /// The error underneath.
    pub fn cause(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.cause
    }

    /// What kind of error it is.
    pub const fn class(&self) -> ErrorClass {
        self.class
    }

    /// The record that failed, if the error says so.
    pub const fn record(&self) -> Option<ExtendedSequenceNumber> {
        self.from
    }
}

impl<E: Into<BoxError>> From<E> for ProcessError {
    fn from(cause: E) -> Self {
        Self { cause: cause.into(), class: ErrorClass::Retryable, from: None }
    }
}

/// Says more about an error on its way out of [`RecordProcessor::process`].
///
/// ```
/// # use shardwell_consumer::{ProcessError, ProcessResultExt};
/// # use shardwell_core::UserRecord;
/// fn amount(record: &UserRecord) -> Result<u64, ProcessError> {
///     // No retry will make a number of it.
///     let text = std::str::from_utf8(&record.data).permanent().at(record)?;
///     text.parse().permanent().at(record)
/// }
/// ```
pub trait ProcessResultExt<T> {
    /// The records before this one are done, and it is the one that failed.
    ///
    /// # Errors
    /// The error itself.
    fn at(self, record: &UserRecord) -> Result<T, ProcessError>;

    /// The error is an outage: see [`ProcessError::transient`].
    ///
    /// # Errors
    /// The error itself.
    fn transient(self) -> Result<T, ProcessError>;

    /// The error is permanent: see [`ProcessError::permanent`].
    ///
    /// # Errors
    /// The error itself.
    fn permanent(self) -> Result<T, ProcessError>;
}

impl<T, E: Into<ProcessError>> ProcessResultExt<T> for Result<T, E> {
    fn at(self, record: &UserRecord) -> Result<T, ProcessError> {
        self.map_err(|error| error.into().from_record(record))
    }

    fn transient(self) -> Result<T, ProcessError> {
        self.map_err(|error| ProcessError { class: ErrorClass::Transient, ..error.into() })
    }

    fn permanent(self) -> Result<T, ProcessError> {
        self.map_err(|error| ProcessError { class: ErrorClass::Permanent, ..error.into() })
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
    pub(crate) const fn new(
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

    /// What the batch is called: the same for every attempt at it, another one for its parts when it is split. Unique
    /// within the term of a lease.
    pub const fn id(&self) -> u64 {
        self.records.id()
    }

    /// Which attempt at this batch this is, from 1. A batch that was split begins anew; one that failed before a restart
    /// goes on counting.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How far the newest read of the shard was behind its tip; zero at the tip.
    pub fn behind_latest(&self) -> Option<Duration> {
        self.behind_latest
    }

    /// Whether the work on this batch has become useless: the lease is lost, the deadline of a shutdown has passed, or the
    /// batch has taken longer than it may.
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
    pub const fn checkpointer(&self) -> &Checkpointer {
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
