//! Records, as Kinesis returns them and as they were put.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;

use crate::{ExtendedSequenceNumber, SequenceNumber, Timestamp};

/// The key that decides which shard a record goes to: 1 to 256 characters, shared without copying.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey(ByteString);

impl PartitionKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for PartitionKey {
    fn from(key: &str) -> Self {
        Self(key.into())
    }
}

impl From<String> for PartitionKey {
    fn from(key: String) -> Self {
        Self(key.into())
    }
}

/// Shares the text.
impl From<ByteString> for PartitionKey {
    fn from(key: ByteString) -> Self {
        Self(key)
    }
}

/// Shares the text.
impl From<PartitionKey> for ByteString {
    fn from(key: PartitionKey) -> Self {
        key.0
    }
}

/// Takes UTF-8 bytes without copying them.
impl TryFrom<Bytes> for PartitionKey {
    type Error = std::str::Utf8Error;

    fn try_from(key: Bytes) -> Result<Self, Self::Error> {
        ByteString::try_from(key).map(Self)
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Only the length: keys can be as private as payloads.
impl fmt::Debug for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

/// What a record costs in memory beside its payload and key; budgets count it.
const RECORD_OVERHEAD_BYTES: usize = 192;

/// A record as Kinesis returns it. Its payload may be an aggregate of user records.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The position of the record in its shard.
    pub sequence_number: SequenceNumber,
    /// The partition key. Optional since streams with `AUTO` record distribution take records without one.
    pub partition_key: Option<PartitionKey>,
    /// When the stream accepted the record (`ApproximateArrivalTimestamp`, millisecond resolution).
    pub arrival: Timestamp,
    /// The payload. Cloning and slicing share it.
    pub data: Bytes,
}

impl Record {
    /// What holding the record costs in bytes: payload, key, and a fixed overhead.
    pub fn weight(&self) -> usize {
        RECORD_OVERHEAD_BYTES + self.data.len() + self.partition_key.as_ref().map_or(0, |key| key.0.len())
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("sequence_number", &self.sequence_number)
            .field("partition_key", &self.partition_key)
            .field("arrival", &self.arrival)
            .field("data_bytes", &self.data.len())
            .finish()
    }
}

/// A record as its producer put it: what a processor sees.
#[derive(Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// The position: the sequence number of the record it came in, and its place in there.
    pub position: ExtendedSequenceNumber,
    /// The partition key it was put with.
    pub partition_key: Option<PartitionKey>,
    /// The explicit hash key it was put with, where the stream tells (only aggregated records do).
    pub explicit_hash_key: Option<u128>,
    /// When the stream accepted the record it came in.
    pub arrival: Timestamp,
    /// The payload. Cloning and slicing share it; a slice keeps the whole record it came in alive.
    pub data: Bytes,
}

impl UserRecord {
    /// What holding the record costs in bytes: payload, key, and a fixed overhead.
    pub fn weight(&self) -> usize {
        RECORD_OVERHEAD_BYTES + self.data.len() + self.partition_key.as_ref().map_or(0, |key| key.0.len())
    }
}

/// A record that is not aggregated is one user record.
impl From<Record> for UserRecord {
    fn from(record: Record) -> Self {
        Self {
            position: record.sequence_number.into(),
            partition_key: record.partition_key,
            explicit_hash_key: None,
            arrival: record.arrival,
            data: record.data,
        }
    }
}

impl fmt::Debug for UserRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRecord")
            .field("position", &self.position)
            .field("partition_key", &self.partition_key)
            .field("explicit_hash_key", &self.explicit_hash_key)
            .field("arrival", &self.arrival)
            .field("data_bytes", &self.data.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_lengths_and_never_payloads_or_keys() {
        let record = Record {
            sequence_number: 7u64.into(),
            partition_key: Some("card-4111".into()),
            arrival: Timestamp::from_millis(1),
            data: Bytes::from_static(b"secret"),
        };
        let user_record = UserRecord::from(record.clone());
        for text in [format!("{record:?}"), format!("{user_record:?}")] {
            assert!(text.contains("data_bytes: 6"), "{text}");
            assert!(!text.contains("secret") && !text.contains("4111"), "{text}");
        }
    }
}
