//! What was put into the streams, and what has become of it.

use std::collections::BTreeMap;

use shardwell_core::delivery::StoredPosition;
use shardwell_core::{ExtendedSequenceNumber, LeaseKey, Monotonic, Timestamp};

use super::checks::TermId;

/// What happens when a record is processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Nothing.
    Fine,
    /// The filter leaves it out.
    Unwanted,
    /// The first so many attempts fail.
    Flaky(u32),
    /// Every attempt fails.
    Poison(Poison),
}

/// How a record fails that always fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Poison {
    /// The whole batch fails.
    Fails,
    /// The batch fails at the record.
    FailsHere,
    /// The record is reported, the others are done.
    Reported,
    /// The batch fails at the record, for good.
    Permanent,
    /// The processor panics.
    Panics,
}

/// A user record.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    pub(crate) key: u32,
    pub(crate) shard: usize,
    pub(crate) position: ExtendedSequenceNumber,
    pub(crate) arrival: Timestamp,
    pub(crate) nature: Nature,
    /// Its place among the records of its key in its shard.
    place_in_key: usize,
    /// In which term of the lease, and when, a processor was done with it last; in none, if the lease was lost by then.
    pub(crate) done: Option<(Option<TermId>, Monotonic)>,
    pub(crate) has_letter: bool,
    /// How many attempts at it have failed.
    pub(crate) failures: u32,
}

impl Put {
    /// Whether nothing more has to happen to it.
    pub(crate) fn is_settled(&self) -> bool {
        self.done.is_some() || self.has_letter || self.nature == Nature::Unwanted
    }
}

/// A shard, and what lies in it.
#[derive(Clone, Debug)]
pub(crate) struct ShardTruth {
    /// That of its lease: ids of shards are the same in every stream.
    pub(crate) key: LeaseKey,
    parents: Vec<LeaseKey>,
    /// The records of it, in order.
    pub(crate) records: Vec<usize>,
    /// How many records of it are not settled.
    waiting: usize,
    /// All records before this place are settled.
    settled_up_to: usize,
    keys: BTreeMap<u32, KeyTruth>,
}

#[derive(Clone, Debug, Default)]
struct KeyTruth {
    records: Vec<usize>,
    /// All records before this place are settled.
    settled_up_to: usize,
}

/// All records, numbered from 0 in the order in which they were put.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    pub(crate) records: Vec<Put>,
    shards: Vec<ShardTruth>,
    by_key: BTreeMap<LeaseKey, usize>,
    waiting: usize,
}

impl Truth {
    /// Takes note of a shard, unless it is known.
    pub(crate) fn shard(&mut self, key: &LeaseKey, parents: impl FnOnce() -> Vec<LeaseKey>) -> usize {
        if let Some(index) = self.by_key.get(key) {
            return *index;
        }
        let index = self.shards.len();
        self.shards.push(ShardTruth {
            key: key.clone(),
            parents: parents(),
            records: Vec::new(),
            waiting: 0,
            settled_up_to: 0,
            keys: BTreeMap::new(),
        });
        self.by_key.insert(key.clone(), index);
        index
    }

    /// Takes note of the next record.
    pub(crate) fn put(
        &mut self,
        shard: usize,
        key: u32,
        position: ExtendedSequenceNumber,
        arrival: Timestamp,
        nature: Nature,
    ) {
        let number = self.records.len();
        let truth = &mut self.shards[shard];
        truth.records.push(number);
        let of_key = truth.keys.entry(key).or_default();
        let place_in_key = of_key.records.len();
        of_key.records.push(number);
        let put =
            Put { key, shard, position, arrival, nature, place_in_key, done: None, has_letter: false, failures: 0 };
        if !put.is_settled() {
            truth.waiting += 1;
            self.waiting += 1;
        }
        self.records.push(put);
    }

    pub(crate) fn shard_of(&self, key: &LeaseKey) -> Option<&ShardTruth> {
        self.by_key.get(key).map(|index| &self.shards[*index])
    }

    pub(crate) fn shard_at(&self, index: usize) -> &ShardTruth {
        &self.shards[index]
    }

    /// How many records wait for something to happen to them.
    pub(crate) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// The first record that waits.
    pub(crate) fn first_waiting(&self) -> Option<usize> {
        self.records.iter().position(|record| !record.is_settled())
    }

    /// A processor is done with a record.
    pub(crate) fn done(&mut self, number: usize, term: Option<TermId>, now: Monotonic) {
        self.settle(number, |record| record.done = Some((term, now)));
    }

    /// A letter about a record is durable.
    pub(crate) fn letter(&mut self, number: usize) {
        self.settle(number, |record| record.has_letter = true);
    }

    fn settle(&mut self, number: usize, change: impl FnOnce(&mut Put)) {
        let record = &mut self.records[number];
        let waited = !record.is_settled();
        change(record);
        if waited && record.is_settled() {
            self.waiting -= 1;
            self.shards[record.shard].waiting -= 1;
        }
    }

    /// The newest record of a shard.
    pub(crate) fn newest_in(&self, shard: &LeaseKey) -> Option<ExtendedSequenceNumber> {
        Some(self.records[*self.shard_of(shard)?.records.last()?].position)
    }

    /// The records of a shard behind a position.
    pub(crate) fn behind(&self, shard: &LeaseKey, position: ExtendedSequenceNumber) -> impl Iterator<Item = usize> {
        let records = self.shard_of(shard).map(|shard| shard.records.as_slice()).unwrap_or_default();
        records.iter().copied().filter(move |number| self.records[*number].position > position)
    }

    /// The positions of the records of a shard behind a position.
    pub(crate) fn positions_behind(&self, shard: &LeaseKey, position: ExtendedSequenceNumber) -> Vec<StoredPosition> {
        self.behind(shard, position).map(|number| self.records[number].position.into()).collect()
    }

    /// The first parent of a shard in which something is not settled.
    pub(crate) fn unsettled_parent(&self, shard: usize) -> Option<&LeaseKey> {
        self.shards[shard].parents.iter().find(|key| self.shard_of(key).is_some_and(|parent| parent.waiting > 0))
    }

    /// The first record of a shard at or below `position` that is not settled.
    pub(crate) fn unsettled_up_to(
        &mut self,
        shard: &LeaseKey,
        position: Option<ExtendedSequenceNumber>,
    ) -> Option<usize> {
        let truth = &mut self.shards[*self.by_key.get(shard)?];
        while let Some(number) = truth.records.get(truth.settled_up_to) {
            let record = &self.records[*number];
            if position.is_some_and(|position| record.position > position) {
                return None;
            }
            if !record.is_settled() {
                return Some(*number);
            }
            truth.settled_up_to += 1;
        }
        None
    }

    /// An earlier record of the same key that is neither settled nor one of `beside`.
    pub(crate) fn unsettled_before(&mut self, number: usize, beside: &[usize]) -> Option<usize> {
        let record = &self.records[number];
        let (key, place) = (record.key, record.place_in_key);
        let of_key = self.shards[record.shard].keys.get_mut(&key)?;
        while of_key.settled_up_to < place && self.records[of_key.records[of_key.settled_up_to]].is_settled() {
            of_key.settled_up_to += 1;
        }
        let earlier = &of_key.records[of_key.settled_up_to.min(place)..place];
        earlier.iter().copied().find(|other| !self.records[*other].is_settled() && !beside.contains(other))
    }
}
