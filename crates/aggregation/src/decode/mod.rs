//! From a record as Kinesis returns it to the user records in it.

mod aggregate;
mod batch;
mod body;
mod error;
mod filter;
mod kcl;
mod tables;
mod wire;
#[cfg(test)]
mod work;

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;

pub use aggregate::{Aggregate, UserRecord, UserRecordView, UserRecordViews, UserRecords};
pub use batch::{DeaggregatedBatch, deaggregate_batch};
pub use error::{Malformed, NotAggregated, ParseError};
pub use filter::{RangeCounts, RangePolicy};
pub use kcl::{KclDeaggregated, KclLoss, KclLossReason, deaggregate_like_kcl};

use self::aggregate::body;
use self::body::Fields;
use self::tables::{Rules, Scan};
use crate::digest::{Digest, md5};
use crate::format::{DIGEST_BYTES, ENVELOPE_BYTES, MAGIC};

/// The keys that a record has in the stream. They say nothing about the user records of an aggregated record, and
/// come back with a record that is delivered as it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Outer {
    /// The partition key; none on streams with `AUTO` record distribution where none was given.
    pub partition_key: Option<ByteString>,
    /// The explicit hash key where it is known. Kinesis does not return it.
    pub explicit_hash_key: Option<u128>,
}

/// A record as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// The keys it came with.
    pub outer: Outer,
    /// The payload.
    pub data: Bytes,
}

/// What a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deaggregated {
    /// An aggregated record with at least one user record, all of them good.
    Aggregated(Aggregate),
    /// Not an aggregated record: a user record by itself.
    NotAggregated {
        /// The record.
        record: RawRecord,
        /// How it is known.
        reason: NotAggregated,
    },
    /// An aggregated record that is broken. None of its user records is yielded, not even those before the fault.
    Malformed {
        /// The record.
        record: RawRecord,
        /// What is wrong.
        error: Malformed,
    },
    /// An aggregated record without user records. Nothing is lost by skipping it, but nobody writes it on purpose.
    Empty {
        /// The record.
        record: RawRecord,
    },
}

/// What a record is, for counting. The names are the ones that metrics and tools show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Classification {
    /// An aggregated record with at least one user record, all of them good.
    Aggregated,
    /// Not aggregated: see [`NotAggregated::TooShort`].
    TooShort,
    /// Not aggregated: see [`NotAggregated::OtherMagic`].
    OtherMagic,
    /// Not aggregated: see [`NotAggregated::DigestMismatch`].
    DigestMismatch,
    /// Malformed: see [`Malformed::Unparsable`].
    Unparsable,
    /// Malformed: see [`Malformed::PartitionKeyIndex`].
    PartitionKeyIndex,
    /// Malformed: see [`Malformed::ExplicitHashKeyIndex`].
    ExplicitHashKeyIndex,
    /// Malformed: see [`Malformed::PartitionKeyEncoding`].
    PartitionKeyEncoding,
    /// Malformed: see [`Malformed::ExplicitHashKey`].
    ExplicitHashKey,
    /// An aggregated record without user records.
    Empty,
}

/// Reads the user records of a record, if it is an aggregated record.
///
/// Everything is checked before the first user record is yielded: length, magic and digest, the message, the indexes
/// of every user record, and the keys they point at. Table entries that no user record points at may be anything.
///
/// Work is linear in the length of the data whatever the data is, and memory is bounded by a small multiple of it. A
/// record is allocated for its key tables and not per user record: keys and payloads are shared slices.
///
/// ```
/// use bytes::Bytes;
/// use shardwell_aggregation::{Deaggregated, NotAggregated, Outer, deaggregate};
///
/// // The user records (`a`, `1`) and (`b`, `2`).
/// let data = b"\xf3\x89\x9a\xc2\x0a\x01a\x0a\x01b\x1a\x05\x08\x00\x1a\x011\x1a\x05\x08\x01\x1a\x012\
///              \xe2\xb8\xea\xe4\x16\x63\x8c\x34\x9a\xa5\x39\x37\xe4\x4a\x58\xfa";
/// let Deaggregated::Aggregated(aggregate) = deaggregate(Bytes::from_static(data), Outer::default()) else {
///     panic!("it is aggregated");
/// };
/// let keys: Vec<_> = aggregate.iter().map(|record| record.partition_key).collect();
/// assert_eq!(keys, ["a", "b"]);
///
/// let plain = deaggregate(Bytes::from_static(b"{\"tail\": \"N14228\"}"), Outer::default());
/// assert!(matches!(plain, Deaggregated::NotAggregated { reason: NotAggregated::TooShort, .. }));
/// ```
///
/// See [`deaggregate_batch`] for many records.
pub fn deaggregate(data: Bytes, outer: Outer) -> Deaggregated {
    match envelope(&data) {
        Ok(()) => read(data, outer),
        Err(reason) => Deaggregated::NotAggregated { record: RawRecord::new(data, outer), reason },
    }
}

