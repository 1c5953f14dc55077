//! The seam to a stream: describe it, list its shards, read one, write records.

mod error;
mod identifier;
mod reader;
mod writer;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::{SequenceNumber, Shard, ShardId, Timestamp};

pub use error::{StreamError, StreamErrorKind};
pub use identifier::StreamIdentifier;
pub use reader::{Read, ReadLimits, ShardReader};
pub use writer::{Placed, PutEntry, PutError, PutErrorKind, PutResult, StreamWriter};

/// A stream as a consumer sees it.
///
/// # Contract
/// - [`list_shards`](Self::list_shards) returns every shard that matches, whatever the service's paging.
/// - A reader returns each record of its shard from its position on exactly once and in order; it recovers from expired
///   iterators and broken subscriptions by itself.
/// - Implementations do not retry what their caller can retry better: an error comes back at once, classified by
///   [`StreamErrorKind`], and a reader that returned an error can be read again.
/// - Every call has an end: implementations bound each request by a time-out of their own.
///
/// # Display
/// The name of the stream, for logs.
///
/// # Conformance
/// `testing::stream` holds the suite that every implementation runs (feature `testing`).
#[async_trait]
pub trait Stream: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Who the stream is and what it promises.
    ///
    /// # Errors
    /// [`StreamErrorKind::NotFound`] when there is no such stream.
    ///
    /// # Cancel safety
    /// Reads only; may be dropped at any time.
    async fn describe(&self) -> Result<StreamDescription, StreamError>;

    /// The shards that match, ordered by shard id.
    ///
    /// # Errors
    /// [`StreamErrorKind::NotFound`] when there is no such stream.
    ///
    /// # Cancel safety
    /// Reads only; may be dropped at any time.
    async fn list_shards(&self, filter: ShardFilter) -> Result<Vec<Shard>, StreamError>;

    /// A reader of one shard from a position on. `LATEST` and a time are resolved before this returns.
    ///
    /// # Errors
    /// [`StreamErrorKind::NotFound`] when the stream no longer has the shard, [`StreamErrorKind::Invalid`] when the
    /// position cannot belong to it.
    ///
    /// # Cancel safety
    /// Reads only; may be dropped at any time.
    async fn open(&self, shard: &ShardId, position: StartPosition) -> Result<Box<dyn ShardReader>, StreamError>;

    /// How often and how much a shard of this stream may be read; what is `None` is not limited. The caller paces
    /// itself by it.
    fn read_limits(&self) -> ReadLimits;

    /// A handle on the same stream that shares no connection, task or runtime with this one, so that its calls go on
    /// when whoever uses this one is stuck. Made without I/O.
    fn dedicated(&self) -> std::sync::Arc<dyn Stream>;
}

/// Where reading a shard starts (Kinesis API, `ShardIteratorType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPosition {
    /// At the oldest record that the stream still holds.
    TrimHorizon,
    /// After the newest record at the time of opening.
    Latest,
    /// At the first record that arrived at or after a time.
    AtTimestamp(Timestamp),
    /// At a record, or the oldest one after it if the stream no longer holds it.
    AtSequenceNumber(SequenceNumber),
    /// After a record.
    AfterSequenceNumber(SequenceNumber),
}

/// Which shards to list (Kinesis API, `ShardFilterType`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardFilter {
    /// All that the stream still knows.
    All,
    /// All whose id is above this one.
    AfterShardId(ShardId),
    /// Those open now.
    AtLatest,
    /// Those that were open at the trim horizon.
    AtTrimHorizon,
    /// Those that were open at the trim horizon or later.
    FromTrimHorizon,
    /// Those that were open at a time.
    AtTimestamp(Timestamp),
    /// Those that were open at a time or later.
    FromTimestamp(Timestamp),
}

/// Who a stream is and what it promises (Kinesis API, `DescribeStreamSummary`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamDescription {
    /// Name, ARN and time of creation.
    pub identity: StreamIdentity,
    /// Where it is in its life.
    pub status: StreamStatus,
    /// How long it keeps records.
    pub retention: Duration,
    /// Whether the service spreads records over shards by itself (`RecordDistributionStrategy` = `AUTO`), so that
    /// partition keys and hash key ranges say nothing.
    pub automatic_distribution: bool,
}

impl StreamDescription {
    /// An active stream that keeps records for 24 hours and routes by hash key.
    pub fn new(identity: StreamIdentity) -> Self {
        let retention = Duration::from_secs(24 * 60 * 60);
        Self { identity, status: StreamStatus::Active, retention, automatic_distribution: false }
    }
}

/// What tells a stream from another one that had the same name before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamIdentity {
    /// The name.
    pub name: String,
    /// The ARN. The same for a stream that was deleted and created again.
    pub arn: String,
    /// When it was created.
    pub created_at: Timestamp,
}

/// Where a stream is in its life (Kinesis API, `StreamStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStatus {
    /// Being created; not readable yet.
    Creating,
    /// Ready.
    Active,
    /// Being resharded or changed; readable and writable.
    Updating,
    /// Being deleted.
    Deleting,
}
