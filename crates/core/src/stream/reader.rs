//! Reading one shard.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::StreamError;
use crate::{ChildShard, Record};

/// A place in one shard, and the way forward from it. Made by [`Stream::open`](super::Stream::open).
#[async_trait]
pub trait ShardReader: fmt::Debug + Send {
    /// The next records, at most `limit` of them (at least 1). An empty answer is normal: at the tip of the shard, and
    /// now and then before it.
    ///
    /// A polling implementation answers at once; a subscription waits for its next event.
    ///
    /// # Errors
    /// As [`StreamErrorKind`](super::StreamErrorKind) says. The reader stays where it was, and may be read again.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the reader moves only when the answer is returned.
    async fn read(&mut self, limit: usize) -> Result<Read, StreamError>;
}

/// What one read returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The records, in order.
    pub records: Vec<Record>,
    /// How far the answer is behind the tip of the shard; zero at the tip. `None` where the source does not say.
    pub behind_latest: Option<Duration>,
    /// The children of the shard if this was its end: no record will follow. Empty when the shard ended without any,
    /// as when its stream is deleted.
    pub end: Option<Vec<ChildShard>>,
}

/// How often and how much one shard may be read.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReadLimits {
    /// Reads per second for each shard, over all applications.
    pub reads_per_second: Option<f64>,
    /// Bytes per second for each shard, over all applications.
    pub bytes_per_second: Option<f64>,
    /// Records in one read at most.
    pub records_per_read: usize,
}

impl ReadLimits {
    /// Kinesis by polling: 5 reads and 2 MiB a second for each shard, shared by all applications that poll it, and
    /// 10,000 records in one answer (Kinesis quotas).
    pub const POLLING: Self =
        Self { reads_per_second: Some(5.0), bytes_per_second: Some(2.0 * 1024.0 * 1024.0), records_per_read: 10_000 };

    /// No limit but 10,000 records in one answer.
    pub const NONE: Self = Self { reads_per_second: None, bytes_per_second: None, records_per_read: 10_000 };

    /// These limits without a pace: only the size of an answer is limited.
    #[must_use]
    pub const fn without_pace(self) -> Self {
        Self { reads_per_second: None, bytes_per_second: None, records_per_read: self.records_per_read }
    }
}