/// Reads a record of which length, magic and digest are good.
fn read(data: Bytes, outer: Outer) -> Deaggregated {
    let raw = |data| RawRecord::new(data, outer);
    let scan = match Scan::new(body(&data), Rules::Strict) {
        Ok(scan) => scan,
        Err(error) => return Deaggregated::Malformed { record: raw(data), error: error.into() },
    };
    if scan.records == 0 {
        return Deaggregated::Empty { record: raw(data) };
    }
    let fault = bad_index(&scan, body(&data)).or_else(|| bad_key(&scan, body(&data)));
    match fault {
        Some(error) => Deaggregated::Malformed { record: raw(data), error },
        None => Deaggregated::Aggregated(Aggregate::new(data, scan.tables, scan.records)),
    }
}

/// Checks length, magic and digest, in this order.
fn envelope(data: &[u8]) -> Result<(), NotAggregated> {
    let body = enveloped(data)?;
    check_digest(data, &md5(body))
}

/// Checks length and magic, in this order. Returns what the digest has to be of.
fn enveloped(data: &[u8]) -> Result<&[u8], NotAggregated> {
    if data.len() <= ENVELOPE_BYTES {
        return Err(NotAggregated::TooShort);
    }
    if !data.starts_with(&MAGIC) {
        return Err(NotAggregated::OtherMagic);
    }
    Ok(body(data))
}

fn check_digest(data: &[u8], digest: &Digest) -> Result<(), NotAggregated> {
    if data.last_chunk::<DIGEST_BYTES>() == Some(digest) { Ok(()) } else { Err(NotAggregated::DigestMismatch) }
}

/// The first index that points behind its table. The records are looked at again only if there is one.
fn bad_index(scan: &Scan, body: &[u8]) -> Option<Malformed> {
    if scan.indexes_are_good() {
        return None;
    }
    let tables = &scan.tables;
    let mut fields = Fields::new(body);
    (0..).zip(std::iter::from_fn(|| fields.next_record())).find_map(|(n, record)| {
        let index = record.partition_key;
        if tables.partition_key(index).is_none() {
            return Some(Malformed::PartitionKeyIndex { record: n, index, entries: tables.partition_keys() });
        }
        let index = record.explicit_hash_key?;
        let missing = tables.explicit_hash_key(index).is_none();
        missing.then(|| Malformed::ExplicitHashKeyIndex { record: n, index, entries: tables.explicit_hash_keys() })
    })
}

/// The first key in use that could not be read. The records are looked at again only if a table has such a key.
fn bad_key(scan: &Scan, body: &[u8]) -> Option<Malformed> {
    let tables = &scan.tables;
    if tables.are_good() {
        return None;
    }
    let mut fields = Fields::new(body);
    (0..).zip(std::iter::from_fn(|| fields.next_record())).find_map(|(n, record)| {
        if tables.is_bad_partition_key(record.partition_key) {
            return Some(Malformed::PartitionKeyEncoding { record: n });
        }
        let error = tables.explicit_hash_key_error(record.explicit_hash_key?)?;
        Some(Malformed::ExplicitHashKey { record: n, error })
    })
}

impl Deaggregated {
    /// What the record is, for counting.
    pub fn classification(&self) -> Classification {
        match self {
            Self::Aggregated(_) => Classification::Aggregated,
            Self::NotAggregated { reason, .. } => (*reason).into(),
            Self::Malformed { error, .. } => (*error).into(),
            Self::Empty { .. } => Classification::Empty,
        }
    }
}

impl Classification {
    /// The name of the classification in metrics and tools: lower case, with underscores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aggregated => "aggregated",
            Self::TooShort => "too_short",
            Self::OtherMagic => "other_magic",
            Self::DigestMismatch => "digest_mismatch",
            Self::Unparsable => "unparsable",
            Self::PartitionKeyIndex => "partition_key_index",
            Self::ExplicitHashKeyIndex => "explicit_hash_key_index",
            Self::PartitionKeyEncoding => "partition_key_encoding",
            Self::ExplicitHashKey => "explicit_hash_key",
            Self::Empty => "empty",
        }
    }
}

impl fmt::Display for Classification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<NotAggregated> for Classification {
    fn from(reason: NotAggregated) -> Self {
        match reason {
            NotAggregated::TooShort => Self::TooShort,
            NotAggregated::OtherMagic => Self::OtherMagic,
            NotAggregated::DigestMismatch => Self::DigestMismatch,
        }
    }
}

impl From<Malformed> for Classification {
    fn from(error: Malformed) -> Self {
        match error {
            Malformed::Unparsable(_) => Self::Unparsable,
            Malformed::PartitionKeyIndex { .. } => Self::PartitionKeyIndex,
            Malformed::ExplicitHashKeyIndex { .. } => Self::ExplicitHashKeyIndex,
            Malformed::PartitionKeyEncoding { .. } => Self::PartitionKeyEncoding,
            Malformed::ExplicitHashKey { .. } => Self::ExplicitHashKey,
        }
    }
}

impl RawRecord {
    fn new(data: Bytes, outer: Outer) -> Self {
        Self { outer, data }
    }
}

/// Only lengths: keys can be as private as payloads.
impl fmt::Debug for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outer")
            .field("partition_key_bytes", &self.partition_key.as_ref().map(|key| key.len()))
            .field("explicit_hash_key", &self.explicit_hash_key)
            .finish()
    }
}

/// Only lengths: keys and payloads can be private.
impl fmt::Debug for RawRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawRecord").field("outer", &self.outer).field("data_bytes", &self.data.len()).finish()
    }
}

#[cfg(test)]
mod tests;
