//! From user records to a record as Kinesis takes it.

mod key_table;
mod limits;

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;

pub use limits::{InvalidLimits, Limits};

use self::key_table::{KeyTable, Place};
use crate::digest::Hashing;
use crate::effective_hash_key;
use crate::explicit_hash_key::{decimal_len, push_decimal};
use crate::format::{ENVELOPE_BYTES, MAGIC, delimited_len, outer_tag, push_field, record_tag, varint_len};

/// The outer partition key of an aggregated record: what the KPL writes, and the shortest that there can be.
const OUTER_PARTITION_KEY: &str = "a";
/// The most characters of a partition key (Kinesis API, `PutRecord`).
const MAX_PARTITION_KEY_CHARACTERS: usize = 256;

/// Collects user records into records for Kinesis.
///
/// It writes what the native KPL writes, byte for byte: each distinct key once, in the order of first use; the outer
/// partition key `a`; the outer explicit hash key of the first user record; and a user record that is alone as it is,
/// with its own key. It does not look at shards: user records that go into one record should belong to one shard.
///
/// Sizes are computed exactly before anything is added, and count as the service counts: payload and outer partition
/// key. Buffers are kept from one record to the next, so that adding a user record does not allocate once they have
/// grown to their size; each record that is finished is one allocation.
///
/// ```
/// use shardwell_aggregation::{AddError, Aggregator, Limits};
///
/// let mut aggregator = Aggregator::new(Limits::new(51_200)?);
/// aggregator.try_add("N14228", None, b"departed")?;
/// aggregator.try_add("N24211", Some(7), b"arrived")?;
/// let record = aggregator.finish().expect("it holds two user records");
/// assert_eq!((&*record.partition_key, record.count), ("a", 2));
/// assert_eq!(record.explicit_hash_key, shardwell_aggregation::hash_key(b"N14228"));
///
/// // What does not fit is refused, and fits into the next record.
/// aggregator.try_add("N14228", None, &[0; 40_000])?;
/// assert_eq!(aggregator.try_add("N14228", None, &[0; 40_000]), Err(AddError::NoRoom));
/// assert_eq!(aggregator.finish().map(|record| record.count), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Aggregator {
    limits: Limits,
    single: Single,
    partition_keys: KeyTable,
    explicit_hash_keys: KeyTable,
    /// What the entries of both tables take in the message.
    table_bytes: usize,
    /// The user records as they stand in the message.
    records: Vec<u8>,
    count: u64,
    first: First,
}

/// What is needed of the first user record at the end.
#[derive(Clone, Debug, Default)]
struct First {
    partition_key: String,
    explicit_hash_key: Option<u128>,
    data_bytes: usize,
}

/// What becomes of a user record that is alone in its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Single {
    /// It goes out as it is, as the KPL does it. A payload that is itself an aggregated record will then be unpacked
    /// by its reader.
    #[default]
    Raw,
    /// It is wrapped into an aggregated record with its own partition key outside, as the other aggregation libraries
    /// do it. Any payload survives, for some bytes more; a reader must deaggregate.
    Wrapped,
}

/// A record for Kinesis.
#[derive(Clone, PartialEq, Eq)]
pub struct AggregatedRecord {
    /// The payload.
    pub data: Bytes,
    /// The partition key to put it with.
    pub partition_key: ByteString,
    /// The explicit hash key to put it with: the hash key of the first user record.
    pub explicit_hash_key: u128,
    /// How many user records it holds.
    pub count: u64,
}

/// Why a user record was not added. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// It does not fit beside what is there; it will after [`Aggregator::finish`].
    #[error("the record is full")]
    NoRoom,
    /// It does not even fit alone.
    #[error("the user record takes {bytes} bytes of at most {limit}")]
    TooLarge {
        /// What a record with it alone would take, payload and partition key.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Its partition key is empty.
    #[error("the partition key is empty")]
    EmptyPartitionKey,
    /// Its partition key has more than 256 characters.
    #[error("the partition key has {characters} characters of at most {MAX_PARTITION_KEY_CHARACTERS}")]
    PartitionKeyTooLong {
        /// How many characters it has.
        characters: usize,
    },
}

/// What adding a user record would come to.
struct Plan {
    partition_key: Place,
    explicit_hash_key: Option<Place>,
    /// What stands in the user record's message, without its tag and length.
    message_bytes: usize,
    /// What the tables would take in all.
    table_bytes: usize,
    /// What the record would take in all, payload and outer partition key.
    record_bytes: usize,
}

