//! Putting and getting records.

use std::time::Duration;

use super::error::KinesisError;
use super::iterator::{IteratorPlace, ShardIterator};
use super::routing::RoutedEntry;
use super::shard::{ShardState, shard_id};
use super::stream::StreamState;
use crate::{ChildShard, Placed, PutError, PutErrorKind, PutResult, Record, Timestamp};

/// Entries in one `PutRecords` call at most (Kinesis API).
pub const MAX_PUT_ENTRIES: usize = 500;
/// Payloads and partition keys of one `PutRecords` call at most, in bytes (Kinesis quotas: 10 MiB).
pub const MAX_PUT_BYTES: usize = 10 * 1024 * 1024;
/// Records in one `GetRecords` answer at most (Kinesis API).
pub const MAX_GET_RECORDS: usize = 10_000;
/// Payloads and partition keys in one `GetRecords` answer at most, in bytes (Kinesis quotas: 10 MiB). A single record
/// is always returned.
pub const MAX_GET_BYTES: usize = 10 * 1024 * 1024;
/// Characters in a partition key at most (Kinesis API).
const MAX_PARTITION_KEY_CHARS: usize = 256;

/// What `GetRecords` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBatch {
    /// The records, in order.
    pub records: Vec<Record>,
    /// Where to go on; `None` when a closed shard was read to its end.
    pub next: Option<ShardIterator>,
    /// How long the first record after these has been waiting: zero at the tip, never zero before it.
    pub behind_latest: Duration,
    /// The children of the shard, when `next` is `None`.
    pub children: Vec<ChildShard>,
}

impl StreamState {
    /// Numbers and appends records, all in this call: no reader can see a number before a smaller one of its shard.
    pub(super) fn put(&mut self, entries: Vec<RoutedEntry>, now: Timestamp) -> Result<Vec<PutResult>, KinesisError> {
        self.check_readable()?;
        self.check_sizes(&entries)?;
        let horizon = self.trim_horizon(now);
        Ok(entries.into_iter().map(|entry| self.append(entry, horizon, now)).collect())
    }

    fn append(&mut self, routed: RoutedEntry, horizon: Timestamp, now: Timestamp) -> PutResult {
        let owner = if self.automatic_distribution {
            self.turn += 1;
            self.open.nth(self.turn)
        } else {
            self.open.owner(routed.hash_key)
        };
        let (shard, index) = owner
            .and_then(|index| Some((self.shards.get_mut(&index)?, index)))
            .ok_or_else(|| internal_failure(routed.hash_key))?;
        shard.trim(horizon);
        let sequence_number = self.numbering.next(index, now);
        let RoutedEntry { entry, .. } = routed;
        shard.append(Record {
            sequence_number,
            partition_key: Some(entry.partition_key),
            arrival: now,
            data: entry.data,
        });
        Ok(Placed { shard: shard.id.clone(), sequence_number })
    }

    fn check_sizes(&self, entries: &[RoutedEntry]) -> Result<(), KinesisError> {
        if entries.is_empty() || entries.len() > MAX_PUT_ENTRIES {
            let count = entries.len();
            return Err(KinesisError::validation(format!(
                "{count} records in one call: 1 to {MAX_PUT_ENTRIES} may be"
            )));
        }
        for (place, routed) in entries.iter().enumerate() {
            let (key, size) = (routed.entry.partition_key.as_str(), routed.size());
            // Counting characters costs a pass over the key; one that is short in bytes cannot have too many.
            if key.is_empty() || (key.len() > MAX_PARTITION_KEY_CHARS && key.chars().count() > MAX_PARTITION_KEY_CHARS)
            {
                return Err(KinesisError::validation(format!(
                    "the partition key of record {place} must have 1 to {MAX_PARTITION_KEY_CHARS} characters"
                )));
            }
            if size > self.max_record_size {
                return Err(KinesisError::validation(format!(
                    "record {place} has {size} bytes with its partition key; stream `{}` takes {}",
                    self.name, self.max_record_size
                )));
            }
        }
        let total: usize = entries.iter().map(RoutedEntry::size).sum();
        if total > MAX_PUT_BYTES {
            return Err(KinesisError::invalid(format!("{total} bytes in one call: {MAX_PUT_BYTES} may be")));
        }
        Ok(())
    }

    /// The records from an iterator on.
    pub(super) fn get(
        &mut self,
        iterator: &ShardIterator,
        limit: usize,
        now: Timestamp,
    ) -> Result<RecordBatch, KinesisError> {
        self.check_readable()?;
        if !(1..=MAX_GET_RECORDS).contains(&limit) {
            return Err(KinesisError::validation(format!("a limit of {limit} records: 1 to {MAX_GET_RECORDS} may be")));
        }
        let horizon = self.trim_horizon(now);
        let shard = self
            .shards
            .get_mut(&iterator.shard)
            .filter(|_| iterator.stream_created_at == self.created_at)
            .ok_or_else(|| gone(iterator))?;
        iterator.check_age(now)?;
        shard.trim(horizon);
        let (records, behind_latest) = take(shard, iterator.place, limit, now);
        if behind_latest.is_zero() && shard.closed.is_some() {
            let children = shard.children.clone();
            return Ok(RecordBatch { records, next: None, behind_latest, children: self.children(&children) });
        }
        let place = records.last().map_or(iterator.place, |record| IteratorPlace::After(record.sequence_number));
        let next = Some(ShardIterator { place, issued_at: now, ..iterator.clone() });
        Ok(RecordBatch { records, next, behind_latest, children: Vec::new() })
    }

    fn children(&self, children: &[u32]) -> Vec<ChildShard> {
        let child = |shard: &ShardState| ChildShard {
            id: shard.id.clone(),
            parents: shard.parents.iter().copied().map(shard_id).collect(),
            hash_key_range: shard.range,
        };
        children.iter().filter_map(|index| self.shards.get(index)).map(child).collect()
    }
}

/// As many records from a place on as one answer may hold, and how long the next one has been waiting.
fn take(shard: &ShardState, place: IteratorPlace, limit: usize, now: Timestamp) -> (Vec<Record>, Duration) {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for record in shard.from(place) {
        let size = record.data.len() + record.partition_key.as_ref().map_or(0, |key| key.as_str().len());
        let full = taken.len() == limit || (!taken.is_empty() && bytes + size > MAX_GET_BYTES);
        if full {
            // At least a millisecond, since zero means that nothing is left.
            return (taken, now.since(record.arrival).max(Duration::from_millis(1)));
        }
        bytes += size;
        taken.push(record.clone());
    }
    (taken, Duration::ZERO)
}

fn gone(iterator: &ShardIterator) -> KinesisError {
    KinesisError::not_found(format!(
        "stream `{}` no longer has the shard {} that the iterator was made for",
        iterator.stream,
        iterator.shard_id()
    ))
}

fn internal_failure(hash_key: u128) -> PutError {
    let message = format!("no open shard owns the hash key {hash_key}");
    PutError { kind: PutErrorKind::Internal, code: "InternalFailure".to_owned(), message }
}
