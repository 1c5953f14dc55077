//! From an entry to the open shard that takes it.

use std::collections::BTreeMap;

use crate::{HashKeyRange, PutEntry, hash_key};

/// An entry with its hash key worked out, so that this costs no time under the model's lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedEntry {
    pub(super) entry: PutEntry,
    pub(super) hash_key: u128,
}

impl From<PutEntry> for RoutedEntry {
    fn from(entry: PutEntry) -> Self {
        let hash_key = entry.explicit_hash_key.unwrap_or_else(|| hash_key(entry.partition_key.as_str().as_bytes()));
        Self { entry, hash_key }
    }
}

impl RoutedEntry {
    /// What counts towards the service's size limits: payload and partition key, in bytes.
    pub fn size(&self) -> usize {
        self.entry.data.len() + self.entry.partition_key.as_str().len()
    }
}

/// The open shards by the first hash key of their ranges. Together they always cover the whole key space.
#[derive(Debug, Default)]
pub(super) struct OpenShards(BTreeMap<u128, u32>);

impl OpenShards {
    pub(super) fn open(&mut self, range: HashKeyRange, shard: u32) {
        self.0.insert(range.start(), shard);
    }

    pub(super) fn close(&mut self, range: HashKeyRange) {
        self.0.remove(&range.start());
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The shard whose range holds a hash key.
    pub(super) fn owner(&self, hash_key: u128) -> Option<u32> {
        self.0.range(..=hash_key).next_back().map(|(_, shard)| *shard)
    }

    /// The shard at a place in the order of ranges, round and round.
    pub(super) fn nth(&self, turn: u64) -> Option<u32> {
        let place = usize::try_from(turn % u64::try_from(self.len().max(1)).unwrap_or(1)).unwrap_or(0);
        self.0.values().nth(place).copied()
    }

    /// The shards that start within a range, in order.
    pub(super) fn within(&self, range: HashKeyRange) -> Vec<u32> {
        self.0.range(range.start()..=range.end()).map(|(_, shard)| *shard).collect()
    }
}
