//! One shard: its records, its place in the family tree, its end.

use std::collections::VecDeque;

use super::iterator::IteratorPlace;
use crate::{HashKeyRange, Record, SequenceNumber, Shard, ShardId, Timestamp};

/// A shard and the records that it still holds.
#[derive(Debug)]
pub(super) struct ShardState {
    pub(super) id: ShardId,
    /// None, one (split), or two (merge: the shard that was merged, then the adjacent one).
    pub(super) parents: Vec<u32>,
    pub(super) children: Vec<u32>,
    pub(super) range: HashKeyRange,
    pub(super) opened_at: Timestamp,
    pub(super) starting: SequenceNumber,
    pub(super) closed: Option<Closed>,
    /// The newest number issued here, also when its record is gone: that of the start before any record.
    pub(super) newest: SequenceNumber,
    records: VecDeque<Record>,
}

/// When and where a shard ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) at: Timestamp,
    pub(super) ending: SequenceNumber,
}

impl ShardState {
    pub(super) fn new(
        index: u32,
        parents: Vec<u32>,
        range: HashKeyRange,
        starting: SequenceNumber,
        opened_at: Timestamp,
    ) -> Self {
        Self {
            id: shard_id(index),
            parents,
            children: Vec::new(),
            range,
            opened_at,
            starting,
            closed: None,
            newest: starting,
            records: VecDeque::new(),
        }
    }

    /// Appends a record; the caller numbered it in the same critical section.
    pub(super) fn append(&mut self, record: Record) {
        self.newest = record.sequence_number;
        self.records.push_back(record);
    }

    /// Drops what arrived at or before the trim horizon.
    pub(super) fn trim(&mut self, horizon: Timestamp) {
        while self.records.front().is_some_and(|record| record.arrival <= horizon) {
            self.records.pop_front();
        }
    }

    /// The records from a place on.
    pub(super) fn from(&self, place: IteratorPlace) -> impl Iterator<Item = &Record> {
        let first = self.records.partition_point(|record| match place {
            IteratorPlace::At(number) => record.sequence_number < number,
            IteratorPlace::After(number) => record.sequence_number <= number,
        });
        self.records.range(first..)
    }

    /// The place of the first record that arrived at or after a time; after the newest one if there is none.
    pub(super) fn place_at(&self, time: Timestamp) -> IteratorPlace {
        let first = self.records.partition_point(|record| record.arrival < time);
        self.records
            .get(first)
            .map_or(IteratorPlace::After(self.newest), |record| IteratorPlace::At(record.sequence_number))
    }

    /// The shard as the API shows it.
    pub(super) fn listed(&self) -> Shard {
        let mut parents = self.parents.iter().copied().map(shard_id);
        Shard {
            id: self.id.clone(),
            parent: parents.next(),
            adjacent_parent: parents.next(),
            hash_key_range: self.range,
            starting_sequence_number: self.starting,
            ending_sequence_number: self.closed.map(|closed| closed.ending),
        }
    }
}

/// The id of the shard with a number, as the service writes it.
pub(super) fn shard_id(index: u32) -> ShardId {
    format!("shardId-{index:012}").into()
}

/// The number of the shard with an id; none for text that is not one.
pub(super) fn shard_index(id: &ShardId) -> Option<u32> {
    let index = id.as_str().strip_prefix("shardId-")?.parse().ok()?;
    (shard_id(index) == *id).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_numbers_round_trip() {
        assert_eq!(shard_id(3).as_str(), "shardId-000000000003");
        assert_eq!(shard_index(&shard_id(u32::MAX)), Some(u32::MAX));
        for text in ["", "shardId-", "shardId-3", "shardId-+00000000003", "shard-000000000003", "shardId-999999999999"]
        {
            assert_eq!(shard_index(&text.into()), None, "{text:?}");
        }
    }
}
