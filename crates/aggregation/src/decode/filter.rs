//! User records that belong to another shard than the one they are read from.
//!
//! A producer that aggregates with an outdated view of the shards can put user records into one aggregated record that
//! belong to different shards by now. The service routes the whole record by its outer hash key.

use super::aggregate::Aggregate;
use super::tables::Tables;
use crate::digest::md5_many;
use crate::{HashKeyRange, hash_key};

/// What to do with user records whose hash key lies outside the range of the shard they are read from.
///
/// On streams with `AUTO` record distribution hash keys route nothing, and none of this should be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangePolicy {
    /// Deliver them. Nothing is lost; after a reshard a user record that its producer put twice is seen twice.
    #[default]
    DeliverAll,
    /// Leave out those outside and deliver the others.
    FilterRecords,
    /// Leave out every user record of an aggregated record with one outside. So does the KCL, without telling; an
    /// encoder that mixes shards loses data this way.
    AllOrNothing,
}

/// How the user records of an aggregated record lie to a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeCounts {
    /// How many lie inside.
    pub inside: u64,
    /// How many lie outside.
    pub outside: u64,
    /// How many the policy left out, inside or outside.
    pub dropped: u64,
}

impl Aggregate {
    /// Applies a policy to the user records outside a range, and counts them whatever the policy is.
    ///
    /// Each distinct partition key is hashed once, and only where a user record without explicit hash key uses it.
    ///
    /// ```
    /// # use shardwell_aggregation::*;
    /// # let mut aggregator = Aggregator::new(Limits::default());
    /// # for (key, hash_key) in [("a", 1), ("b", u128::MAX), ("c", 2)] {
    /// #     aggregator.try_add(key, Some(hash_key), b"data")?;
    /// # }
    /// # let record = aggregator.finish().expect("three user records");
    /// # let Deaggregated::Aggregated(aggregate) = deaggregate(record.data, Outer::default()) else { panic!() };
    /// let lower_half = HashKeyRange::even_split(2)[0];
    /// let (kept, counts) = aggregate.in_range(lower_half, RangePolicy::FilterRecords);
    /// assert_eq!(counts, RangeCounts { inside: 2, outside: 1, dropped: 1 });
    /// assert_eq!(kept.iter().map(|record| record.sub_sequence_number).collect::<Vec<_>>(), [0, 2]);
    /// # Ok::<(), AddError>(())
    /// ```
    pub fn in_range(self, range: HashKeyRange, policy: RangePolicy) -> (Self, RangeCounts) {
        if range == HashKeyRange::FULL {
            let inside = self.len();
            return (self, RangeCounts { inside, ..RangeCounts::default() });
        }
        // What an earlier call left out stays left out.
        let Some(kept) = self.kept().map_or(Some(range), |kept| intersection(kept, range)) else {
            let (outside, dropped) = (self.len(), if policy == RangePolicy::DeliverAll { 0 } else { self.len() });
            let kept = if policy == RangePolicy::DeliverAll { self } else { self.emptied() };
            return (kept, RangeCounts { inside: 0, outside, dropped });
        };
        let mut membership = Membership::new(kept, self.tables());
        membership.decide_all(self.tables(), self.routes());
        let inside = self.routes().filter(|(key, explicit)| membership.contains(*key, *explicit)).count() as u64;
        let total = self.len();
        let outside = total - inside;
        let counts = |dropped| RangeCounts { inside, outside, dropped };
        match policy {
            _ if outside == 0 => (self, counts(0)),
            RangePolicy::DeliverAll => (self, counts(0)),
            RangePolicy::FilterRecords => (self.without(outside, membership), counts(outside)),
            RangePolicy::AllOrNothing => (self.emptied(), counts(total)),
        }
    }
}

/// The hash keys that two ranges share.
fn intersection(a: HashKeyRange, b: HashKeyRange) -> Option<HashKeyRange> {
    HashKeyRange::new(a.start().max(b.start()), a.end().min(b.end())).ok()
}

/// Which user records lie in a range, with each partition key hashed at most once: a key that many user records share
/// must not cost each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    range: HashKeyRange,
    partition_keys: Vec<Option<bool>>,
}

impl Membership {
    pub(super) fn new(range: HashKeyRange, tables: &Tables) -> Self {
        Self { range, partition_keys: vec![None; tables.partition_keys()] }
    }

    /// Whether every hash key lies in the range, so that nothing need be hashed.
    pub(super) fn is_full(&self) -> bool {
        self.range == HashKeyRange::FULL
    }

    pub(super) fn range(&self) -> HashKeyRange {
        self.range
    }

    /// Whether a user record lies in the range, from its partition key's index and its explicit hash key.
    pub(super) fn decide(&mut self, tables: &Tables, partition_key: u64, explicit_hash_key: Option<u128>) -> bool {
        if let Some(explicit) = explicit_hash_key {
            return self.range.contains(explicit);
        }
        let known = usize::try_from(partition_key).ok().and_then(|index| self.partition_keys.get_mut(index));
        let (Some(known), Some(key)) = (known, tables.partition_key(partition_key)) else { return false };
        *known.get_or_insert_with(|| {
            #[cfg(test)]
            super::work::add(key.len());
            self.range.contains(hash_key(key.as_bytes()))
        })
    }

    /// Decides about many user records, with the partition keys that they need hashed side by side.
    pub(super) fn decide_all(&mut self, tables: &Tables, routes: impl Iterator<Item = (u64, Option<u128>)>) {
        let mut used = Vec::new();
        for (partition_key, _) in routes.filter(|(_, explicit)| explicit.is_none()) {
            let index = usize::try_from(partition_key).ok();
            if let Some((index, known)) = index.and_then(|index| Some((index, self.partition_keys.get_mut(index)?)))
                && known.is_none()
            {
                *known = Some(false);
                used.push(index);
            }
        }
        let keys = used.iter().map(|index| tables.partition_key(*index as u64).unwrap_or_default().as_bytes());
        md5_many(keys, |number, digest| {
            #[cfg(test)]
            super::work::add(tables.partition_key(used[number] as u64).map_or(0, str::len));
            self.partition_keys[used[number]] = Some(self.range.contains(u128::from_be_bytes(digest)));
        });
    }

    /// The same for what has been decided before.
    pub(super) fn contains(&self, partition_key: u64, explicit_hash_key: Option<u128>) -> bool {
        match explicit_hash_key {
            Some(explicit) => self.range.contains(explicit),
            None => usize::try_from(partition_key)
                .ok()
                .and_then(|index| self.partition_keys.get(index).copied().flatten())
                .unwrap_or(false),
        }
    }
}
