//! The user records of an aggregated record.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;

use super::body::{Fields, RecordFields};
use super::filter::Membership;
use super::tables::Tables;
use crate::format::{DIGEST_BYTES, MAGIC};
use crate::{HashKeyRange, effective_hash_key};

/// The user records of an aggregated record, all of them known to be good.
///
/// Iterating yields them in the order in which they were put. By reference it yields [`UserRecordView`]s, which borrow
/// and cost nothing; by value [`UserRecord`]s, which share key and payload without copying either. Neither allocates.
#[derive(Clone, PartialEq, Eq)]
pub struct Aggregate {
    data: Bytes,
    tables: Tables,
    /// How many user records are read of the body.
    read: u64,
    /// How many of these are delivered.
    len: u64,
    /// What the KCL leaves of an index, where this is read as the KCL reads.
    index_mask: u64,
    membership: Option<Membership>,
}

/// A user record of an aggregated record.
#[derive(Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Its place in the aggregated record, from 0. A filter leaves gaps.
    pub sub_sequence_number: u64,
    /// The partition key it was put with. A slice that keeps the keys of the whole aggregated record alive.
    pub partition_key: ByteString,
    /// The explicit hash key it was put with, if it was put with one.
    pub explicit_hash_key: Option<u128>,
    /// The payload. A slice that keeps the whole aggregated record alive.
    pub data: Bytes,
}

/// A user record that borrows from its aggregated record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UserRecordView<'a> {
    /// Its place in the aggregated record, from 0. A filter leaves gaps.
    pub sub_sequence_number: u64,
    /// The partition key it was put with.
    pub partition_key: &'a str,
    /// The explicit hash key it was put with, if it was put with one.
    pub explicit_hash_key: Option<u128>,
    /// The payload.
    pub data: &'a [u8],
}

impl Aggregate {
    /// The first `read` user records of a body, for which the tables have all entries.
    pub(super) fn new(data: Bytes, tables: Tables, read: u64) -> Self {
        Self { data, tables, read, len: read, index_mask: u64::MAX, membership: None }
    }

    /// The same with indexes that are cut to their lower bits.
    pub(super) fn with_index_mask(self, index_mask: u64) -> Self {
        Self { index_mask, ..self }
    }

    /// The same without the user records outside a range, of which there are `outside`.
    pub(super) fn without(self, outside: u64, membership: Membership) -> Self {
        Self { len: self.len - outside, membership: Some(membership), ..self }
    }

    /// The same without any user record.
    pub(super) fn emptied(self) -> Self {
        Self { read: 0, len: 0, ..self }
    }

    /// How many user records it delivers.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it delivers none, which only a filter or the KCL's rules make happen.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The record they came in, as it came.
    pub fn outer_data(&self) -> &Bytes {
        &self.data
    }

    /// The user records, borrowed.
    pub fn iter(&self) -> UserRecordViews<'_> {
        UserRecordViews { aggregate: self, fields: Fields::new(self.records()), next: 0 }
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The range that the user records delivered are known to lie in, where a filter has left out others.
    pub(super) fn kept(&self) -> Option<HashKeyRange> {
        self.membership.as_ref().map(Membership::range)
    }

    /// What routes each user record that is delivered: the index of its partition key, and its explicit hash key.
    pub(super) fn routes(&self) -> impl Iterator<Item = (u64, Option<u128>)> + '_ {
        let mut fields = Fields::new(self.records());
        let records = (0..self.read).map_while(move |_| fields.next_record());
        records.map(|record| self.route(&record)).filter(|(key, explicit)| self.delivers(*key, *explicit))
    }

    #[inline(always)]
    fn route(&self, record: &RecordFields<'_>) -> (u64, Option<u128>) {
        let explicit = record.explicit_hash_key;
        let explicit = explicit.and_then(|index| self.tables.explicit_hash_key(index & self.index_mask));
        (record.partition_key & self.index_mask, explicit)
    }

    #[inline(always)]
    fn delivers(&self, partition_key: u64, explicit_hash_key: Option<u128>) -> bool {
        self.membership.as_ref().is_none_or(|membership| membership.contains(partition_key, explicit_hash_key))
    }

    /// The part of the body that holds the user records.
    #[inline(always)]
    fn records(&self) -> &[u8] {
        self.tables.records_of(body(&self.data))
    }

    /// The user record that follows in `fields` as the `n`-th; none where a filter leaves it out.
    #[inline(always)]
    fn view<'a>(&'a self, record: &RecordFields<'a>, n: u64) -> Option<UserRecordView<'a>> {
        let (partition_key, explicit_hash_key) = self.route(record);
        if !self.delivers(partition_key, explicit_hash_key) {
            return None;
        }
        Some(UserRecordView {
            sub_sequence_number: n,
            partition_key: self.tables.partition_key(partition_key).unwrap_or_default(),
            explicit_hash_key,
            data: record.data,
        })
    }
}