impl Aggregator {
    /// An aggregator without user records.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            single: Single::default(),
            partition_keys: KeyTable::new(Some(outer_tag::PARTITION_KEY)),
            explicit_hash_keys: KeyTable::new(None),
            table_bytes: 0,
            records: Vec::new(),
            count: 0,
            first: First::default(),
        }
    }

    /// The same with another treatment of user records that are alone.
    #[must_use]
    pub fn with_single(self, single: Single) -> Self {
        Self { single, ..self }
    }

    /// The limits it keeps.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How many user records it holds.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether it holds no user record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What the record would take if it were finished now, payload and outer partition key; 0 without user records.
    pub fn record_bytes(&self) -> usize {
        match (self.count, self.single) {
            (0, _) => 0,
            (1, Single::Raw) => self.first.data_bytes + self.first.partition_key.len(),
            (1, Single::Wrapped) => self.blob_bytes() + self.first.partition_key.len(),
            _ => self.blob_bytes() + OUTER_PARTITION_KEY.len(),
        }
    }

    /// What [`Aggregator::record_bytes`] would be with one more user record, whatever the limits are.
    pub fn record_bytes_with(&self, partition_key: &str, explicit_hash_key: Option<u128>, data: &[u8]) -> usize {
        self.plan(partition_key, explicit_hash_key, data.len()).record_bytes
    }

    /// Adds a user record, copying it, if it fits.
    ///
    /// # Errors
    /// When it does not fit, now or ever, and when its partition key does not have 1 to 256 characters. Nothing has
    /// changed then.
    pub fn try_add(
        &mut self,
        partition_key: &str,
        explicit_hash_key: Option<u128>,
        data: &[u8],
    ) -> Result<(), AddError> {
        check_partition_key(partition_key)?;
        let plan = self.plan(partition_key, explicit_hash_key, data.len());
        if plan.record_bytes > self.limits.record_bytes() || self.count >= self.limits.user_records() {
            return Err(self.refusal(partition_key, explicit_hash_key, data.len()));
        }
        if self.count == 0 {
            self.first.partition_key.push_str(partition_key);
            self.first.explicit_hash_key = explicit_hash_key;
            self.first.data_bytes = data.len();
        }
        let key_index = self.partition_keys.insert(plan.partition_key, partition_key.as_bytes());
        let hash_key_index = match (plan.explicit_hash_key, explicit_hash_key) {
            (Some(place), Some(hash_key)) => Some(self.explicit_hash_keys.insert(place, &hash_key.to_be_bytes())),
            _ => None,
        };
        self.table_bytes = plan.table_bytes;
        self.count += 1;
        self.push_record(plan.message_bytes, key_index, hash_key_index, data);
        Ok(())
    }

    /// The record with all user records added since the last call; none if there are none. The aggregator is empty
    /// afterwards and keeps its buffers.
    pub fn finish(&mut self) -> Option<AggregatedRecord> {
        if self.count == 0 {
            return None;
        }
        let alone = self.count == 1;
        let data = if alone && self.single == Single::Raw {
            // The payload is the last field of its message.
            Bytes::copy_from_slice(&self.records[self.records.len() - self.first.data_bytes..])
        } else {
            self.blob()
        };
        let partition_key = if alone {
            ByteString::from(self.first.partition_key.as_str())
        } else {
            ByteString::from_static(OUTER_PARTITION_KEY)
        };
        let explicit_hash_key = effective_hash_key(&self.first.partition_key, self.first.explicit_hash_key);
        let count = self.count;
        self.clear();
        Some(AggregatedRecord { data, partition_key, explicit_hash_key, count })
    }

    /// Forgets the user records and keeps the buffers.
    pub fn clear(&mut self) {
        self.partition_keys.clear();
        self.explicit_hash_keys.clear();
        self.table_bytes = 0;
        self.records.clear();
        self.count = 0;
        self.first.partition_key.clear();
    }

    #[inline(always)]
    fn plan(&self, partition_key: &str, explicit_hash_key: Option<u128>, data_bytes: usize) -> Plan {
        let mut message_bytes = delimited_len(data_bytes);
        let mut table_bytes = self.table_bytes;
        let key_place = self.partition_keys.find(partition_key.as_bytes());
        message_bytes += index_bytes(key_place, &self.partition_keys);
        if key_place.is_absent() {
            table_bytes += delimited_len(partition_key.len());
        }
        let mut hash_key_place = None;
        if let Some(hash_key) = explicit_hash_key {
            let place = self.explicit_hash_keys.find(&hash_key.to_be_bytes());
            message_bytes += index_bytes(place, &self.explicit_hash_keys);
            if place.is_absent() {
                table_bytes += delimited_len(decimal_len(hash_key));
            }
            hash_key_place = Some(place);
        }
        let blob_bytes = ENVELOPE_BYTES + table_bytes + self.records.len() + delimited_len(message_bytes);
        let record_bytes = match (self.count, self.single) {
            (0, Single::Raw) => data_bytes + partition_key.len(),
            (0, Single::Wrapped) => blob_bytes + partition_key.len(),
            _ => blob_bytes + OUTER_PARTITION_KEY.len(),
        };
        Plan { partition_key: key_place, explicit_hash_key: hash_key_place, message_bytes, table_bytes, record_bytes }
    }

    /// Why a user record does not fit that does not fit.
    #[cold]
    fn refusal(&self, partition_key: &str, explicit_hash_key: Option<u128>, data_bytes: usize) -> AddError {
        let limit = self.limits.record_bytes();
        let bytes = match self.single {
            Single::Raw => data_bytes + partition_key.len(),
            Single::Wrapped => wrapped_bytes(partition_key, explicit_hash_key, data_bytes),
        };
        if bytes > limit { AddError::TooLarge { bytes, limit } } else { AddError::NoRoom }
    }

    #[inline(always)]
    fn push_record(&mut self, message_bytes: usize, key_index: usize, hash_key_index: Option<usize>, data: &[u8]) {
        let out = &mut self.records;
        push_field(out, outer_tag::RECORD, message_bytes);
        push_field(out, record_tag::PARTITION_KEY_INDEX, key_index);
        if let Some(index) = hash_key_index {
            push_field(out, record_tag::EXPLICIT_HASH_KEY_INDEX, index);
        }
        push_field(out, record_tag::DATA, data.len());
        out.extend_from_slice(data);
    }

    fn blob_bytes(&self) -> usize {
        ENVELOPE_BYTES + self.table_bytes + self.records.len()
    }

    fn blob(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.blob_bytes());
        out.extend_from_slice(&MAGIC);
        let mut body = Hashing::after(out);
        body.append(self.partition_keys.bytes());
        body.append_with(|out| self.push_explicit_hash_keys(out));
        body.append(&self.records);
        body.finish().into()
    }

    fn push_explicit_hash_keys(&self, out: &mut Vec<u8>) {
        for key in self.explicit_hash_keys.iter().filter_map(|key| key.first_chunk()) {
            let hash_key = u128::from_be_bytes(*key);
            push_field(out, outer_tag::EXPLICIT_HASH_KEY, decimal_len(hash_key));
            push_decimal(out, hash_key);
        }
    }
}

