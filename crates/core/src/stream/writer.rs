//! Writing records.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::StreamError;
use crate::{PartitionKey, SequenceNumber, ShardId};

/// A stream as a producer sees it.
///
/// # Contract
/// - One call is one request to the service. Its limits (500 entries, 10 MiB in all) are the caller's to keep.
/// - The results are in the order of the entries, one each. An `Err` for the whole call says nothing was accepted, or,
///   where [`StreamError::may_have_applied`] says so, that this is not known.
/// - Nothing is retried. Kinesis does not keep order between the entries of one call.
///
/// # Conformance
/// `testing::stream` holds the suite that every implementation runs (feature `testing`).
#[async_trait]
pub trait StreamWriter: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Puts a set of records.
    ///
    /// # Errors
    /// When the call as a whole failed; what befell single entries is in the results.
    ///
    /// # Cancel safety
    /// Not cancel safe: when the future is dropped, it is not known which records were written.
    async fn put(&self, entries: &[PutEntry]) -> Result<Vec<PutResult>, StreamError>;
}

/// A record to put.
#[derive(Clone, PartialEq, Eq)]
pub struct PutEntry {
    /// The payload.
    pub data: Bytes,
    /// The partition key, 1 to 256 characters.
    pub partition_key: PartitionKey,
    /// Where to put it in place of the hash of its partition key.
    pub explicit_hash_key: Option<u128>,
}

impl PutEntry {
    /// A record that is routed by its partition key.
    pub fn new(partition_key: impl Into<PartitionKey>, data: impl Into<Bytes>) -> Self {
        Self { data: data.into(), partition_key: partition_key.into(), explicit_hash_key: None }
    }
}

impl fmt::Debug for PutEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutEntry")
            .field("partition_key", &self.partition_key)
            .field("explicit_hash_key", &self.explicit_hash_key)
            .field("data_bytes", &self.data.len())
            .finish()
    }
}

/// What befell one entry.
pub type PutResult = Result<Placed, PutError>;

/// Where a record landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The shard.
    pub shard: ShardId,
    /// The position in it.
    pub sequence_number: SequenceNumber,
}

/// Why one entry was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct PutError {
    /// What to do about it.
    pub kind: PutErrorKind,
    /// The service's error code, such as `ProvisionedThroughputExceededException`.
    pub code: String,
    /// The service's words.
    pub message: String,
}

/// What to do about a [`PutError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PutErrorKind {
    /// The shard is over its limit: slow down and put it again.
    Throttled,
    /// A fault inside the service: put it again.
    Internal,
}