/// What stands between magic and digest. Empty for what is too short to be aggregated.
pub(super) fn body(data: &[u8]) -> &[u8] {
    data.len().checked_sub(DIGEST_BYTES).and_then(|end| data.get(MAGIC.len()..end)).unwrap_or_default()
}

/// The user records of an aggregated record, borrowed.
#[derive(Clone, Debug)]
pub struct UserRecordViews<'a> {
    aggregate: &'a Aggregate,
    fields: Fields<'a>,
    next: u64,
}

impl<'a> Iterator for UserRecordViews<'a> {
    type Item = UserRecordView<'a>;

    // A view that is returned through memory costs as much as making it does.
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.aggregate.read {
            let record = self.fields.next_record()?;
            let n = self.next;
            self.next += 1;
            if let Some(view) = self.aggregate.view(&record, n) {
                return Some(view);
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.aggregate.size_hint(self.next)
    }
}

/// The user records of an aggregated record, sharing its memory.
#[derive(Clone, Debug)]
pub struct UserRecords {
    aggregate: Aggregate,
    /// How much of the part with the user records has been read.
    offset: usize,
    next: u64,
}

impl Iterator for UserRecords {
    type Item = UserRecord;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let aggregate = &self.aggregate;
        let records = aggregate.records();
        while self.next < aggregate.read {
            let mut fields = Fields::new(records.get(self.offset..)?);
            let record = fields.next_record()?;
            self.offset = records.len() - fields.remaining();
            let n = self.next;
            self.next += 1;
            if let Some(view) = aggregate.view(&record, n) {
                return Some(UserRecord {
                    sub_sequence_number: n,
                    partition_key: aggregate.tables.share(view.partition_key),
                    explicit_hash_key: view.explicit_hash_key,
                    data: aggregate.data.slice_ref(view.data),
                });
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.aggregate.size_hint(self.next)
    }
}

impl Aggregate {
    /// How many user records an iterator yields that has read `next` of them: exactly known without a filter.
    fn size_hint(&self, next: u64) -> (usize, Option<usize>) {
        let most = usize::try_from(self.read - next).ok();
        let filtered = self.membership.is_some();
        (if filtered { 0 } else { most.unwrap_or(usize::MAX) }, most)
    }
}

impl IntoIterator for Aggregate {
    type Item = UserRecord;
    type IntoIter = UserRecords;

    fn into_iter(self) -> Self::IntoIter {
        UserRecords { aggregate: self, offset: 0, next: 0 }
    }
}

impl<'a> IntoIterator for &'a Aggregate {
    type Item = UserRecordView<'a>;
    type IntoIter = UserRecordViews<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl UserRecord {
    /// The hash key that routes the record: its explicit one, else that of its partition key.
    pub fn hash_key(&self) -> u128 {
        effective_hash_key(&self.partition_key, self.explicit_hash_key)
    }
}

impl UserRecordView<'_> {
    /// The hash key that routes the record: its explicit one, else that of its partition key.
    pub fn hash_key(&self) -> u128 {
        effective_hash_key(self.partition_key, self.explicit_hash_key)
    }
}

/// Only counts and lengths: keys and payloads can be private.
impl fmt::Debug for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aggregate").field("data_bytes", &self.data.len()).field("user_records", &self.len).finish()
    }
}

/// Only lengths: keys and payloads can be private.
impl fmt::Debug for UserRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sub_sequence_number, partition_key, explicit_hash_key, data } = self;
        UserRecordView {
            sub_sequence_number: *sub_sequence_number,
            partition_key,
            explicit_hash_key: *explicit_hash_key,
            data,
        }
        .fmt(f)
    }
}

/// Only lengths: keys and payloads can be private.
impl fmt::Debug for UserRecordView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRecord")
            .field("sub_sequence_number", &self.sub_sequence_number)
            .field("partition_key_bytes", &self.partition_key.len())
            .field("explicit_hash_key", &self.explicit_hash_key)
            .field("data_bytes", &self.data.len())
            .finish()
    }
}