/// What the index of a key takes in a user record's message, with its tag.
#[inline(always)]
fn index_bytes(place: Place, table: &KeyTable) -> usize {
    let index = match place {
        Place::Present(index) => index,
        Place::Absent(_) => table.len(),
    };
    1 + varint_len(index)
}

/// What a user record takes that is wrapped alone, with its partition key outside as well as inside.
fn wrapped_bytes(partition_key: &str, explicit_hash_key: Option<u128>, data_bytes: usize) -> usize {
    let hash_key_bytes = explicit_hash_key.map_or(0, |hash_key| delimited_len(decimal_len(hash_key)));
    let index_bytes = if explicit_hash_key.is_some() { 4 } else { 2 };
    let message_bytes = index_bytes + delimited_len(data_bytes);
    let tables = delimited_len(partition_key.len()) + hash_key_bytes;
    ENVELOPE_BYTES + tables + delimited_len(message_bytes) + partition_key.len()
}

#[inline]
fn check_partition_key(partition_key: &str) -> Result<(), AddError> {
    if partition_key.is_empty() {
        return Err(AddError::EmptyPartitionKey);
    }
    // Only a key with more bytes can have more characters.
    if partition_key.len() > MAX_PARTITION_KEY_CHARACTERS {
        let characters = partition_key.chars().count();
        if characters > MAX_PARTITION_KEY_CHARACTERS {
            return Err(AddError::PartitionKeyTooLong { characters });
        }
    }
    Ok(())
}

/// Only counts and lengths: keys and payloads can be private.
impl fmt::Debug for Aggregator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aggregator")
            .field("limits", &self.limits)
            .field("single", &self.single)
            .field("count", &self.count)
            .field("record_bytes", &self.record_bytes())
            .finish_non_exhaustive()
    }
}

/// Only lengths: keys and payloads can be private.
impl fmt::Debug for AggregatedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AggregatedRecord")
            .field("data_bytes", &self.data.len())
            .field("partition_key_bytes", &self.partition_key.len())
            .field("explicit_hash_key", &self.explicit_hash_key)
            .field("count", &self.count)
            .finish()
    }
}

#[cfg(test)]
mod tests;
